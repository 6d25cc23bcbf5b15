"""How much the batches from which normalisation is computed anew decide about a dilation search.

    python benchmarks/recalibration.py RUN [RUN ...] [--to FILE]

RUN is a finished CR-NAS search whose dilations were scored after recalibration. All of them are scored again by the
run's own supernet: with the recipe's batches (which has to give the run's scores to the digit), with the first third of
these batches, and with the statistics of the training. Compared are candidates of one level of the greedy search, for
it compares no others: Kendall's tau-b over all such pairs, and the share of each level's best three that stay among
them. Two scores that agree as little with each other as a third of the batches does with all of them are told apart by
luck of the batches. Writes benchmarks/results/recalibration.json.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.methods.crnas import scorer
from nas.methods.data import read_data
from nas.proxies.supernet import SupernetProxy
from nas.run import Run, environment
from nas.show import histories
from search_spaces.architecture import Candidate, Prefix
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/recalibration.json"
BEST = 3


def level(candidate: Candidate) -> int:
    """Of a greedy search: decided blocks, -1 for whole networks."""
    return len(candidate.genes) if isinstance(candidate, Prefix) else -1


def agreement(levels: Sequence[int], one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Tau-b over the pairs of a level, and the share of the best that both have."""
    places = defaultdict(list)
    for place, number in enumerate(levels):
        places[number].append(place)
    agreed, distinct = 0, [0, 0]
    kept = []
    for members in places.values():
        for index, first in enumerate(members):
            for second in members[index + 1 :]:
                signs = [(a[first] > a[second]) - (a[first] < a[second]) for a in (one, other)]
                agreed += signs[0] * signs[1]
                distinct = [count + abs(sign) for count, sign in zip(distinct, signs, strict=True)]
        best = [set(sorted(members, key=lambda place: -a[place])[:BEST]) for a in (one, other)]
        if len(members) > BEST:
            kept.append(len(best[0] & best[1]) / BEST)
    return {
        "tau_within_levels": round(agreed / math.sqrt(distinct[0] * distinct[1]), 3),
        "best_that_stay": round(sum(kept) / len(kept), 3),
    }


def compared(run: Run) -> dict[str, Any]:
    """The dilations of a run under each number of batches."""
    data = read_data(run.recipe)
    records = [one for one in histories(run)["dilations"] if one.value is not None]
    scores: dict[int, list[float]] = {}
    own = scorer(run, data, "dilations")
    assert isinstance(own, SupernetProxy)
    batches = own.recipe.recalibration_batches
    if not batches:
        raise SystemExit(f"{run.directory}: was scored with the statistics of the training; take another run")
    for number in (batches, batches // 3, 0):
        proxy = scorer(run, data, "dilations")
        assert isinstance(proxy, SupernetProxy)
        proxy.recipe = replace(proxy.recipe, recalibration_batches=number)
        scores[number] = [proxy(one.candidate).value for one in records]
        print(run.directory.name, number, flush=True)
    if scores[batches] != [one.value for one in records]:
        raise SystemExit(f"{run.directory}: its own batches gave other scores than the run has")
    levels = [level(one.candidate) for one in records]
    return {
        "candidates": len(records),
        "steps": own.total_steps,
        "batches": batches,
        "images_a_batch": own.recipe.train.micro_batch,
        "against_all_batches": {
            str(number): agreement(levels, scores[batches], scores[number]) for number in (batches // 3, 0)
        },
    }


def main() -> None:
    """Score, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args()
    prepare_process(1)
    result = {
        "command": "python benchmarks/recalibration.py " + " ".join(f"DIR/{one.name}" for one in given.runs),
        "runs": {one.name: compared(Run.open(one)) for one in given.runs},
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["runs"], indent=1))


if __name__ == "__main__":
    main()
