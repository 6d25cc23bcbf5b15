"""``nas rank``: what a search said of networks against a table of the same networks trained alone.

The table (:mod:`nas.proxies.tabular`) holds the truth; beside the proxy stand rivals that cost nothing, and above all
of them the ceiling that the noise of the truth sets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nas.choosing import mean_ranks, naswot_of
from nas.config import to_data
from nas.methods.costs import phase_costs
from nas.proxies.tabular import Table
from nas.report.rank_quality import ceiling, rank_quality
from nas.report.rank_report import RankReport
from nas.report.ranking import MINIMUM_NETWORKS
from nas.run import Run
from nas.show import histories
from search_spaces.architecture import Architecture
from search_spaces.cost import cost, trf
from search_spaces.errors import RunError

TRUTH = "truth.json"
"""In a run's directory: the comparison that its report shows."""
TRAINING = 3
"""Multiply-adds of a training step over those of a forward pass."""


def trivial(architectures: Sequence[Architecture], size: tuple[int, int]) -> dict[str, list[float]]:
    """Name -> values of what can be counted without looking at an image: larger is taken to be better.

    Args:
        architectures: backbones.
        size: (height, width) px of the images.
    """
    costs = [cost(one, size) for one in architectures]
    return {
        "parameters": [float(one.params) for one in costs],
        "MACs": [float(one.macs) for one in costs],
        "activations": [float(one.activations) for one in costs],
        # What depth gives: blocks are as many in every allocation.
        "largest field": [float(max(trf(one).values())) for one in architectures],
    }


def compare(
    scores: Mapping[str, Mapping[str, float]],
    table: Table,
    *,
    phase: str,
    k: int = 3,
    share: float | None = None,
    warning: str | None = None,
) -> RankReport:
    """Quality of each proxy over the networks that all of them and the table know.

    Args:
        scores: name of a proxy -> digest -> score, larger is better.
        table: the truth.
        phase: whose scores these are.
        k: networks that a person would train to completion.
        share: see :class:`RankReport`.
        warning: of the caller's, beside that of too few networks.

    Raises:
        RunError: fewer than three networks in common.
    """
    truth = table.truth()
    digests = [one for one in truth if all(one in found for found in scores.values())]
    if len(digests) < 3:
        raise RunError(
            f"table {table.name}: {len(digests)} of its {len(truth)} networks have a score in {phase}; allowed is 3 "
            "and more, else there is no order to compare. A table fits the runs of the space that it was made of: "
            f"{table.space}"
        )
    networks = [table.by_digest[one] for one in digests]
    known = trivial([one.architecture for one in networks], table.image_size)
    sizes = (known["parameters"], known["MACs"])
    values = {name: [found[one] for one in digests] for name, found in scores.items()}
    aps = [truth[one] for one in digests]
    k = min(k, len(digests))
    rows = {name: rank_quality(found, aps, sizes, k=k) for name, found in (values | known).items()}
    warnings = [warning] if warning else []
    if len(digests) < MINIMUM_NETWORKS:
        warnings.append(
            f"only {len(digests)} networks: under {MINIMUM_NETWORKS} the intervals are too narrow"
        )
    return RankReport(
        phase=phase,
        table=table.name,
        networks=len(digests),
        seeds=len(table.seeds),
        ceiling=ceiling([{seed: one.scores[seed][-1] for seed in table.seeds} for one in networks]),
        rows=rows,
        share=share,
        warning="; ".join(warnings) or None,
    )


def rank_run(run: Run, table: Table, *, k: int = 3) -> list[RankReport]:
    """Every phase of a run of which the table knows at least three scored networks.

    Where all candidates of a phase have a NASWOT beside their score, it and the mean rank of both stand beside the
    proxy.

    Raises:
        RunError: there is none.
    """
    trials = histories(run)
    spent = {one.name: one.macs for one in phase_costs(run, trials, table.image_size)}
    all_of_table = table_macs(table)
    warning = _other_images(run, table)
    reports = []
    for phase, history in trials.items():
        scores = {
            record.digest: record.value
            for record in history
            if record.value is not None and isinstance(record.candidate, Architecture)
        }
        if len(scores.keys() & table.by_digest.keys()) < 3:
            continue
        macs = sum(value for name, value in spent.items() if name.split(":")[0] == phase)
        ranks = mean_ranks(history)
        both = [record for record in history if record.number in ranks]
        beside: dict[str, dict[str, float]] = {}
        # As the search has them: ranks among all of its candidates, whatever the table knows of.
        if {record.digest for record in both} == scores.keys():
            beside["NASWOT"] = {record.digest: naswot_of(record) or 0.0 for record in both}
            beside["mean rank of both"] = {record.digest: ranks[record.number] for record in both}
        reports.append(
            compare(
                {"proxy": scores, **beside},
                table,
                phase=phase,
                k=k,
                share=macs / all_of_table if macs and all_of_table else None,
                warning=warning,
            )
        )
    if not reports:
        raise RunError(
            f"{run.directory}: no phase has scored three networks of table {table.name}, which holds {table.space}; "
            "take the table of this run's space, or let the search score more"
        )
    return reports


def _other_images(run: Run, table: Table) -> str | None:
    """A sentence where a run cannot have looked at the images of a table; equal facts do not prove that it has."""
    facts = run.read_json("data.json")
    if facts is None:
        return None
    there = table.about.get("recipe", {}).get("data", {})
    # Other sources are told by their categories.
    both = run.recipe.data.source == there.get("source") == "digits"
    digits = to_data(run.recipe.data.digits) if both else {}
    pairs: dict[str, tuple[Any, Any]] = {
        "size in px": (list(facts["image_size"]), list(table.image_size)),
        "categories": (
            facts["categories"],
            table.about.get("data", {}).get("categories", facts["categories"]),
        ),
        "images of train": (len(facts["train"]) + len(facts["held_out"]), table.images_trained),
        "scenes": (digits, there.get("digits", digits) if both else digits),
    }
    other = [f"{name} {here}, there {found}" for name, (here, found) in pairs.items() if here != found]
    return (
        f"the run looked at other images than the table ({'; '.join(other)}): another truth"
        if other
        else None
    )


def table_macs(table: Table) -> float:
    """Multiply-adds of the backbones in the trainings of a table."""
    each = TRAINING * table.images_trained * (table.epochs[-1] if table.epochs else 0.0)
    return float(sum(each * one.macs * len(one.scores) for one in table.networks))
