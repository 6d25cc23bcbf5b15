"""What every proxy's order of networks is worth, and what it costs: all of them against one table of trained networks.

    python benchmarks/proxies.py --truth benchmarks/tables/crnas_bccd.json --root DIR/bccd-multiscale --dir RUNS
        [--arms ARM ...] [--seeds 1] [--workers 1] [--to FILE]

Supernets are searches by examples/recipes/crnas_bccd.yaml without dilations and without a final table, one for every
arm and seed, in RUNS; each scores all 31 allocations on images held out of ``train``. Short trainings are those of the
final table, cut short, on the other images and scored on the same held-out ones. The rest are scores at random weights.
``val`` is read by nobody here; it made the table. What is done is kept in RUNS and taken up again.

``--arms`` limits what is trained; whatever RUNS already holds is in the result,
benchmarks/results/proxies_TABLE.json, and so are the arms that stand there already and are not in RUNS: for each arm
tau-b with its interval and the other statistics of ``nas rank``, its multiply-adds as a share of the table's (with all
of the recipe's recalibration, where an arm does less of it too), and the combinations by mean rank. An arm is
replaced as a whole, by no fewer seeds than it has.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.costs import phase_costs
from nas.methods.crnas import carry_out, scorer
from nas.methods.data import SearchData, read_data
from nas.methods.retraining import job_recipe, run_jobs
from nas.methods.truth import TRAINING, compare, table_macs, trivial
from nas.progress import Silent
from nas.proxies.supernet import SupernetProxy
from nas.proxies.tabular import Table, read_table
from nas.proxies.zero_cost import entropy, fields_for_boxes, first_images, naswot, synflow
from nas.recipes.search import SearchRecipe
from nas.report.rank_quality import mean_rank
from nas.run import Run, environment, split_seed
from nas.show import histories
from nas.training import TrainingJob, read_result
from search_spaces.architecture import Architecture
from search_spaces.files import write_atomic
from trainers.evaluate import coco_metrics, detect

ROOT = Path(__file__).parents[1]
RECIPE = "examples/recipes/crnas_bccd.yaml"
# The rest of a recipe is what the search of CR-NAS does anyway.
ALONE = ("dilations=null", "retrain=null", "workers=1")
SUPERNETS: dict[str, tuple[str, ...]] = {
    f"supernet {sharing}, {sampling}, {steps} steps{', bf16' if amp == 'bf16' else ''}": (
        f"stages.supernet.sharing={sharing}",
        f"stages.supernet.sampling={sampling}",
        f"stages.supernet.train.steps={steps}",
        f"stages.supernet.train.amp={amp}",
    )
    for sharing, sampling, steps, amp in (
        ("independent", "uniform", 500, "bf16"),
        ("independent", "uniform", 1000, "bf16"),
        ("independent", "fair", 1000, "bf16"),
        ("independent", "sandwich", 1000, "bf16"),
        ("prefix", "uniform", 1000, "bf16"),
        ("prefix", "fair", 1000, "bf16"),
        ("prefix", "sandwich", 1000, "bf16"),
        ("independent", "uniform", 1000, "off"),
        ("independent", "uniform", 3000, "bf16"),
        ("independent", "uniform", 3000, "off"),
        ("independent", "fair", 3000, "off"),
        ("prefix", "uniform", 1000, "off"),
        ("prefix", "uniform", 3000, "off"),
        ("prefix", "fair", 3000, "off"),
        ("prefix", "sandwich", 3000, "off"),
        ("prefix", "fair", 4000, "off"),
    )
}
FEWER = 4
"""Batches of recalibration that supernets with shared prefixes are scored with as well; the recipe has twelve (one with
``--small``)."""
SHORT = {f"short training, {epochs} epochs": epochs for epochs in (3, 6, 12)}
FREE = ("naswot", "synflow", "entropy", "fields for boxes")
SHARED = "supernet prefix"
Scores = dict[str, float]


def recipe_of(root: str, changes: Sequence[str], seed: int, small: bool) -> SearchRecipe:
    """A search of the arm."""
    data = apply_overrides(read_yaml(ROOT / RECIPE), ["dilations=null", *changes])
    data["data"]["root"] = root
    shrunk = [
        "data.image_size=64",
        "stages.supernet.train.steps=2",
        "stages.supernet.recalibration_batches=1",
    ]
    return check_search(apply_overrides(data, [f"seed={seed}", *(shrunk if small else [])]), source=RECIPE)


def supernet(run: Run) -> tuple[Scores, float]:
    """Digest -> score of every allocation, and the multiply-adds of training and scoring."""
    if run.read_winner() is None:
        carry_out(run, Lines())
    trials = histories(run)
    scores = {one.digest: one.value for one in trials["stages"] if one.value is not None}
    size = tuple((run.read_json("data.json") or {})["image_size"])
    return scores, float(sum(one.macs for one in phase_costs(run, trials, (size[0], size[1]))))


def without_recalibration(run: Run, data: SearchData, table: Table) -> Scores:
    """Scores of a trained supernet with the BN statistics that its training left, which are those of all paths."""
    path = run.directory / "without_recalibration.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    proxy = scorer(run, data, "stages")
    assert isinstance(proxy, SupernetProxy)
    scores = {}
    for one in table.networks:
        proxy.supernet.set_path(one.architecture)
        found = detect(proxy.detector, data.held_out, device=torch.device("cpu"))
        scores[one.architecture.digest] = 100 * coco_metrics(data.held_out, found).AP
    write_atomic(path, json.dumps(scores).encode())
    return scores


def with_fewer_batches(run: Run, data: SearchData, table: Table) -> Scores:
    """Scores of a trained supernet as its search gives them, but with :data:`FEWER` batches of recalibration."""
    path = run.directory / f"recalibration_of_{FEWER}.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    proxy = scorer(run, data, "stages")
    assert isinstance(proxy, SupernetProxy)
    proxy.recipe = replace(proxy.recipe, recalibration_batches=FEWER)
    scores = {one.architecture.digest: proxy(one.architecture).value for one in table.networks}
    write_atomic(path, json.dumps(scores).encode())
    return scores


def short_jobs(recipe: SearchRecipe, table: Table, epochs: int, seed: int, folder: Path) -> list[TrainingJob]:
    """Every network trained alone for a short time, scored on the held-out images."""
    assert recipe.retrain is not None
    train = replace(recipe.retrain.train, epochs=float(epochs), evaluate_every=0)
    return [
        TrainingJob(
            architecture=one.architecture,
            recipe=job_recipe(recipe, train, 30_000 + seed),
            directory=folder / f"short-{epochs}" / one.architecture.digest / f"seed-{seed}",
            held_out_seed=split_seed(recipe),
        )
        for one in table.networks
    ]


def free_scores(table: Table, data: SearchData) -> Iterator[tuple[str, Scores]]:
    """Scores at random weights."""
    images = first_images(data.train_set)
    size = data.train_set.image_size
    sides = [
        float(side)
        for index in range(len(data.train_set))
        for side in _sides(data.train_set.targets[index]["boxes"])
    ]
    each: dict[str, Callable[[Architecture], float]] = {
        "naswot": lambda one: naswot(one, images),
        "synflow": lambda one: synflow(one, size),
        "entropy": lambda one: entropy(one, size),
        "fields for boxes": lambda one: fields_for_boxes(one, sides, size),
    }
    for name in FREE:
        yield name, {one.architecture.digest: each[name](one.architecture) for one in table.networks}


def known_free_scores(path: Path, table: Table, data: SearchData) -> dict[str, Scores]:
    """The same from a file, where they are in it."""
    made_of = {"images": data.train_set.digest, "size": list(data.train_set.image_size), "table": table.name}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found.get("made_of") != made_of:
        found = {"made_of": made_of, "scores": dict(free_scores(table, data))}
        write_atomic(path, json.dumps(found).encode())
    return dict(found["scores"])


def _sides(boxes: torch.Tensor) -> list[float]:
    return ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt().tolist()  # type: ignore[no-any-return]


def processor() -> str:
    """Of this machine."""
    return str(environment()["hardware"]["processor"])


def before(path: Path, table: Table) -> dict[str, tuple[list[Scores], float, dict[str, str]]]:
    """Arm -> scores, multiply-adds and origin of what an earlier call wrote about the same networks."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    known = set(table.by_digest)
    if found["table"] != table.name or any(
        set(one) != known for some in found["scores"].values() for one in some
    ):
        raise SystemExit(f"{path} is of other networks than {table.name}; name another file with --to")
    return {
        name: (some, found["arms"][name]["macs"], found["made_by"][name])
        for name, some in found["scores"].items()
    }


class Lines(Silent):
    """Prints a line at the beginning of a phase."""

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """What is done next."""
        print(f"{title} ({done} of {total})", flush=True)


def main(words: Sequence[str]) -> None:
    """Train what is asked for, and compare all there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--root", required=True, help="images in COCO form")
    parser.add_argument("--dir", type=Path, required=True, help="of all runs")
    parser.add_argument("--arms", nargs="*", choices=[*SUPERNETS, *SHORT], default=[*SUPERNETS, *SHORT])
    parser.add_argument("--seeds", type=int, default=1, help="of supernets and short trainings")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--small", action="store_true", help="two steps a supernet, for a test")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    table = read_table(given.truth)
    path = given.to or ROOT / f"benchmarks/results/proxies_{table.name}.json"
    known = before(path, table)
    scores: dict[str, list[Scores]] = {}
    macs: dict[str, float] = {}
    last: SearchData | None = None
    for name, changes in SUPERNETS.items():
        for seed in range(given.seeds):
            folder = given.dir / f"{name}, seed {seed}".replace(", ", "-").replace(" ", "_")
            if name not in given.arms and not (folder / "winner.yaml").exists():
                continue
            recipe = recipe_of(given.root, (*ALONE, *changes), seed, given.small)
            run = Run.open(folder) if (folder / "recipe.yaml").exists() else Run.create(folder, recipe)
            found, macs[name] = supernet(run)
            scores.setdefault(name, []).append(found)
            own = read_data(run.recipe)
            last = last or own
            bare = f"{name}, BN as trained"
            scores.setdefault(bare, []).append(without_recalibration(run, own, table))
            macs[bare] = macs[name]
            if name.startswith(SHARED):
                fewer = f"{name}, {FEWER} batches"
                scores.setdefault(fewer, []).append(with_fewer_batches(run, own, table))
                macs[fewer] = macs[name]
            print(f"{name}, seed {seed}: done", flush=True)
    data = last or read_data(recipe_of(given.root, ALONE, 0, given.small))
    for name, epochs in SHORT.items():
        for seed in range(given.seeds):
            whole = recipe_of(given.root, ("retrain.rivals=[]",), seed, given.small)
            jobs = short_jobs(whole, table, epochs, seed, given.dir)
            if name in given.arms:
                run_jobs(jobs, given.workers, Lines(), name)
            results = {job.architecture.digest: read_result(job.directory) for job in jobs}
            if all(result is not None for result in results.values()):
                aps = {digest: 100 * result["metrics"]["AP"] for digest, result in results.items() if result}
                scores.setdefault(name, []).append(aps)
                images = epochs * len(data.train_set)
                macs[name] = float(sum(TRAINING * images * one.macs for one in table.networks))
    for name, one in known_free_scores(given.dir / "free.json", table, data).items():
        scores[name], macs[name] = [one], 0.0
    made = {
        name: {"command": command_for(name, len(found), given), "processor": processor()}
        for name, found in scores.items()
    }
    for name, (found_before, spent, words_before) in known.items():
        # Of other seeds than these too: an arm stays whole as it was until there are as many of them.
        if len(found_before) > len(scores.get(name, [])):
            scores[name], macs[name], made[name] = found_before, spent, words_before
    result = summary(table, scores, macs)
    result |= {"command": command(shown(words, given)), "made_by": made}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, one in result["arms"].items():
        found = [seed["tau"] for seed in one["seeds"] if seed["tau"]["value"] is not None]
        ends = [
            "no interval" if tau["low"] is None else f"{tau['low']:.2f} to {tau['high']:.2f}" for tau in found
        ]
        taus = [f"{tau['value']:.2f} ({end})" for tau, end in zip(found, ends, strict=True)]
        print(f"{name:<55} {'; '.join(taus)}  cost {one['share_of_table']:.4f}")
    print(json.dumps(result["ceiling"]))


def shown(words: Sequence[str], given: argparse.Namespace) -> list[str]:
    """The words of the command, without folders of this machine."""
    folders = {given.root, str(given.dir), str(given.to), str(given.truth)}
    return [f"DIR/{Path(word).name}" if word in folders else word for word in words]


def command(words: Sequence[str]) -> str:
    """A line of a shell."""
    return shlex.join(["python", "benchmarks/proxies.py", *words])


def command_for(arm: str, seeds: int, given: argparse.Namespace) -> str:
    """The call that makes one arm: of what is scored in several ways, that of its training.

    One arm's name may begin with another's (``..., bf16``), so the longest that fits is the one; what costs nothing has
    none.
    """
    trained = [one for one in (*SUPERNETS, *SHORT) if arm == one or arm.startswith(f"{one}, ")]
    words = [
        "--truth",
        str(given.truth),
        "--root",
        given.root,
        "--dir",
        str(given.dir),
        "--seeds",
        str(seeds),
    ]
    return command(shown([*words, "--arms", *sorted(trained, key=len)[-1:]], given))


def summary(table: Table, scores: dict[str, list[Scores]], macs: dict[str, float]) -> dict[str, Any]:
    """Statistics of every arm and seed, and of combinations of the first seeds."""
    arms: dict[str, Any] = {}
    known = [one.architecture for one in table.networks]
    costs = trivial(known, table.image_size)
    every = {name: [dict(zip(table.by_digest, values, strict=True))] for name, values in costs.items()}
    supernets = [name for name in scores if name in SUPERNETS]
    for name in supernets:
        for other in FREE:
            parts = [scores[name][0], scores[other][0]]
            digests = list(table.by_digest)
            ranks = mean_rank([[part[one] for one in digests] for part in parts])
            every[f"mean rank of {name} and {other}"] = [dict(zip(digests, ranks, strict=True))]
    every = scores | every
    # All at once, for what costs nothing stands beside them each time.
    numbered = {f"{name} {place}": one for name, found in every.items() for place, one in enumerate(found)}
    reference = compare(numbered, table, phase="proxies").to_dict()
    for name, found in every.items():
        rows = [reference["rows"][f"{name} {place}"] for place in range(len(found))]
        parts = [part for part in supernets if f"of {part} and" in name]
        spent = macs.get(name, macs[parts[0]] if parts else 0.0)
        arms[name] = {"seeds": rows, "macs": spent, "share_of_table": spent / table_macs(table)}
    return {
        "table": table.name,
        "networks": reference["networks"],
        "seeds_of_truth": list(table.seeds),
        "ceiling": reference["ceiling"],
        "table_macs": table_macs(table),
        "arms": arms,
        "scores": scores,
        "environment": environment(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
