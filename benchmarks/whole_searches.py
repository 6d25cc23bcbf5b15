"""What whole searches with shared prefixes make of the order of allocations, with their own batches and with fewer.

    python benchmarks/whole_searches.py RUN RUN ... [--as-searched] [--truth TABLE] [--to FILE]

RUN is a directory of ``nas search examples/recipes/crnas_bccd_prefix.yaml``, each of another seed, and is scored once
more with as many batches of recalibration as benchmarks/proxies.py calls few (``with_fewer_batches``, kept in RUN).
TABLE has the same networks trained alone. Into benchmarks/results/rank_prefix_bccd.json go what ``nas rank RUN --truth
TABLE --json`` says of each, the new scores with tau-b of them and of their mean rank with NASWOT, and the same of the
mean of all runs with what its first three lack.

With ``--as-searched`` nothing is scored again: of runs of examples/recipes/crnas_bccd_ensemble.yaml, which choose as
they stand, goes into benchmarks/results/rank_prefix_ensemble_bccd.json what ``nas rank`` says of each, how far its
supernets agree, and the means over the runs.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from proof import FREE, together
from proxies import FEWER, Scores, with_fewer_batches

from nas.agreement import agreement
from nas.methods.data import read_data
from nas.methods.truth import rank_run
from nas.proxies.tabular import Table, read_table
from nas.report.rank_quality import regret_at
from nas.report.ranking import kendall_tau
from nas.run import Run, RunError, environment
from nas.show import histories
from search_spaces.files import write_atomic
from trainers.process import prepare_process

HERE = Path(__file__).parent
SEARCH = (
    "nas search examples/recipes/crnas_bccd_{0}.yaml --run DIR/{0}S --set data.root=DIR/bccd-multiscale "
    "--set retrain=null --set dilations=null --set workers=1 --set seed=S"
)


def order_of(scores: Scores, free: Scores, table: Table) -> dict[str, Any]:
    """Tau of scores and of their mean rank with NASWOT, and what the first three of each lack."""
    truth = table.truth()
    aps = np.array([truth[one] for one in truth])
    found: dict[str, Any] = {}
    for name, one in (("", scores), (f"_with_{FREE}", together(free, scores))):
        row = np.array([one[digest] for digest in truth])
        tau = kendall_tau(row, aps)
        found |= {
            f"tau{name}": None if tau is None else round(tau, 4),
            f"regret_at_3{name}": round(regret_at(row, aps, 3), 3),
        }
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Score once more, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--as-searched", action="store_true", help="only rank what the searches scored")
    parser.add_argument("--truth", type=Path, default=HERE / "tables/crnas_bccd.json")
    parser.add_argument("--proxies", type=Path, default=HERE / "results/proxies_crnas_bccd.json")
    parser.add_argument("--to", type=Path)
    given = parser.parse_args(words)
    prepare_process(1)
    table = read_table(given.truth)
    try:
        runs = {str(run.recipe.seed): run for run in map(Run.open, given.runs)}
        if len(runs) < len(given.runs):
            parser.error(f"{len(given.runs)} runs of {len(runs)} seeds; each needs a seed of its own")
        ranked = {seed: rank_run(run, table)[0].to_dict() for seed, run in runs.items()}
    except RunError as error:
        parser.error(str(error))
    names = " ".join(f"DIR/{folder.resolve().name}" for folder in given.runs)
    if given.as_searched:
        to = given.to or HERE / "results/rank_prefix_ensemble_bccd.json"
        commands = [SEARCH.format("ensemble"), f"python benchmarks/whole_searches.py --as-searched {names}"]
        further = as_searched(runs, ranked)
    else:
        to = given.to or HERE / "results/rank_prefix_bccd.json"
        commands = [
            SEARCH.format("prefix") + " --set stages.supernet.recalibration_batches=12",
            f"python benchmarks/whole_searches.py {names}",
        ]
        free = json.loads(given.proxies.read_text(encoding="utf-8"))["scores"][FREE][0]
        further = scored_again(runs, free, table)
    result = {"commands": commands, "environment": environment(), "by_seed": ranked, **further}
    write_atomic(to, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps({name: value for name, value in further.items() if name.startswith("mean")}))


def scored_again(runs: Mapping[str, Run], free: Scores, table: Table) -> dict[str, Any]:
    """Scores of all runs with fewer batches, and what their mean is worth."""
    again: dict[str, Any] = {}
    for seed, run in runs.items():
        scores = with_fewer_batches(run, read_data(run.recipe), table)
        again[seed] = {"scores": scores, **order_of(scores, free, table)}
        print(seed, {name: value for name, value in again[seed].items() if name != "scores"}, flush=True)
    mean = {digest: fmean(one["scores"][digest] for one in again.values()) for digest in table.by_digest}
    return {"fewer_batches": FEWER, "rescored": again, "mean_rescored": order_of(mean, free, table)}


def as_searched(runs: Mapping[str, Run], ranked: Mapping[str, Any]) -> dict[str, Any]:
    """How far the supernets of a run agree, and means over the runs of what each order is worth."""
    rows = {
        name: [one["rows"][name] for one in ranked.values()] for name in next(iter(ranked.values()))["rows"]
    }
    taus = {seed: agreement(histories(run)[ranked[seed]["phase"]]) for seed, run in runs.items()}
    return {
        "agreement": {seed: None if one is None else one.tau for seed, one in taus.items()},
        "mean": {
            name: {
                "tau": _mean(one["tau"]["value"] for one in found),
                "tau_low": _mean(one["tau"]["low"] for one in found),
                "regret_at_3": _mean(one["regret"]["value"] for one in found),
            }
            for name, found in rows.items()
        },
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """None where one of them is."""
    known = list(values)
    return None if None in known else round(fmean(one for one in known if one is not None), 4)


if __name__ == "__main__":
    main()
