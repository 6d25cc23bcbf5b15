"""Train every network of a table alone, and write the table.

    python benchmarks/tables/build.py TABLE --dir RUNS [--root DIR] [--seeds 3] [--workers 1] [--hours H] [--to FILE]
    python benchmarks/tables/build.py TABLE --latency [--to FILE]

TABLE is one of ``TABLES`` below, ``--root`` the folder of its images in COCO form, where it has any. Trainings go seed
by seed, so that a table which is cut short has whole seeds. A finished training is in the file at once; what stands
there is not trained again, and a training that was stopped goes on from its checkpoint in RUNS. So the work may be
split over many calls, and over machines that hand the file on; ``--hours`` begins nothing new after that time. A list
of networks may grow: those that are new are trained into the file.

``--latency`` trains nothing: it times one forward pass of every backbone of the file, all of them in turn, one image
and one thread, on a machine that should do nothing else.

The trainings are those of the final table of the recipe that TABLE names, at the length that it names. AP is that of
``val`` at the epochs of the recipe's evaluations; nothing is chosen by it.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, read_yaml, to_data
from nas.engines.processes import in_processes
from nas.methods.catalog import check_search
from nas.methods.retraining import job_recipe, train_or_fail
from nas.methods.spaces import crnas_recipe, stage_space
from nas.methods.spinenet_space import spinenet_recipe, spinenet_space
from nas.proxies.tabular import Table, TabularNetwork, read_table, write_table
from nas.recipes.search import SearchRecipe
from nas.recipes.train_job import TrainJobRecipe
from nas.report.measure import measure_latency
from nas.run import environment
from nas.training import TrainingJob
from search_spaces.architecture import Architecture, digest_of
from search_spaces.cost import cost
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from trainers.data.catalog import open_split

ROOT = Path(__file__).parents[2]


def allocations(recipe: SearchRecipe) -> list[Architecture]:
    """All of a recipe of CR-NAS."""
    return list(stage_space(crnas_recipe(recipe).space).enumerate())


def graphs(recipe: SearchRecipe, count: int = 101) -> list[Architecture]:
    """The baseline of a recipe of SpineNet, and graphs drawn from its space within the recipe's limits."""
    made = spinenet_recipe(recipe)
    space = spinenet_space(made.space)
    size = (recipe.data.digits.image_size,) * 2
    base = cost(space.baseline, size)
    limits = made.search.limits
    found = {space.baseline.digest: space.baseline}
    rng: random.Random = rng_for(0, "table")
    while len(found) < count:
        one = space.sample(rng)
        own = cost(one, size)
        if (
            own.macs <= (limits.macs or 1e9) * base.macs
            and own.params <= (limits.params or 1e9) * base.params
        ):
            found.setdefault(one.digest, one)
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a table is made of."""

    recipe: str
    space: str
    networks: Callable[[SearchRecipe], list[Architecture]]
    changes: tuple[str, ...]
    first_seed: int


TABLES = {
    "crnas_bccd": Entry(
        recipe="examples/recipes/crnas_bccd.yaml",
        space="all allocations of 8 basic blocks to four stages, 1 to 4 in each",
        networks=allocations,
        changes=("retrain.train.epochs=24", "retrain.train.evaluate_every=4"),
        first_seed=20_000,
    ),
    "crnas_digits": Entry(
        recipe="examples/recipes/crnas_digits.yaml",
        space="all allocations of 8 basic blocks to four stages, 1 to 4 in each",
        networks=allocations,
        changes=("retrain.train.evaluate_every=4",),
        first_seed=21_000,
    ),
    "spinenet_digits": Entry(
        recipe="examples/recipes/spinenet_digits.yaml",
        space="R0-SP53 and 100 random scale-permuted networks of no more MACs and 1.1 times its parameters",
        networks=graphs,
        changes=("retrain.train.epochs=20", "retrain.train.evaluate_every=4"),
        first_seed=22_000,
    ),
}


def searched(entry: Entry, root: str | None, small: bool) -> SearchRecipe:
    """The entry's recipe over these images."""
    data = apply_overrides(read_yaml(ROOT / entry.recipe), list(entry.changes))
    if root is not None:
        data["data"]["root"] = root
    if small:
        shrunk = ["data.image_size=64", "retrain.train.epochs=null", "retrain.train.steps=2"]
        if "digits" in data["data"]:
            shrunk = ["data.digits.image_size=64", "data.digits.train_images=16", *shrunk[1:]]
            shrunk += ["data.digits.max_side=60", "data.digits.val_images=4"]
        data = apply_overrides(
            data, [*shrunk, "retrain.train.evaluate_every=1", "retrain.train.batch_size=4"]
        )
    return check_search(data, source=entry.recipe)


def training_of(recipe: SearchRecipe, seed: int) -> TrainJobRecipe:
    """One training of the table."""
    assert recipe.retrain is not None
    return job_recipe(recipe, recipe.retrain.train, seed)


def facts(entry: Entry, recipe: SearchRecipe) -> dict[str, Any]:
    """Everything that all trainings have in common, without folders of this machine."""
    said = to_data(training_of(recipe, 0))
    said["data"]["root"] = None
    said = {name: said[name] for name in ("data", "detector", "train", "threads")}
    return {"recipe": said, "recipe_digest": digest_of(said), "made_from": entry.recipe}


def agrees(stored: Any, now: Any) -> bool:
    """Whether a stored recipe says what the present one says; a field that came later is at its default."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return all(name in now and agrees(value, now[name]) for name, value in stored.items())
    return bool(stored == now)


def untrained(networks: Sequence[Architecture], side: tuple[int, int]) -> tuple[TabularNetwork, ...]:
    """Networks of which nothing but the cost is known."""
    return tuple(
        TabularNetwork(architecture=one, params=cost(one, side).params, macs=cost(one, side).macs, scores={})
        for one in networks
    )


def begun(
    name: str, entry: Entry, recipe: SearchRecipe, networks: Sequence[Architecture], path: Path
) -> Table:
    """The table so far, with whatever networks were added since; an empty one where there is none.

    Raises:
        SystemExit: the file holds trainings by another recipe, or networks that are not asked for.
    """
    said = facts(entry, recipe)
    if path.exists():
        table = read_table(path)
        if not agrees(table.about["recipe"], said["recipe"]):
            raise SystemExit(
                f"{path}: holds trainings by another recipe; take another file, or delete this one"
            )
        if set(table.by_digest) - {one.digest for one in networks}:
            raise SystemExit(f"{path}: holds other networks than {entry.space}")
        added = untrained([one for one in networks if one.digest not in table.by_digest], table.image_size)
        return replace(table, space=entry.space, networks=(*table.networks, *added))
    data = open_split(recipe.data, "train")
    side = data.image_size
    return Table(
        name=name,
        space=entry.space,
        images_trained=len(data),
        epochs=(),
        image_size=side,
        networks=untrained(networks, side),
        about={**said, "data": {}, "environment": {}, "failed": {}},
    )


def with_result(table: Table, job: TrainingJob, result: dict[str, Any]) -> Table:
    """The table and one training more."""
    seed = job.recipe.seed
    if "metrics" not in result:
        failed = {**table.about["failed"], f"{job.architecture.digest}, seed {seed}": result["reason"]}
        return replace(table, about={**table.about, "failed": failed})
    epochs = tuple(round(point["epoch"], 2) for point in result["curve"])
    scores = tuple(round(100 * point["AP"], 2) for point in result["curve"])
    data = {**result["data"], "categories": result["categories"], "licence": result["licence"]}
    if table.epochs and (table.epochs != epochs or table.about["data"] != data):
        raise SystemExit(f"{job.directory}: was evaluated at other epochs or trained on other images")
    own = table.by_digest[job.architecture.digest]
    own = replace(own, scores={**own.scores, seed: scores}, seconds=round(own.seconds + result["seconds"], 1))
    return replace(
        table,
        epochs=epochs,
        networks=tuple(
            own if one.architecture.digest == job.architecture.digest else one for one in table.networks
        ),
        about={**table.about, "data": data, "environment": environment()},
    )


def missing(table: Table, recipe: SearchRecipe, seeds: Sequence[int], folder: Path) -> Iterator[TrainingJob]:
    """What is still to be trained, seed by seed."""
    for seed in seeds:
        for one in table.networks:
            digest = one.architecture.digest
            if seed in one.scores or f"{digest}, seed {seed}" in table.about["failed"]:
                continue
            yield TrainingJob(
                architecture=one.architecture,
                recipe=training_of(recipe, seed),
                directory=folder / digest / f"seed-{seed}",
            )


def timed(table: Table) -> Table:
    """The table with the median latency of every backbone on this machine."""
    backbones = {
        one.architecture.digest: family_of(one.architecture).build(one.architecture, seed=0)
        for one in table.networks
    }
    found = measure_latency(
        {digest: one.eval() for digest, one in backbones.items()}, input_size=table.image_size, repeats=50
    )
    networks = tuple(
        replace(one, latency_ms=round(found[one.architecture.digest].median_ms, 3)) for one in table.networks
    )
    said = {"images": 1, "threads": 1, "repeats": 50, "environment": environment()}
    return replace(table, networks=networks, about={**table.about, "latency": said})


def main(words: Sequence[str]) -> None:
    """Train what is missing, writing the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--root", help="folder of images in COCO form")
    parser.add_argument("--dir", type=Path, help="of the trainings under way")
    parser.add_argument("--latency", action="store_true", help="time the networks of the file, train nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--to", type=Path, help="the table; benchmarks/tables/TABLE.json when left out")
    parser.add_argument("--small", action="store_true", help="two steps a training, for a test")
    given = parser.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    entry, path = TABLES[given.table], given.to or Path(__file__).parent / f"{given.table}.json"
    if given.latency:
        write_table(timed(read_table(path)), path)
        return
    if given.dir is None:
        parser.error("--dir: name the folder of the trainings under way")
    recipe = searched(entry, given.root, given.small)
    networks = entry.networks(recipe)
    table = begun(given.table, entry, recipe, networks, path)
    seeds = range(entry.first_seed, entry.first_seed + given.seeds)
    waiting = list(missing(table, recipe, seeds, given.dir))
    ends = time.monotonic() + 3600 * given.hours
    print(
        f"{given.table}: {len(networks) * len(seeds) - len(waiting)} of {len(networks) * len(seeds)} trained",
        flush=True,
    )
    in_time = (job for job in waiting if time.monotonic() < ends)
    for number, (job, result) in enumerate(in_processes(train_or_fail, in_time, given.workers), start=1):
        table = with_result(table, job, result)
        write_table(table, path)
        came = f"{100 * result['metrics']['AP']:.2f} AP" if "metrics" in result else result["reason"]
        print(
            f"{number} of {len(waiting)}: {job.architecture.digest}, seed {job.recipe.seed}: {came}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
