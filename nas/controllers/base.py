"""What a controller is: it proposes candidates and names the winner, and keeps nothing to itself."""

import math
from collections.abc import Container, Iterator, Mapping
from typing import Final, Protocol, final

from nas.trials import History, Trials
from search_spaces.architecture import Architecture, Candidate
from search_spaces.space import SearchSpace


@final
class Done:
    """The controller has nothing more to propose."""

    def __repr__(self) -> str:
        return "DONE"


DONE: Final = Done()


class Controller(Protocol):
    """Proposes candidates from the history of a phase.

    ``ask`` is a pure function of the controller's settings, its seed and the history: the same history gives
    the same candidate in any process, so resuming a search is opening its study. Randomness comes from
    ``rng_for(seed, len(history))``; a cache is fine when throwing it away changes nothing.
    """

    def ask(self, history: History) -> Candidate | Done | None:
        """The next candidate, :data:`DONE`, or None when running trials must finish first."""
        ...

    def winner(self, history: History) -> Architecture | None:
        """The architecture to keep, always a complete one; None when no candidate has a score."""
        ...


def best_architecture(history: History) -> Architecture | None:
    """The complete architecture with the highest score, the first of equals; failures never win."""
    winner: Architecture | None = None
    highest = -math.inf
    for record in history:
        if record.value is not None and record.value > highest and isinstance(record.candidate, Architecture):
            winner, highest = record.candidate, record.value
    return winner


def wait_or_done(history: History) -> Done | None:
    """When the budget is asked for: done, once nothing is running any more."""
    return None if any(not record.finished for record in history) else DONE


class Seen(Container[str]):
    """Digests of the first so many trials of a phase.

    Args:
        first: digest -> number of its first trial.
        length: trials that count.
    """

    def __init__(self, first: Mapping[str, int], length: int) -> None:
        self._first, self._length = first, length

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and self._first.get(digest, self._length) < self._length


def digests(history: History) -> Container[str]:
    """Digests of everything tried, whatever came of it."""
    if isinstance(history, Trials):
        return Seen(history.first, len(history))
    return frozenset(record.digest for record in history)


def unseen(space: SearchSpace, seen: Container[str]) -> Iterator[Architecture]:
    """Architectures of the space that were not tried, in its order."""
    return (architecture for architecture in space.enumerate() if architecture.digest not in seen)
