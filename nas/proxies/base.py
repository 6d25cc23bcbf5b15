"""What a proxy is: a candidate in, a score out."""

from typing import Protocol

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
