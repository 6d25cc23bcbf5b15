"""What training in bfloat16 does to AP and to time, seed by seed.

    python benchmarks/precision.py RECIPE --root DIR --dir RUNS [--seeds 6] [--first-seed 30000] [--workers 1]
        [--set KEY=VALUE ...] [--to FILE]

The baseline of a search's recipe is trained as in its final table, under each seed once with ``train.amp=off`` and
once with ``bf16``, one after the other or, with more workers, side by side. A finished training is kept in RUNS and not
done again. ``--set`` changes the recipe, for instance its detector.

The result, benchmarks/results/precision.json: AP on ``val`` of every seed, bf16 minus off paired by seed with a 95 %
interval, the same of masks where there are any, and seconds of both, which mean something where one ran after the
other (``--workers 1``).
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from nas.config import apply_overrides, read_yaml
from nas.engines.processes import in_processes
from nas.methods.catalog import baseline_of, check_search
from nas.methods.retraining import job_recipe, train_or_fail
from nas.report.ranking import paired_difference
from nas.run import environment
from nas.training import TrainingJob
from trainers.recipes import Amp

RESULT = Path(__file__).parent / "results/precision.json"
PRECISIONS: tuple[Amp, ...] = ("off", "bf16")


def trainings(
    recipe_path: Path, root: str, folder: Path, seeds: Sequence[int], changes: Sequence[str] = ()
) -> list[TrainingJob]:
    """Both of every seed, one beside the other."""
    recipe = check_search(
        apply_overrides(read_yaml(recipe_path), [f"data.root={root}", *changes]), source=str(recipe_path)
    )
    if recipe.retrain is None:
        raise SystemExit(f"{recipe_path}: has no final table (retrain), whose training is compared here")
    found = []
    for seed in seeds:
        for amp in PRECISIONS:
            job = job_recipe(recipe, replace(recipe.retrain.train, amp=amp), seed)
            found.append(
                TrainingJob(
                    architecture=baseline_of(recipe), recipe=job, directory=folder / f"{amp}-seed-{seed}"
                )
            )
    return found


def compared(results: dict[Amp, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """AP in points of both by seed, and their difference; the same of masks where there are any."""
    metrics = next(iter(results["off"].values()))["metrics"]
    found = _by_seed(results, "AP")
    if "mask_AP" in metrics:
        found["masks"] = _by_seed(results, "mask_AP")
    return found | {
        "seconds": {
            amp: [round(one["seconds"], 1) for one in by_seed.values()] for amp, by_seed in results.items()
        },
    }


def _by_seed(results: dict[Amp, dict[int, dict[str, Any]]], metric: str) -> dict[str, Any]:
    aps = {
        amp: {seed: 100.0 * one["metrics"][metric] for seed, one in by_seed.items()}
        for amp, by_seed in results.items()
    }
    difference = paired_difference(aps["bf16"], aps["off"])
    return {
        "ap": {
            amp: {
                "mean": round(fmean(by_seed.values()), 3),
                "deviation": round(stdev(by_seed.values()), 3),
                "by_seed": {str(seed): round(ap, 3) for seed, ap in by_seed.items()},
            }
            for amp, by_seed in aps.items()
        },
        "bf16_minus_off": {
            "mean": round(difference.mean, 3),
            "interval_95": [
                None if end is None else round(end, 3) for end in (difference.low, difference.high)
            ],
        },
    }


def main(words: Sequence[str]) -> None:
    """Train what is missing, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--root", required=True, help="folder of images in COCO form")
    parser.add_argument("--dir", type=Path, required=True, help="of the trainings")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args(words)
    if given.seeds < 2:
        parser.error("--seeds: at least 2, for a spread")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    results: dict[Amp, dict[int, dict[str, Any]]] = {amp: {} for amp in PRECISIONS}
    jobs = trainings(given.recipe, given.root, given.dir, seeds, given.set)
    for job, result in in_processes(train_or_fail, iter(jobs), given.workers):
        if "metrics" not in result:
            raise SystemExit(f"{job.directory}: {result['reason']}")
        results[job.recipe.train.amp][job.recipe.seed] = result
        print(job.directory.name, round(100.0 * result["metrics"]["AP"], 2), result["seconds"], flush=True)
    in_order = {amp: dict(sorted(by_seed.items())) for amp, by_seed in results.items()}
    shown = ["--root", f"DIR/{Path(given.root).name}", "--dir", f"DIR/{given.dir.name}"]
    shown += ["--seeds", str(given.seeds), "--first-seed", str(given.first_seed)]
    shown += [word for change in given.set for word in ("--set", change)]
    shown += ["--workers", str(given.workers)]
    said = {
        "command": shlex.join(
            ["python", "benchmarks/precision.py", f"examples/recipes/{given.recipe.name}", *shown]
        ),
        "epochs": jobs[0].recipe.train.epochs,
        **compared(in_order),
        "environment": environment() | {"threads": jobs[0].recipe.threads, "workers": given.workers},
    }
    given.to.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(
        json.dumps({name: said[name] for name in said if name in ("ap", "bf16_minus_off", "masks")}, indent=1)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
