"""Score every candidate of a space, in the space's own order (CR-NAS's stage search)."""

from nas.controllers.base import Done, best_architecture, digests, unseen, wait_or_done
from nas.trials import History
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace


class Exhaustive:
    """Every architecture once; the winner is the first with the highest score.

    Liang et al. 2020 score all stage allocations of a budget this way (section 3.3.1).

    Args:
        space: its size must not exceed ``largest``.
        largest: a guard against searches that never end.

    Raises:
        ConfigError: a space with more candidates than ``largest``.
    """

    def __init__(self, space: SearchSpace, *, largest: int = 10_000) -> None:
        if space.size > largest:
            raise ConfigError(
                f"exhaustive search of {space.name} would score {space.size} candidates; the limit is "
                f"{largest}. Use greedy, evolution or random, or raise the option `largest`"
            )
        self.space = space
        self._candidates: tuple[Architecture, ...] | None = None

    def ask(self, history: History) -> Architecture | Done | None:
        """The first candidate that was not tried."""
        if self._candidates is None:
            self._candidates = tuple(self.space.enumerate())
        seen = digests(history)
        # In an untouched run trial i is candidate i, so this looks at one candidate only.
        for candidate in self._candidates[len(history) :]:
            if candidate.digest not in seen:
                return candidate
        return next(unseen(self.space, seen), None) or wait_or_done(history)

    def winner(self, history: History) -> Architecture | None:
        """The first of the best; only meaningful once every candidate is scored."""
        return best_architecture(history)
