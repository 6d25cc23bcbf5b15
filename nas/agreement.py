"""How far the supernets of a phase agree on the order of its networks: what a search knows of its own luck.

Torch-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.report.ranking import mutual_tau
from nas.trials import AP_BY_SUPERNET, History
from search_spaces.architecture import Architecture

LEAST = 8
"""Networks of which an order says something."""
RIVAL = "random"
"""The phase that has no supernets of its own."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What several supernets say of one order.

    Args:
        supernets: how many there are.
        tau: Kendall's tau-b between two of them, a mean over all pairs that have an order; None where none has.
        silent: numbers, from 1 on, of those that give all networks one score.
    """

    supernets: int
    tau: float | None
    silent: tuple[int, ...]

    def __str__(self) -> str:
        parts = []
        if self.tau is not None:
            pairs = "" if self.supernets == 2 else ", on average"
            parts.append(
                f"the orders of two of its {self.supernets} supernets have Kendall's tau {self.tau:.2f}{pairs}"
            )
        parts += [f"supernet {number} gives all networks one score" for number in self.silent]
        return "; ".join(parts)


def agreement(history: History) -> Agreement | None:
    """Of the whole networks of a phase.

    High agreement is no proof that the order is right, for all supernets may be wrong alike; low agreement is one that
    the order of a single supernet is mostly luck.

    Args:
        history: of one phase.

    Returns:
        None with one supernet, and with fewer than eight networks.
    """
    rows: dict[str, Sequence[float]] = {}
    for record in history:
        found = record.attributes.get(AP_BY_SUPERNET)
        whole = record.value is not None and isinstance(record.candidate, Architecture)
        if whole and isinstance(found, list | tuple):
            rows.setdefault(record.digest, [float(str(one)) for one in found])
    if len(rows) < LEAST:
        return None
    members = list(zip(*rows.values(), strict=True))
    return Agreement(
        supernets=len(members),
        tau=mutual_tau(members),
        silent=tuple(number for number, one in enumerate(members, start=1) if len(set(one)) == 1),
    )


def agreements(trials: Mapping[str, History]) -> dict[str, str]:
    """Phase -> the same as a sentence without its end, where there is something to say."""
    found = {name: agreement(history) for name, history in trials.items() if name != RIVAL}
    return {name: str(one) for name, one in found.items() if one is not None}
