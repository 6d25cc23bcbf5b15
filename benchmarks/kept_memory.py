"""Time of a training step with glibc's own habit of handing memory back, and with memory kept.

    python benchmarks/kept_memory.py [--rounds 5] [--steps 25]

writes benchmarks/results/kept_memory.json. Each measurement is a process of its own, for the setting is one of a
whole process; the two take turns. A case is the baseline of a recipe of digits in its detector, one thread. Seconds are
medians over steps, five left out; ratios are of two neighbouring processes. Page faults are those of one step; the
losses of both must be equal to the bit.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nas.config import read_yaml
from nas.methods.catalog import baseline_of, check_search
from nas.run import environment
from search_spaces.families import family_of
from trainers.data.catalog import open_split
from trainers.detectors.catalog import build_detector
from trainers.loop import StepRecord, Trainer
from trainers.process import prepare_process
from trainers.recipes import TrainRecipe

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/kept_memory.json"
RECIPES = ("crnas_digits", "spinenet_digits")
WARM_UP = 5


def train(name: str, keep: bool, steps: int) -> dict[str, Any]:
    """Some steps in this process."""
    if keep:
        prepare_process(1)
    torch.set_num_threads(1)
    path = ROOT / f"examples/recipes/{name}.yaml"
    recipe = check_search(read_yaml(path), source=str(path))
    data, baseline = open_split(recipe.data, "train"), baseline_of(recipe)
    detector = build_detector(
        recipe.detector,
        family_of(baseline).build(baseline, seed=0),
        data.num_classes,
        data.image_size,
        seed=0,
    )
    faults = [0]
    seconds: list[float] = []
    losses: list[float] = []

    def note(step: StepRecord) -> None:
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        seconds.append(step.seconds)
        losses.append(step.loss)

    Trainer(
        detector=detector,
        data=data,
        recipe=TrainRecipe(steps=steps, batch_size=16, lr=0.005),
        seed=0,
        directory=None,
        device=torch.device("cpu"),
        on_step=note,
    ).run()
    a_step = [after - before for before, after in zip(faults[WARM_UP:], faults[WARM_UP + 1 :], strict=False)]
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "page_faults": statistics.median(a_step),
        "largest_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "losses": losses,
    }


def elsewhere(name: str, keep: bool, steps: int) -> dict[str, Any]:
    """The same in a fresh process."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, __file__, "--child", name, "--steps", str(steps), *(["--keep"] if keep else [])],
        env={**given, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)  # type: ignore[no-any-return]


def compared(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """Both in turn, and the ratio of their seconds."""
    pairs = [(elsewhere(name, False, steps), elsewhere(name, True, steps)) for _ in range(rounds)]
    assert all(one["losses"] == pairs[0][0]["losses"] for pair in pairs for one in pair), "bits differ"
    ratios = sorted(before["seconds"] / after["seconds"] for before, after in pairs)
    return {
        "ratio": {"median": round(statistics.median(ratios), 3), "all": [round(one, 3) for one in ratios]},
        **{
            side: {
                key: round(statistics.median(pair[place][key] for pair in pairs), 4)
                for key in ("seconds", "page_faults", "largest_MiB")
            }
            for place, side in enumerate(("handed_back", "kept"))
        },
    }


def main() -> None:
    """Compare the recipes, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument(
        "--child", choices=RECIPES, help="measure in this process and print (used by the script)"
    )
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(train(chosen.child, chosen.keep, chosen.steps)))
        return
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/kept_memory.py", *sys.argv[1:]]),
        "threads": 1,
        **environment(),
        "cases": {},
    }
    for name in RECIPES:
        result["cases"][name] = compared(name, chosen.rounds, chosen.steps)
        print(name, json.dumps(result["cases"][name]), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
