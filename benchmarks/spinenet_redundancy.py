"""How many encodings describe one scale-permuted network (Du et al. 2020, sections 3.1 and 5.1).

    python benchmarks/spinenet_redundancy.py [draws]

writes benchmarks/results/spinenet_redundancy.json. Uniform draws from a space; of each network the encodings that
describe it: labels (orders of labelled blocks with adjustments that give one sequence of levels) times orders (lists
of blocks that describe one wired network within the window). A draw meets a network in proportion to its
encodings, so 1 / encodings has the mean networks / size, an unbiased estimate of how many networks there are.
"""

import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

from search_spaces.catalog import get_space
from search_spaces.randomness import rng_for
from search_spaces.spinenet.labels import DELTAS, labellings
from search_spaces.spinenet.space import SpineNetSpace

SPACES = ("spinenet.r23_sp30", "spinenet.r0_sp53", "spinenet.spinenet49")
SEED = 0
RESULT = Path(__file__).parent / "results" / "spinenet_redundancy.json"


def decades(values: list[int]) -> dict[str, float]:
    """Mean of log10 with its standard error, and the geometric mean it stands for."""
    logs = [math.log10(value) for value in values]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    return {
        "mean_log10": round(mean, 4),
        "standard_error": round(error, 4),
        "geometric_mean": round(10**mean, 1),
    }


def measured(name: str, draws: int) -> dict[str, Any]:
    """One space: labels, orders and both of every draw."""
    space, rng = cast(SpineNetSpace, get_space(name)), rng_for(SEED, "redundancy", name)
    deltas = DELTAS if space.levels else (0,)
    begin, orders, labels = time.process_time(), [], []
    for _ in range(draws):
        network = space.sample(rng)
        levels = cast(tuple[int, ...], network.genes["levels"])
        orders.append(space.orders(network))
        labels.append(labellings(levels[: len(space.base)], space.base, deltas))
    # As SpineNetSpace.labellings() has it, which would count the orders once more.
    encodings = [order * label for order, label in zip(orders, labels, strict=True)]
    inverse = [1 / both for both in encodings]
    share, error = statistics.mean(inverse), statistics.stdev(inverse) / math.sqrt(draws)
    return {
        "size": space.size,
        "lists": space.lists,
        "encodings_per_list": space.redundancy,
        "labels": decades(labels),
        "orders": {**decades(orders), "median": statistics.median(orders), "largest": max(orders)},
        "encodings": {**decades(encodings), "fewest": min(encodings), "most": max(encodings)},
        "duplicates": {
            "by_labels": 1 - space.lists / space.size,
            "by_labels_and_orders": 1 - share,
            "standard_error": error,
        },
        "networks": {"estimate": space.size * share, "standard_error": space.size * error},
        "draws_alone_in_their_order": sum(order == 1 for order in orders),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def canonical_milliseconds(name: str, draws: int) -> float:
    """CPU time of the canonical order of a draw, mean over draws, what else a draw costs included."""
    space, rng = get_space(name), rng_for(SEED, "time", name)
    begin = time.process_time()
    for _ in range(draws):
        space.sample(rng)
    return round((time.process_time() - begin) / draws * 1000, 3)


def main(draws: int) -> None:
    """Measure every space and write the result."""
    found = {}
    for name in SPACES:
        found[name] = {
            **measured(name, draws),
            "milliseconds_a_draw": canonical_milliseconds(name, min(draws, 1000)),
        }
        print(name, found[name])
    result = {
        "command": f"python benchmarks/spinenet_redundancy.py {draws}",
        "what": "encodings that describe one network, over uniform draws of encodings",
        "draws": draws,
        "seed": SEED,
        "machine": {"cpu": platform.processor() or platform.machine(), "processes": 1},
        "versions": {"python": platform.python_version()},
        "spaces": found,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
