"""By which statistics of normalisation independent supernets agree best about dilations.

    python benchmarks/dilation_agreement.py RUN RUN [RUN ...] [--lists 60] [--to FILE]

The runs are finished CR-NAS searches by one recipe under different seeds, over a space with one allocation only, so
that their dilation supernets have the same paths and share neither weights nor held-out images. So many lists of
dilations, drawn by chance, are scored by the supernet of each: after recalibration with the recipe's batches, with
a third of them, and with the statistics of the training. There is no truth for dilations here. But what two
supernets agree on is not luck of either: the way of scoring whose orders agree best over the pairs of supernets has
least noise in it.

The result, benchmarks/results/dilation_agreement.json: Kendall's tau-b of every pair of supernets by each way, its
mean, and the difference of the means to the recipe's own batches: with a 95 % interval, a bootstrap over the lists
with these supernets held fixed, and once more without each of the supernets, for one that is odd decides about half
of the pairs.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from nas.methods.crnas import scorer
from nas.methods.data import read_data
from nas.proxies.supernet import SupernetProxy
from nas.report.ranking import kendall_tau
from nas.run import Run, environment
from search_spaces.architecture import Architecture
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/dilation_agreement.json"
RESAMPLES = 2000


def drawn(space: SearchSpace, count: int) -> list[Architecture]:
    """Different networks of a space, the same for every run."""
    rng, found = rng_for(0, "dilation agreement"), dict[str, Architecture]()
    while len(found) < count:
        one = space.sample(rng)
        found.setdefault(one.digest, one)
    return list(found.values())


def scores_of(run: Run, count: int) -> tuple[list[str], dict[int, list[float]]]:
    """The networks' digests, and batches of recalibration -> their scores by the run's supernet."""
    data = read_data(run.recipe)
    own = opened(run, data)
    networks, batches = drawn(own.space, count), own.recipe.recalibration_batches
    if not batches:
        raise SystemExit(f"{run.directory}: its recipe recalibrates nothing; take runs that do")
    found = {}
    for number in (batches, batches // 3, 0):
        proxy = opened(run, data)
        proxy.recipe = replace(proxy.recipe, recalibration_batches=number)
        found[number] = [proxy(one).value for one in networks]
        print(run.directory.name, number, flush=True)
    return [one.digest for one in networks], found


def opened(run: Run, data: Any) -> SupernetProxy:
    """The trained supernet of a run's dilations."""
    proxy = scorer(run, data, "dilations")
    assert isinstance(proxy, SupernetProxy)
    return proxy


def taus(scores: Sequence[Sequence[float]]) -> list[float]:
    """Tau-b of every pair of supernets; 0 where one of them tells nothing apart."""
    return [kendall_tau(one, other) or 0.0 for one, other in combinations(scores, 2)]


def _without(scores: list[list[float]], one: int) -> list[list[float]]:
    return scores[:one] + scores[one + 1 :]


def agreement(scores: dict[int, list[list[float]]], seed: int = 0) -> dict[str, Any]:
    """What the supernets agree on by each way, and how the ways differ.

    Args:
        scores: batches -> a list for each supernet, one number a network; the first way is the one to compare with.
        seed: of the bootstrap.
    """
    first, *others = scores
    arrays = {way: np.array(lists) for way, lists in scores.items()}
    count = arrays[first].shape[1]
    rng = np.random.default_rng(seed)
    draws = [rng.integers(count, size=count) for _ in range(RESAMPLES)]
    differences = {
        way: [fmean(taus(arrays[way][:, some])) - fmean(taus(arrays[first][:, some])) for some in draws]
        for way in others
    }
    found: dict[str, Any] = {}
    for way, lists in scores.items():
        pairs = taus(lists)
        found[str(way)] = {"tau": round(fmean(pairs), 3), "pairs": [round(one, 3) for one in pairs]}
        if way in differences:
            low, high = np.quantile(differences[way], (0.025, 0.975))
            found[str(way)]["minus_first"] = {
                "mean": round(fmean(pairs) - fmean(taus(scores[first])), 3),
                "interval_95": [round(float(low), 3), round(float(high), 3)],
                "mean_without_a_supernet": [
                    round(fmean(taus(_without(lists, one))) - fmean(taus(_without(scores[first], one))), 3)
                    for one in range(len(lists) if len(lists) > 2 else 0)
                ],
            }
    return found


def main() -> None:
    """Score, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--lists", type=int, default=60)
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args()
    prepare_process(1)
    runs = [Run.open(one) for one in given.runs]
    if len({one.recipe.seed for one in runs}) != len(runs) or len(runs) < 2:
        raise SystemExit("needed are at least two runs under different seeds")
    scores: dict[int, list[list[float]]] = {}
    networks: list[list[str]] = []
    for run in runs:
        digests, found = scores_of(run, given.lists)
        networks.append(digests)
        for way, values in found.items():
            scores.setdefault(way, []).append(values)
    if any(one != networks[0] for one in networks):
        raise SystemExit("the runs have other allocations than each other; give their space one allocation")
    result = {
        "command": "python benchmarks/dilation_agreement.py "
        + " ".join(f"DIR/{one.name}" for one in given.runs)
        + f" --lists {given.lists}",
        "recipe": runs[0].recipe.name,
        "branches": [list(one) for one in runs[0].data["space"]["branches"]],
        "seeds": [one.recipe.seed for one in runs],
        "steps": runs[0].data["dilations"]["supernet"]["train"]["steps"],
        "lists": given.lists,
        "by_recalibration_batches": agreement(scores),
        "scores": {
            str(way): [[round(value, 4) for value in one] for one in lists] for way, lists in scores.items()
        },
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["by_recalibration_batches"], indent=1))


if __name__ == "__main__":
    main()
