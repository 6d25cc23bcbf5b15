"""How far the supernets of a phase agree on the order of its networks: what a search knows of its own luck.

Torch-free.
"""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from nas.report.ranking import kendall_tau
from nas.trials import AP_BY_SUPERNET, History
from search_spaces.architecture import Architecture

LEAST = 8
"""Networks of which an order says something."""


def agreement(history: History) -> tuple[int, float] | None:
    """How many supernets scored the whole networks of a phase, and Kendall's tau-b between two of them, on average.

    High agreement is no proof that the order is right, for all supernets may be wrong alike; low agreement is one that
    the order of a single supernet is mostly luck.

    Args:
        history: of one phase.

    Returns:
        None with one supernet, with fewer than eight networks, and where a supernet gives all of them one score.
    """
    rows: dict[str, Sequence[float]] = {}
    for record in history:
        found = record.attributes.get(AP_BY_SUPERNET)
        if (
            record.value is not None
            and isinstance(record.candidate, Architecture)
            and isinstance(found, list | tuple)
        ):
            rows.setdefault(record.digest, [float(str(one)) for one in found])
    if len(rows) < LEAST:
        return None
    members = list(zip(*rows.values(), strict=True))
    taus = [kendall_tau(one, other) for one, other in combinations(members, 2)]
    if not taus or None in taus:
        return None
    return len(members), fmean(tau for tau in taus if tau is not None)


def agreement_line(history: History) -> str | None:
    """The same as a sentence without its end, for people."""
    found = agreement(history)
    if found is None:
        return None
    count, tau = found
    return f"two of its {count} supernets agree on the order of the networks by Kendall's tau {tau:.2f}, on average"
