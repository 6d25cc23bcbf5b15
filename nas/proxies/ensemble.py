"""Several supernets, each trained under a seed of its own, as one proxy: a candidate's score is the mean of theirs.

How a supernet orders candidates moves with its seed and with the images that it is scored on; the mean of several moves
less, and how far they agree can be seen. What it buys: docs/evidence.md, "Rankings and what they cost".
"""

from collections.abc import Sequence
from statistics import fmean

from nas.ledger import Stopwatch
from nas.proxies.supernet import SupernetProxy
from nas.study import Score
from nas.trials import AP_BY_SUPERNET
from search_spaces.architecture import Candidate

MEANS = ("AP50", "AP75", "detections")
"""Attributes of a score that are means over the members, like the score itself."""


class SupernetEnsemble:
    """``(architecture or prefix) -> Score``; equal input gives equal values in any order.

    Args:
        members: one supernet each, over one space; two or more. Of what they say beside AP and numbers of boxes, the
            first one's counts.
    """

    def __init__(self, members: Sequence[SupernetProxy]) -> None:
        self.members = tuple(members)

    def load(self) -> None:
        """Take the weights of trainings that are done, in a process that only scores.

        Raises:
            RunError: one is missing, or was not trained to its end.
        """
        for member in self.members:
            member.load()

    def __call__(self, candidate: Candidate) -> Score:
        """Score one candidate: mean AP in percent over the members; each one's is an attribute."""
        watch = Stopwatch()
        # The first knows what need not be asked of every one of them, and fails before anything is spent.
        scores = [member(candidate) for member in self.members]
        means = {name: fmean(_number(one, name) for one in scores) for name in MEANS}
        each = [round(one.value, 6) for one in scores]
        attributes = {**scores[0].attributes, **means, AP_BY_SUPERNET: each, **watch.read()}
        return Score(value=fmean(one.value for one in scores), attributes=attributes)


def _number(score: Score, name: str) -> float:
    found = score.attributes[name]
    assert isinstance(found, int | float), "a supernet writes numbers there"
    return float(found)
