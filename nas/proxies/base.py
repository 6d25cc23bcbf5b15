"""What a proxy is: a candidate in, a score out."""

from typing import Protocol, runtime_checkable

from nas.trials import Score
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

    def at(self, candidate: Candidate, step: int) -> Score:
        """The score after so many training steps, on the way to that of a call, which it does not change.

        What was trained waits in files, so that any process goes on from there.

        Args:
            candidate: as in a call.
            step: asked for in rising order.

        Returns:
            The score, and what this stage and those before have cost, without their seconds.

        Raises:
            CandidateFailed: as a call.
        """
        ...

    def drop(self, candidate: Candidate) -> None:
        """Nobody will go on with this candidate; what waits for it may be deleted."""
        ...
