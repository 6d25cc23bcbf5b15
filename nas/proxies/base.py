"""What a proxy is: a candidate in, a score out."""

from typing import Protocol, runtime_checkable

from nas.trials import Report, Score
from search_spaces.architecture import Candidate


class Proxy(Protocol):
    """Scores a candidate without training it to completion.

    Equal candidates get equal values in any process and order. Candidates that are compared see the same images,
    completions and recalibration batches, so that differences are paired. Whatever belongs to the proxy's training is
    done before the first score.
    """

    def __call__(self, candidate: Candidate) -> Score:
        """The score of one candidate; larger is better.

        Raises:
            CandidateFailed: a failure of this candidate only, as a sentence; anything else stops the search.
        """
        ...


@runtime_checkable
class StagedProxy(Proxy, Protocol):
    """A proxy that can say on the way how a candidate does, so that a poor one is stopped early."""

    def in_stages(self, candidate: Candidate, report: Report) -> Score:
        """The score, equal to that of a call without stages.

        Args:
            candidate: as in a call.
            report: to be called at the same steps for every candidate, in rising order.

        Raises:
            Stopped: passed on from ``report``, with what was spent until then.
            CandidateFailed: as a call.
        """
        ...
