"""A search on a Ray cluster of three nodes, one of which is killed halfway, against the same search undisturbed.

    python benchmarks/node_kill.py [RECIPE] [--set key=value ...] [--seed 0]

for instance ``examples/recipes/crnas_bccd.yaml --set data.root=DIR``. The nodes are on this machine, one worker
each. When half of the candidates are scored, the raylet of a node drawn by the seed gets SIGKILL, its worker dies
with it. The undisturbed search scores in its own process, beside it. Nothing is retrained: the table is the same for
the same winner. The result, benchmarks/results/node_kill.json, says whether trials, scores and winner are equal to the
bit and what the kill has cost. Exit code 1 if they are not.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from nas.methods.catalog import check_search
from nas.methods.searching import expected_trials
from nas.methods.spaces import dilation_space, stage_space
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run, environment
from nas.show import histories
from nas.targets import read_recipe
from search_spaces.errors import RunError

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/node_kill.json"
NODES = 3


def main() -> None:
    """Run both, compare, write."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("recipe", nargs="?", type=Path, default=ROOT / "examples/recipes/crnas_bccd.yaml")
    words.add_argument("--set", dest="sets", action="append", default=[])
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    sets = [*given.sets, "retrain=null"]
    half = planned(given.recipe, sets) // 2
    with tempfile.TemporaryDirectory() as folder:
        calm, struck = Path(folder) / "calm", Path(folder) / "struck"
        undisturbed = search(given.recipe, calm, [*sets, "engine=serial", "workers=1"])
        kill = searched_on_nodes(given.recipe, struck, sets, half, random.Random(given.seed))
        if undisturbed.wait() != 0:
            raise SystemExit("the undisturbed search ended with an error")
        result = {
            "command": f"python benchmarks/node_kill.py {given.recipe.name} "
            + " ".join(f"--set {text}" for text in without_places(given.sets)),
            "environment": environment(),
            "nodes": NODES,
            "kill": kill,
            **compared(calm, struck),
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if not result["same"]:
        raise SystemExit(1)


def planned(recipe: Path, sets: Sequence[str]) -> int:
    """Candidates of a whole search."""
    checked = check_search(read_recipe(recipe, sets), source=str(recipe))
    assert isinstance(checked, CRNASRecipe), "this script knows the phases of CR-NAS"
    space = stage_space(checked.space)
    counts = [expected_trials(checked.stages.controller, space)]
    if checked.dilations is not None:
        counts.append(expected_trials(checked.dilations.controller, dilation_space(space.baseline)))
    return sum(count or 0 for count in counts)


def search(recipe: Path, run: Path, sets: Sequence[str], *more: str) -> subprocess.Popen[bytes]:
    """``nas search`` in a process of its own."""
    overrides = [word for text in sets for word in ("--set", text)]
    command = [sys.executable, "-m", "nas.cli", "search", str(recipe), "--run", str(run), *overrides, *more]
    log = run.with_suffix(".log").open("wb")
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT
    )


def searched_on_nodes(
    recipe: Path, run: Path, sets: Sequence[str], half: int, rng: random.Random
) -> dict[str, Any]:
    """Search on three nodes, kill one when ``half`` of the candidates have ended, and wait for the end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=1)
        _, *others = cluster.list_all_nodes()
        process = search(recipe, run, [*sets, f"workers={NODES}"], "--address", cluster.address)
        while (ended := finished(run)) < half:
            if process.poll() is not None:
                raise SystemExit(run.with_suffix(".log").read_text())
            time.sleep(0.5)
        cluster.remove_node(rng.choice(others), allow_graceful=False)
        if process.wait() != 0:
            raise SystemExit(run.with_suffix(".log").read_text())
    finally:
        cluster.shutdown()
    return {"after_candidates": ended, "of": 2 * half, "what": "SIGKILL of a node's raylet"}


def finished(run: Path) -> int:
    """Candidates that have ended so far."""
    try:
        return sum(one.finished for history in histories(Run.open(run)).values() for one in history)
    except RunError:
        return 0


def compared(calm: Path, struck: Path) -> dict[str, Any]:
    """Trials, scores and winners of both."""
    runs = [Run.open(calm), Run.open(struck)]
    trials = [
        {
            name: [(one.number, one.digest, one.value, one.state) for one in history]
            for name, history in histories(run).items()
        }
        for run in runs
    ]
    winners = [run.read_winner() for run in runs]
    lost = [one.lost for history in histories(runs[1]).values() for one in history]
    return {
        "same": trials[0] == trials[1] and winners[0] == winners[1],
        "candidates": {name: len(rows) for name, rows in trials[0].items()},
        "winners": [str(winner) for winner in winners],
        "trials_equal_to_the_bit": trials[0] == trials[1],
        "candidates_run_again": sum(count > 0 for count in lost),
    }


def without_places(sets: Sequence[str]) -> list[str]:
    """Settings as another person would write them: the folder of the images is theirs."""
    return ["data.root=DIR" if text.startswith("data.root=") else text for text in sets]


if __name__ == "__main__":
    main()
