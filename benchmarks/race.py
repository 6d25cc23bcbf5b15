"""What a race saves: the digits' allocations scored with and without one, over held-out sets of some sizes.

    python benchmarks/race.py --dir RUNS [--held-out 80 1600] [--seeds 2] [--steps 300] [--to FILE]

For every size and seed one supernet is trained in RUNS. All 31 allocations are scored with it twice, one after the
other in one process on one thread: on all held-out images, and in a race (``first`` is an eighth of them or 32, the
other settings are the defaults) with all 31 in one round. Who goes first alternates.

The result, benchmarks/results/race.json: seconds and images of both, how many were stopped, and what the race's winner
lacks, in AP on all held-out images, to the best of them.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.crnas import carry_out
from nas.progress import Silent
from nas.run import Run, environment
from nas.show import histories
from search_spaces.files import write_atomic
from trainers.loop import CHECKPOINT
from trainers.process import prepare_process

ROOT = Path(__file__).parents[1]
RECIPE = "examples/recipes/crnas_digits.yaml"


def begun(folder: Path, held_out: int, seed: int, steps: int, *, race: bool) -> Run:
    """A search of the allocations alone."""
    changes = [
        "dilations=null",
        "retrain=null",
        "workers=1",
        "engine=serial",
        "batch=31",
        f"seed={seed}",
        f"stages.supernet.train.steps={steps}",
        f"data.digits.train_images={2 * held_out}",
        "data.digits.val_images=8",
        "data.hold_out=0.5",
    ]
    if race:
        changes.append(f"stages.race.first={max(32, held_out // 8)}")
    recipe = check_search(apply_overrides(read_yaml(ROOT / RECIPE), changes), source=RECIPE)
    return Run.open(folder) if (folder / "recipe.yaml").exists() else Run.create(folder, recipe)


def scored(run: Run) -> dict[str, Any]:
    """Carry it out; what its trials say."""
    winner = carry_out(run, Silent())
    trials = histories(run)["stages"]
    return {
        "seconds": round(sum(one.seconds for one in trials), 2),
        "images": round(sum(one.images_seen for one in trials)),
        "stopped": sum(one.stopped_at is not None for one in trials),
        "winner": winner.digest,
        "scores": {one.digest: one.value for one in trials if one.value is not None},
    }


def compared(folder: Path, held_out: int, seed: int, steps: int) -> dict[str, Any]:
    """Both searches over one supernet."""
    names = ("whole", "race") if seed % 2 == 0 else ("race", "whole")
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        run = begun(folder / name, held_out, seed, steps, race=name == "race")
        stages = run.directory / "stages"
        if place and not (stages / CHECKPOINT).exists():
            stages.mkdir(exist_ok=True)
            shutil.copy(folder / names[0] / "stages" / CHECKPOINT, stages / CHECKPOINT)
        found[name] = scored(run)
    scores = found["whole"].pop("scores")
    del found["race"]["scores"]
    return {
        "held_out": held_out,
        "seed": seed,
        **found,
        "speedup": round(found["whole"]["seconds"] / found["race"]["seconds"], 2),
        "winner_lacks": round(max(scores.values()) - scores[found["race"]["winner"]], 3),
        "spread_of_scores": round(max(scores.values()) - min(scores.values()), 2),
    }


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="of the runs")
    parser.add_argument("--held-out", type=int, nargs="+", default=[80, 1600])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="of a supernet")
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks/results/race.json")
    given = parser.parse_args(words)
    prepare_process(1)
    rows = []
    for held_out in given.held_out:
        for seed in range(given.seeds):
            rows.append(compared(given.dir / f"{held_out}-{seed}", held_out, seed, given.steps))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": f"python benchmarks/race.py --dir RUNS --held-out {' '.join(map(str, given.held_out))} "
        f"--seeds {given.seeds} --steps {given.steps}",
        "recipe": RECIPE,
        "rows": rows,
        "environment": environment() | {"threads": 1},
    }
    write_atomic(given.to, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
