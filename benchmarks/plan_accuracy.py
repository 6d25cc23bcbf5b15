"""What ``nas plan`` foresees against what the run then takes, work by work.

    python benchmarks/plan_accuracy.py [--seconds 60] [NAME ...]

For each of the searches below a plan is made and the search is carried out, in turn, each in a process of its own; the
ledger of the run says what every work has taken. The result, benchmarks/results/plan_accuracy.json, holds planned and
real seconds and their ratios. Exit code 1 if a total is off by more than 25 %. Run it on an idle machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nas.run import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/plan_accuracy.json"
ALLOWED = 0.25
SEARCHES = {
    "crnas_digits": ["examples/recipes/crnas_digits.yaml", "retrain.seeds=2"],
    "spinenet_digits": [
        "examples/recipes/spinenet_digits.yaml",
        "search.controller.budget=16",
        "retrain.train.epochs=4",
        "retrain.seeds=1",
        "retrain.rival_seeds=1",
    ],
}
"""Shortened to minutes; what they search and how is as in the recipes."""


def main() -> None:
    """Plan, carry out, compare, write."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("names", nargs="*", default=list(SEARCHES))
    words.add_argument("--seconds", type=float, default=60.0)
    given = words.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/plan_accuracy.py",
        "environment": environment(),
        "searches": {},
    }
    for name in given.names:
        recipe, *sets = SEARCHES[name]
        overrides = [word for text in sets for word in ("--set", text)]
        with tempfile.TemporaryDirectory() as folder:
            measure = ["--measure", str(given.seconds), "--json"]
            plan = json.loads(nas("plan", recipe, *overrides, *measure))
            nas("search", recipe, "--run", f"{folder}/run", *overrides)
            shown = json.loads(nas("show", f"{folder}/run", "--json"))
        result["searches"][name] = {"settings": sets, **compared(plan, shown["ledger"]["activities"])}
        print(name, json.dumps(result["searches"][name]["total"]), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if any(abs(one["total"]["ratio"] - 1) > ALLOWED for one in result["searches"].values()):
        raise SystemExit(1)


def nas(*words: str) -> str:
    """The output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "nas.cli", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def compared(plan: dict[str, Any], spent: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Planned and real seconds of each work, and of the whole run, what nobody plans included."""
    planned: dict[str, float] = {}
    for work in plan["works"]:
        name = "final table" if work["name"].startswith("final table") else work["name"]
        planned[name] = planned.get(name, 0.0) + work["here"]["seconds"]
    works = {
        name: {
            "planned": round(seconds, 1),
            "real": round(spent[name]["wall"], 1),
            "ratio": round(seconds / spent[name]["wall"], 3),
        }
        for name, seconds in planned.items()
    }
    whole, real = sum(planned.values()), sum(one["wall"] for one in spent.values())
    total = {"planned": round(whole, 1), "real": round(real, 1), "ratio": round(whole / real, 3)}
    return {"works": works, "total": total, "measured_seconds": plan["measured_seconds"]}


if __name__ == "__main__":
    main()
