"""By what the winner of a phase is chosen where more than its score is known of a candidate. Torch-free."""

from nas.controllers.base import Controller, Done
from nas.report.rank_quality import mean_rank
from nas.trials import NASWOT, History, Record
from search_spaces.architecture import Architecture, Candidate

MEAN_RANK = "mean_rank"
"""What a recipe says for :class:`ByMeanRank`."""


def said(choose_by: str, members: int) -> str:
    """By what a person reads that the winner was chosen.

    Args:
        choose_by: what a recipe says.
        members: its supernets.
    """
    score = "AP in the supernet" if members == 1 else f"mean AP in {members} supernets"
    if choose_by == MEAN_RANK:
        return f"best mean of two ranks, by {score} and by NASWOT at random weights"
    return f"highest {score}"


def naswot_of(record: Record) -> float | None:
    """NASWOT of a trial's network, as it was written down beside the score; None where it was not."""
    found = record.attributes.get(NASWOT)
    return float(found) if isinstance(found, int | float) else None


def mean_ranks(history: History) -> dict[int, float]:
    """Number of a trial -> mean of its rank by score and its rank by NASWOT, larger is better.

    Ranks count from 1 for the lowest among the whole networks that have both numbers, each network once; equals share
    the mean of the ranks that they take up together. All ranks are whole or half numbers, so their means are exact.

    Args:
        history: of one phase.
    """
    known: dict[str, tuple[int, float, float]] = {}
    for record in history:
        free = naswot_of(record)
        if record.value is not None and free is not None and isinstance(record.candidate, Architecture):
            known.setdefault(record.digest, (record.number, record.value, free))
    if not known:
        return {}
    numbers, scores, others = zip(*known.values(), strict=True)
    return dict(zip(numbers, mean_rank([scores, others]), strict=True))


def best_by_mean_rank(history: History) -> Architecture | None:
    """The network with the highest of :func:`mean_ranks`, the first of equals; None before there is one."""
    found = mean_ranks(history)
    if not found:
        return None
    best = max(sorted(found), key=lambda number: found[number])
    winner = next(record.candidate for record in history if record.number == best)
    assert isinstance(winner, Architecture)
    return winner


class ByMeanRank:
    """A controller whose winner is the best by the mean rank of score and NASWOT.

    Against allocations trained alone this mean orders networks better than the score does, and about as well as NASWOT
    does there (docs/evidence.md, "Rankings and what they cost"). The winner is a pure function of the history, like
    every winner.

    Args:
        controller: proposes; it must look at the whole of its space, for a rank is one among all.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def ask(self, history: History) -> Candidate | Done | None:
        """What the controller proposes."""
        return self._controller.ask(history)

    def winner(self, history: History) -> Architecture | None:
        """The best by mean rank, the first of equals."""
        return best_by_mean_rank(history)
