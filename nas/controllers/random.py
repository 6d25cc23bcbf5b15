"""Uniform random search: the baseline every other controller has to beat."""

from nas.controllers.base import Done, best_architecture, digests, unseen, wait_or_done
from nas.trials import History
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace

RETRIES = 50
"""Draws before a controller falls back to listing what is left."""


class RandomSearch:
    """Distinct candidates, uniformly drawn.

    Args:
        space: where to draw.
        seed: with the trial's number it decides each draw.
        budget: number of trials, failed ones included; the search ends earlier when nothing is left.
    """

    def __init__(self, space: SearchSpace, *, seed: int, budget: int) -> None:
        if budget < 1:
            raise ConfigError(f"budget: found {budget}; random search needs at least 1 trial")
        self.space = space
        self.seed = seed
        self.budget = budget

    def ask(self, history: History) -> Architecture | Done | None:
        """A candidate that was not tried."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        return draw_new(self.space, self.seed, history) or wait_or_done(history)

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)


def draw_new(space: SearchSpace, seed: int, history: History) -> Architecture | None:
    """A uniform draw among the architectures that were not tried; None when there are none.

    The number of draws is bounded: after :data:`RETRIES` that were all tried before, most of the space is
    known, and what is left is listed.
    """
    rng = rng_for(seed, "draw", len(history))
    seen = digests(history)
    for _ in range(RETRIES):
        candidate = space.sample(rng)
        if candidate.digest not in seen:
            return candidate
    left = list(unseen(space, seen))
    return rng.choice(left) if left else None
