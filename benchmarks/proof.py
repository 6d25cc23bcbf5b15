"""What the proxy's order and the cost of the search come to: five numbers and their parts, from measured files.

    python benchmarks/proof.py [--proxies FILE] [--cost FILE] [--prefix-cost FILE] [--searches FILE]
        [--ensembles FILE] [--truth TABLE] [--to FILE]

The order is that of five supernets (crnas_bccd_ensemble.yaml), the speed that of one (crnas_bccd_short.yaml);
``prefix`` has both of one recipe. Trains and times nothing. It reads the scores of benchmarks/proxies.py, the times of
benchmarks/search_cost.py and the table of networks trained alone, and writes benchmarks/results/proof.json:

- ``supernet_tau``: tau-b of the scores of crnas_bccd_ensemble.yaml with the table, each the mean of ``TOGETHER``
  supernets of crnas_bccd_prefix.yaml (``PREFIX``), mean over disjoint groups of so many seeds; ``supernet_tau_low``:
  lower end of its 95 % interval over networks, by the jackknife of that mean. ``supernet_regret_at_3`` and
  ``supernet_share_of_table`` are what its first three lack and what it costs.
- ``supernet_tau_with_searches``: the mean over these groups and that of the whole searches of
  benchmarks/whole_searches.py, which are another five seeds.
- ``ensemble_searches``: of whole searches by crnas_bccd_ensemble.yaml, the means of benchmarks/whole_searches.py: the
  supernets alone and the order by which they choose.
- ``trainings_of_table``: how many the share of the table's cost is of; ``supernet_share_of_three_seeds``: of a table of
  three seeds, the least that a table should have.
- ``one_supernet_tau``, ``one_supernet_tau_low``: the same of the short recipe's single supernet.
- ``chosen_tau``, ``chosen_tau_low``, ``one_supernet_chosen_tau``: of the orders by which these two recipes choose, the
  score's mean rank with NASWOT.
- ``independent_tau``, ``independent_tau_low``: of as many supernets of the short recipe together.
- ``supernet_tau_ceiling``: the tau that a proxy without error would reach with this truth.
- ``evaluation_speedup``, ``search_speedup``: of the short recipe, see benchmarks/search_cost.py.
- ``short_minus_long_ap``: AP in the table of the short recipe's winners minus those of the long one, seed by seed, each
  chosen as its recipe chooses; ``mean_rank_minus_score_ap``: the same of the short recipe's two ways to choose.
- ``prefix``: the same of crnas_bccd_prefix.yaml (``PREFIX``), one supernet, where its cost is measured: tau alone and
  as it chooses, tau and AP of its winners minus those of the short recipe and AP minus that of the long one, seed by
  seed, and its two speeds.
- ``arms``: every way to score, among them the long recipe (``LONG``): tau of each seed, of the mean over all seeds and
  between two seeds, AP of the winners, the regret at 3, and the price in multiply-adds as a share of the table's; of
  each supernet also the means of so many seeds as ``GROUPS`` says, where it has them, and the mean rank of all these
  with NASWOT, which costs nothing. A picture of the taus stands beside the file.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from proof_picture import picture

from nas.methods.truth import table_macs, trivial
from nas.proxies.tabular import Table, read_table
from nas.report.rank_quality import ceiling, mean_rank, regret_at
from nas.report.ranking import Places, correlation, kendall_tau, mutual_tau, paired_difference
from search_spaces.files import write_atomic

HERE = Path(__file__).parent
SHORT = "supernet independent, uniform, 1000 steps, bf16, BN as trained"
PREFIX = "supernet prefix, uniform, 1000 steps, bf16, 4 batches"
LONG = "supernet independent, uniform, 3000 steps"
FREE = "naswot"
TOGETHER = 5
"""Supernets of crnas_bccd_ensemble.yaml."""
GROUPS = (3, TOGETHER)


def together(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The mean rank of networks under two proxies."""
    digests = list(one)
    ranks = mean_rank([[scores[digest] for digest in digests] for scores in (one, other)])
    return dict(zip(digests, ranks, strict=True))


def of_several(count: int, name: str) -> str:
    """What an arm is called whose scores are means over so many supernets."""
    return f"mean of {count} {name.replace('supernet', 'supernets', 1)}"


def means(found: Sequence[dict[str, float]], count: int) -> list[dict[str, float]]:
    """Mean scores of disjoint groups of so many seeds, in their order; what is left over is in none."""
    groups = [found[start : start + count] for start in range(0, len(found) - count + 1, count)]
    return [{digest: fmean(one[digest] for one in group) for digest in group[0]} for group in groups]


def arm(scores: Sequence[dict[str, float]], table: Table, macs: float) -> dict[str, Any]:
    """One way to score, over its seeds."""
    truth = table.truth()
    digests = list(truth)
    aps = np.array([truth[one] for one in digests])
    rows = np.array([[found[one] for one in digests] for found in scores])

    def mean_tau(chosen: Places) -> float | None:
        taus = [kendall_tau(row[chosen], aps[chosen]) for row in rows]
        return None if None in taus else fmean(tau for tau in taus if tau is not None)

    mean = correlation(mean_tau, len(digests))
    taus = [kendall_tau(row, aps) for row in rows]
    between = mutual_tau(list(rows))
    return {
        "seeds": len(rows),
        "tau": [round(tau, 4) for tau in taus if tau is not None],
        "mean_tau": {"value": mean.value, "low": mean.low, "high": mean.high},
        "seed_to_seed_tau": None if between is None else round(between, 4),
        "tau_of_mean": kendall_tau(rows.mean(axis=0), aps),
        "winners": [digests[int(row.argmax())] for row in rows],
        "ap_of_winners": [round(float(aps[int(row.argmax())]), 3) for row in rows],
        "regret_at_3": [round(regret_at(row, aps, 3), 3) for row in rows],
        "share_of_table": macs / table_macs(table),
    }


def winners_apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """AP of the winners by one way minus that by another, seed by seed."""
    both = [dict(enumerate(arm["ap_of_winners"])) for arm in (one, other)]
    apart = paired_difference(*both)
    seeds = sorted(set(both[0]) & set(both[1]))
    return {"mean": apart.mean, "low": apart.low, "high": apart.high, "seeds": seeds}


def taus_apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Tau by one way minus that by another, seed by seed."""
    apart = paired_difference(*(dict(enumerate(arm["tau"])) for arm in (one, other)))
    return {"mean": apart.mean, "low": apart.low, "high": apart.high}


def of_prefixes(arms: dict[str, dict[str, Any]], cost: dict[str, Any]) -> dict[str, Any]:
    """What the recipe with shared prefixes comes to."""
    alone, chosen = arms[PREFIX], arms[ranked(PREFIX)]
    return {
        "supernet_tau": alone["mean_tau"]["value"],
        "supernet_tau_low": alone["mean_tau"]["low"],
        "chosen_tau": chosen["mean_tau"]["value"],
        "chosen_tau_low": chosen["mean_tau"]["low"],
        "chosen_regret_at_3": fmean(chosen["regret_at_3"]),
        "share_of_table": chosen["share_of_table"],
        "chosen_tau_minus_short": taus_apart(chosen, arms[ranked(SHORT)]),
        "ap_minus_short": winners_apart(chosen, arms[ranked(SHORT)]),
        "ap_minus_long": winners_apart(chosen, arms[LONG]),
        "evaluation_speedup": cost["evaluation_speedup"],
        "search_speedup": cost["search_speedup"],
    }


def every_arm(proxies: dict[str, Any], table: Table) -> dict[str, dict[str, Any]]:
    """All ways to score: those that were measured, what costs nothing, means over supernets, mean ranks with NASWOT."""
    costs = trivial([one.architecture for one in table.networks], table.image_size)
    scores = proxies["scores"] | {
        name: [dict(zip(table.by_digest, values, strict=True))] for name, values in costs.items()
    }
    prices = {name: one["macs"] for name, one in proxies["arms"].items()}
    supernets = {name: found for name, found in proxies["scores"].items() if name.startswith("supernet")}
    for name, found in list(supernets.items()):
        for count in GROUPS:
            if len(found) >= count:
                supernets[of_several(count, name)] = means(found, count)
                prices[of_several(count, name)] = count * prices[name]
    free = proxies["scores"][FREE][0]
    combined = {ranked(name): [together(free, one) for one in found] for name, found in supernets.items()}
    prices |= {ranked(name): macs for name, macs in prices.items()}
    return {
        name: arm(found, table, prices.get(name, 0.0))
        for name, found in (scores | supernets | combined).items()
    }


def ranked(name: str) -> str:
    """What the mean rank of an arm and NASWOT is called."""
    return f"mean rank of {FREE} and {name}"


def main(words: Sequence[str] | None = None) -> None:
    """Read, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proxies", type=Path, default=HERE / "results/proxies_crnas_bccd.json")
    parser.add_argument("--cost", type=Path, default=HERE / "results/search_cost.json")
    parser.add_argument("--prefix-cost", type=Path, default=HERE / "results/search_cost_prefix.json")
    parser.add_argument("--searches", type=Path, default=HERE / "results/rank_prefix_bccd.json")
    parser.add_argument("--ensembles", type=Path, default=HERE / "results/rank_prefix_ensemble_bccd.json")
    parser.add_argument("--truth", type=Path, default=HERE / "tables/crnas_bccd.json")
    parser.add_argument("--to", type=Path, default=HERE / "results/proof.json")
    given = parser.parse_args(words)
    table = read_table(given.truth)
    cost = json.loads(given.cost.read_text(encoding="utf-8"))
    arms = every_arm(json.loads(given.proxies.read_text(encoding="utf-8")), table)
    for name in (SHORT, PREFIX):
        if of_several(TOGETHER, name) not in arms:
            raise SystemExit(
                f"{given.proxies}: found fewer than {TOGETHER} seeds of '{name}'; train more, see proxies.py"
            )
    several, independent = arms[of_several(TOGETHER, PREFIX)], arms[of_several(TOGETHER, SHORT)]["mean_tau"]
    highest = ceiling([{seed: one.scores[seed][-1] for seed in table.seeds} for one in table.networks])
    trainings = sum(len(one.scores) for one in table.networks)
    one, chosen = arms[SHORT], arms[ranked(of_several(TOGETHER, PREFIX))]["mean_tau"]
    result = {
        "command": "python benchmarks/proof.py",
        "supernet_tau": several["mean_tau"]["value"],
        "supernet_tau_low": several["mean_tau"]["low"],
        "supernet_regret_at_3": fmean(several["regret_at_3"]),
        "supernet_share_of_table": several["share_of_table"],
        "trainings_of_table": trainings,
        "supernet_share_of_three_seeds": several["share_of_table"] * trainings / (3 * len(table.networks)),
        "one_supernet_tau": one["mean_tau"]["value"],
        "one_supernet_tau_low": one["mean_tau"]["low"],
        "chosen_tau": chosen["value"],
        "chosen_tau_low": chosen["low"],
        "one_supernet_chosen_tau": arms[ranked(SHORT)]["mean_tau"]["value"],
        "independent_tau": independent["value"],
        "independent_tau_low": independent["low"],
        "supernet_tau_ceiling": highest.tau,
        "evaluation_speedup": cost["evaluation_speedup"],
        "search_speedup": cost["search_speedup"],
        "same_scores_speedup": cost["same_scores_speedup"],
        "seeds_of_truth": len(table.seeds),
        "seed_to_seed_tau": highest.seed_to_seed,
        "best_ap_of_table": max(table.truth().values()),
        "mean_ap_of_table": fmean(table.truth().values()),
        # As each of the recipes chooses.
        "short_minus_long_ap": winners_apart(arms[ranked(SHORT)], arms[LONG]),
        "mean_rank_minus_score_ap": winners_apart(arms[ranked(SHORT)], one),
        "arms": arms,
    }
    if given.prefix_cost.exists():
        result["prefix"] = of_prefixes(arms, json.loads(given.prefix_cost.read_text(encoding="utf-8")))
    if given.searches.exists():
        searches = json.loads(given.searches.read_text(encoding="utf-8"))["mean_rescored"]
        result["supernet_tau_with_searches"] = fmean([*several["tau"], searches["tau"]])
    if given.ensembles.exists():
        found = json.loads(given.ensembles.read_text(encoding="utf-8"))
        result["ensemble_searches"] = {
            "searches": len(found["by_seed"]),
            "supernet": found["mean"]["proxy"],
            "chosen": found["mean"]["mean rank of both"],
        }
    write_atomic(given.to.with_suffix(".svg"), picture(arms, highest.tau).encode())
    write_atomic(given.to, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps({name: value for name, value in result.items() if name != "arms"}, indent=1))


if __name__ == "__main__":
    main()
