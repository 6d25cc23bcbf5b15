"""A finished run as small JSON: verdict, table, curves, every candidate's score, cost, machine.

python benchmarks/summarise_run.py RUN benchmarks/results/NAME.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nas.config import to_data
from nas.methods.hand_made import Rival, detector_cost, hand_made
from nas.methods.ranking import read_ranking
from nas.methods.retraining import failures_of, results_of
from nas.report.ranking import paired_difference, tau_with_interval
from nas.run import Run
from nas.show import short_text, summary
from search_spaces.architecture import Architecture
from search_spaces.cost import cost


def table_row(
    run: Run, architecture: Architecture, size: tuple[int, int], hand_made: Rival | None = None
) -> dict[str, Any]:
    """One network of the final table: cost, metrics of every seed, curves; a hand-made one lies under its name."""
    folder = architecture if hand_made is None else hand_made.name
    results = results_of(run, folder)
    detector = run.recipe.detector if hand_made is None else hand_made.detector
    classes = len((run.read_json("data.json") or {"categories": ["unknown"]})["categories"])
    whole = detector_cost(architecture, detector, classes, size)
    found = cost(architecture, size)
    return {
        "architecture": short_text(architecture),
        "digest": architecture.digest,
        "params": found.params,
        "macs": found.macs,
        "detector_params": whole.params,
        "detector_macs": whole.macs,
        "metrics_by_seed": {
            str(result["seed"]): {
                name: round(100 * value, 2)
                for name, value in result["metrics"].items()
                if not isinstance(value, dict)
            }
            for result in results
        },
        "AP_curves": {
            str(result["seed"]): [[point["epoch"], round(100 * point["AP"], 2)] for point in result["curve"]]
            for result in results
        },
        "rise_over_last_quarter": [result["rise_over_last_quarter"] for result in results],
        "seconds": [result["seconds"] for result in results],
        "diverged": failures_of(run, folder),
    }


def difference(run: Run, first: Architecture | str, second: Architecture | str) -> dict[str, Any] | None:
    """First minus second in AP points, paired by seed, with a 95 % interval (Student's t); None without a seed."""
    values = [
        {result["seed"]: 100 * result["metrics"]["AP"] for result in results_of(run, one)}
        for one in (first, second)
    ]
    if not set(values[0]) & set(values[1]):
        return None
    found = paired_difference(*values)
    return {
        "mean": found.mean,
        "standard_error": found.standard_error,
        "interval_95": [found.low, found.high],
        "seeds": found.seeds,
    }


def ranking(run: Run) -> dict[str, Any] | None:
    """``nas report RUN --check N``: the supernet's order against that of short trainings, with trivial predictors."""
    check = read_ranking(run)
    if check is None:
        return None
    alone = [entry.alone for entry in check.entries]
    predictors = {
        "supernet": [entry.supernet for entry in check.entries],
        "params": [float(entry.params) for entry in check.entries],
        "macs": [float(entry.macs) for entry in check.entries],
    }
    taus = {name: tau_with_interval(values, alone) for name, values in predictors.items()}
    return {
        "how": check.how,
        "AP_supernet_and_alone": {
            entry.text: [round(100 * entry.supernet, 2), round(100 * entry.alone, 2)]
            for entry in check.entries
        },
        "tau_and_interval_95": {name: [tau.value, tau.low, tau.high] for name, tau in taus.items()},
    }


def main() -> None:
    """Read the command line, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--command", default="", help="what started the run")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    shown = summary(arguments.run)
    winner, rivals = run.read_winner(), run.read_rivals()
    assert winner is not None, "the run has no winner yet"
    facts = run.read_json("data.json") or {}
    size = (facts["image_size"][0], facts["image_size"][1])
    networks, by_hand = {"winner": winner, **rivals}, hand_made(run)
    recipe = to_data(run.recipe)
    recipe["data"]["root"] = Path(recipe["data"]["root"]).name if recipe["data"]["root"] else None
    result = {
        "command": arguments.command,
        "environment": run.read_json("environment.json"),
        "recipe": recipe,
        "recipes_tried_before": list(run.recipe.retrain.tried_before) if run.recipe.retrain else [],
        "data_digest": facts["digest"],
        "images": {
            "train": len(facts["train"]),
            "held_out": len(facts["held_out"]),
            "size": facts["image_size"],
        },
        "table": {name: table_row(run, one, size) for name, one in networks.items()}
        | {name: table_row(run, one.architecture, size, one) for name, one in by_hand.items()},
        "winner_minus_baseline": difference(run, winner, rivals["baseline"]),
        "winner_minus_hand_made": {name: difference(run, winner, name) for name in by_hand},
        "ablation_minus_baseline": {
            name: difference(run, rivals[name], rivals["baseline"])
            for name in run.recipe.ablated
            if name in rivals
        },
        "ranking": ranking(run),
        "cost": shown["cost"],
        "state": shown["state"],
        "trials": [
            [trial["phase"], trial["number"], trial["text"], trial["value"] and round(trial["value"], 3)]
            for trial in shown["trials"]
        ],
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["winner_minus_baseline"]))


if __name__ == "__main__":
    main()
