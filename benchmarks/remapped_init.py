"""Remapped weights against fresh ones: the same network, images, schedule and seeds, only the beginning differs.

    python benchmarks/remapped_init.py --root DIR/bccd-multiscale --source-root DIR/nuclei --dir RUNS [--seeds 6]
        [--workers 1] [--source-epochs 24] [--epochs 12] [--output FILE] [--small]

For every seed the hand-made allocation (two blocks a stage) is trained on the images of ``--source-root``, or on scenes
of digits where that is left out. Its backbone is mapped block by block into the network that CR-NAS found on
bccd-multiscale (benchmarks/results/crnas_bccd.json), dilations and all, and that network is trained on ``--root``; once
more it is trained from scratch under the same seed. ``--equal-steps`` trains it from scratch a third time, as long as
both trainings of the other together, for the first training is not free. Detector, image size and widths are those of
examples/recipes/crnas_bccd.yaml; ``--small`` shrinks everything for a test.

Each training has its own directory in RUNS, so a stopped measurement goes on where it was. The result,
benchmarks/results/remapped_init.json: AP on val of both for every seed, the paired difference with its 95 % interval at
the end and at every evaluation before it, and how many epochs the remapped network needs for the AP with which the
other ends. ``val`` gives these figures only; nothing is chosen by it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, check, read_yaml
from nas.initial_weights import initial_weights
from nas.methods.retraining import run_jobs
from nas.progress import Silent
from nas.recipes.train_job import TrainJobRecipe
from nas.report.ranking import paired_difference
from nas.run import environment
from nas.training import TrainingJob, read_result
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/remapped_init.json"
RECIPE = ROOT / "examples/recipes/crnas_bccd.yaml"
SOURCE = ((2, 2, 2, 2), (1,) * 8)
TARGET = ((4, 2, 1, 1), (1, 1, 1, 1, 2, 2, 3, 1))
"""Blocks and dilations; the second is the winner of benchmarks/results/crnas_bccd.json."""
SMALL = (
    "data.image_size=64",
    "detector.fpn_channels=8",
    "train.batch_size=4",
    "train.epochs=null",
    "train.steps=2",
    "train.evaluate_every=0",
)


class Lines(Silent):
    """A progress that prints a line at the beginning of a phase and at the end of a training."""

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """What is done next."""
        print(f"{title} ({done} of {total})", flush=True)

    def say(self, text: str) -> None:
        """A sentence for the person."""
        print(text, flush=True)


def network(shape: tuple[tuple[int, ...], tuple[int, ...]], *, small: bool) -> Architecture:
    """The allocation at the widths and with the stem of the recipe."""
    space = read_yaml(RECIPE)["space"]
    named = get_architecture(space["network"])
    widths = (8, 8, 8, 8) if small else space["widths"]
    settings = Genes({**named.settings, "widths": widths, "stem": space["stem"]})
    return replace(named, settings=settings, genes=Genes({"blocks": shape[0], "dilations": shape[1]}))


def recipe(name: str, root: str | None, epochs: int, seed: int, *, small: bool, every: int) -> TrainJobRecipe:
    """One training under the settings of the search's final table, at another length."""
    data = read_yaml(RECIPE)
    train = {**data["retrain"]["train"], "epochs": epochs, "evaluate_every": every}
    images = {"source": "digits", "image_size": data["data"]["image_size"]}
    if root is not None:
        images = {**data["data"], "root": root}
    made = {
        "name": name,
        "seed": seed,
        "threads": 1,
        "data": images,
        "detector": data["detector"],
        "train": train,
    }
    shrunk = [*SMALL, *([] if root else ["data.digits.train_images=8", "data.digits.val_images=4"])]
    return check(TrainJobRecipe, apply_overrides(made, shrunk if small else []), source=name)


def jobs_of(given: argparse.Namespace, arm: str, seeds: Sequence[int]) -> list[TrainingJob]:
    """The trainings of one arm; those of ``remapped`` read the weights of ``source``."""
    folder, small = Path(given.dir), given.small
    target = network(TARGET, small=small)
    found = []
    for seed in seeds:
        root, epochs, every = given.root, given.epochs, given.every
        architecture, weights = target, None
        if arm == "source":
            root, epochs, every, architecture = (
                given.source_root,
                given.source_epochs,
                0,
                network(SOURCE, small=small),
            )
        elif arm == "remapped":
            begun = str(folder / "source" / f"seed-{seed}")
            weights = initial_weights(begun, remap=True, bundle="", architecture=target)
            assert weights is not None
            # The place of a directory is nobody's business.
            weights = replace(weights, origin=f"source/seed-{seed}")
        elif arm == "scratch_longer":
            epochs = given.epochs + given.source_epochs
        found.append(
            TrainingJob(
                architecture=architecture,
                recipe=recipe(f"remapped_init_{arm}", root, epochs, seed, small=small, every=every),
                directory=folder / arm / f"seed-{seed}",
                weights=weights,
            )
        )
    return found


def results_of(jobs: Sequence[TrainingJob]) -> dict[int, dict[str, Any]]:
    """Finished trainings by seed; one that diverged is left out, and its seed is named in the result."""
    every = {job.recipe.seed: read_result(job.directory) for job in jobs}
    return {seed: result for seed, result in every.items() if result is not None}


def summary(results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Of one arm: AP by seed, its curve, and what the trainings cost."""
    return {
        "AP": {seed: round(100 * one["metrics"]["AP"], 2) for seed, one in results.items()},
        "AP50": {seed: round(100 * one["metrics"]["AP50"], 2) for seed, one in results.items()},
        "curves": {
            seed: [[round(point["epoch"], 2), round(100 * point["AP"], 2)] for point in one["curve"]]
            for seed, one in results.items()
        },
        "images": sum(one["images"] for one in results.values()),
        "seconds": round(sum(one["seconds"] for one in results.values())),
    }


def difference(first: dict[int, float], second: dict[int, float]) -> dict[str, Any] | None:
    """Paired by seed, in AP points; None where no seed has both."""
    if not set(first) & set(second):
        return None
    found = asdict(paired_difference(first, second))
    wins = sum(first[seed] > second[seed] for seed in found["seeds"])
    rounded = {name: round(one, 3) if isinstance(one, float) else one for name, one in found.items()}
    return {**rounded, "first_is_better": wins}


def by_epoch(results: dict[int, dict[str, Any]]) -> dict[float, dict[int, float]]:
    """Epoch -> seed -> AP in points."""
    found: dict[float, dict[int, float]] = {}
    for seed, one in results.items():
        for point in one["curve"]:
            found.setdefault(round(point["epoch"], 2), {})[seed] = 100 * point["AP"]
    return found


def epochs_to(results: dict[int, dict[str, Any]], wanted: dict[int, float]) -> dict[int, float | None]:
    """The first evaluation at which each seed has the AP of the other arm's end, in epochs."""
    return {
        seed: next(
            (round(p["epoch"], 2) for p in results[seed]["curve"] if 100 * p["AP"] >= wanted[seed]), None
        )
        for seed in results
        if seed in wanted
    }


def compared(remapped: dict[int, dict[str, Any]], scratch: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The two arms, seed by seed."""
    ends = [{seed: 100 * one["metrics"]["AP"] for seed, one in arm.items()} for arm in (remapped, scratch)]
    curves = by_epoch(remapped), by_epoch(scratch)
    return {
        "AP": difference(*ends),
        "by_epoch": {epoch: difference(aps, curves[1].get(epoch, {})) for epoch, aps in curves[0].items()},
        "epochs_until_remapped_has_what_scratch_ends_with": epochs_to(remapped, ends[1]),
    }


def main(words: Sequence[str]) -> None:
    """Train what is missing and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="images to train on")
    parser.add_argument("--source-root", help="images of the training before; scenes of digits when left out")
    parser.add_argument("--dir", required=True, help="of all trainings")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=7000)
    parser.add_argument("--source-epochs", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--every", type=int, default=2, help="epochs between evaluations")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--equal-steps", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args(words)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    arms = ["source", "scratch", "remapped", *(["scratch_longer"] if given.equal_steps else [])]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in arms:
        ready = [seed for seed in seeds if arm != "remapped" or seed in found["source"]]
        jobs = jobs_of(given, arm, ready)
        run_jobs(jobs, given.workers, Lines(), arm)
        found[arm] = results_of(jobs)
    begun = [one["initial_weights"] for one in found["remapped"].values()]
    # Folders of this machine by their last names.
    folders = (given.root, given.source_root, given.dir, str(given.output))
    shown = [f"DIR/{Path(word).name}" if word in folders else word for word in words]
    result = {
        "command": f"python benchmarks/remapped_init.py {' '.join(shown)}",
        "what": "AP on val of one network after equal training, begun with remapped weights and with fresh ones",
        "environment": environment() | {"threads": 1, "processes": given.workers},
        "networks": {
            name: network(shape, small=given.small).to_dict()["genes"]
            for name, shape in (("source", SOURCE), ("target", TARGET))
        },
        "blocks": begun[0]["blocks"] if begun else {},
        "fresh": begun[0]["fresh"] if begun else [],
        "lengths": {"source_epochs": given.source_epochs, "epochs": given.epochs},
        "not_finished": {
            arm: [seed for seed in seeds if seed not in results] for arm, results in found.items()
        },
        "arms": {arm: summary(results) for arm, results in found.items()},
        "remapped_minus_scratch": compared(found["remapped"], found["scratch"]),
    }
    if given.equal_steps:
        longer = {seed: 100 * one["metrics"]["AP"] for seed, one in found["scratch_longer"].items()}
        own = {seed: 100 * one["metrics"]["AP"] for seed, one in found["remapped"].items()}
        result["remapped_minus_scratch_longer"] = difference(own, longer)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["remapped_minus_scratch"], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
