"""Searches that score one set of candidates after another, written as a generator.

The generator yields the candidates of a stage and is sent their scores: it reads like the algorithm it is. What
makes it a controller is replay. The scores a history holds carry the generator as far as they reach, so the
history decides what comes next, and neither the order in which results come in nor the number of workers does.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from typing import ClassVar

from nas.controllers.base import Done, best_architecture, digests, wait_or_done
from nas.controllers.random import RETRIES
from nas.trials import History
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace

Stage = Mapping[str, Architecture]
"""Candidates by digest, in the order in which they are proposed."""
Scores = Mapping[str, float | None]
"""Digest -> score; None for a candidate that failed or was pruned."""
Stages = Generator[Stage, Scores, None]


class Staged(ABC):
    """A controller whose next stage follows from the scores of the stages before.

    A candidate that the history holds is not proposed again, so a stage may name one of an earlier stage. A
    stage ends when every candidate of it has finished; until then ``ask`` says None once all were proposed.

    Args:
        space: where to search.
        seed: of all draws.
        budget: number of trials, failed ones included.
    """

    kind: ClassVar[str]
    """What messages call it."""

    def __init__(self, space: SearchSpace, *, seed: int, budget: int) -> None:
        if budget < 1:
            raise ConfigError(f"budget: found {budget}; {self.kind} needs at least 1 trial")
        self.space, self.seed, self.budget = space, seed, budget
        self._used: dict[str, float | None] = {}  # scores sent so far; what the running generator rests on
        self._running: Stages | None = None
        self._stage: Stage | None = None

    @abstractmethod
    def stages(self) -> Stages:
        """The search from its beginning; it must depend on the settings and on what it is sent only."""

    def ask(self, history: History) -> Architecture | Done | None:
        """The next candidate of the current stage, None while the stage still runs."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        asked, scores = digests(history), _scores(history)
        if self._running is None or not self._used.items() <= scores.items():
            self._used, self._running = {}, self.stages()
            self._stage = next(self._running, None)
        while self._stage is not None:
            for digest, candidate in self._stage.items():
                if digest not in asked:
                    return candidate
            if not self._stage.keys() <= scores.keys():
                return None
            self._used |= {digest: scores[digest] for digest in self._stage}
            try:
                self._stage = self._running.send({digest: scores[digest] for digest in self._stage})
            except StopIteration:
                self._stage = None
        return wait_or_done(history)

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)

    def _draw(self, seen: Iterable[str], *path: int | str) -> Architecture | None:
        """A uniform draw among the architectures whose digests are not ``seen``; None when there are none.

        After :data:`RETRIES` draws in vain most of the space is known, and what is left is listed.
        """
        rng, known = rng_for(self.seed, *path), frozenset(seen)
        for _ in range(RETRIES):
            candidate = self.space.sample(rng)
            if candidate.digest not in known:
                return candidate
        left = [candidate for candidate in self.space.enumerate() if candidate.digest not in known]
        return rng.choice(left) if left else None


def _scores(history: History) -> dict[str, float | None]:
    """Of what has finished; a repeated candidate keeps its score, a later failure or not."""
    scores: dict[str, float | None] = {}
    for record in history:
        if record.finished and scores.get(record.digest) is None:
            scores[record.digest] = record.value
    return scores
