"""Best-improvement local search (White et al. 2021, "Exploring the loss landscape in neural architecture search")."""

import math
from collections.abc import Iterator
from typing import Literal

from nas.controllers.staged import Stage, Staged, Stages
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace


class LocalSearch(Staged):
    """Climb: move to the best neighbour while it is better, else start again somewhere else.

    Algorithm 1 of White et al., with the neighbours of ``space.neighbours``. An architecture is left for a random
    one only when all its neighbours are known and none is better: it is a local optimum. A start without a score
    is left at once. No candidate is proposed twice; one that is met again counts with its known score. Up to
    ``width`` trials can run beside each other.

    Args:
        space: where to search.
        seed: of starts, and of the order in which neighbours are scored.
        budget: number of trials, failed ones included.
        start: the first architecture: the space's baseline, or a random one; after a local optimum always random.
        width: how many neighbours are scored before the best of them is compared with where the search stands;
            None: all of them, the best improvement. With fewer they are taken in random order, without
            repetition, until one is better or none is left; 1 takes the first improvement. SpineNet's
            architectures have hundreds of neighbours.
    """

    kind = "local search"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int,
        start: Literal["baseline", "random"] = "baseline",
        width: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        if start not in ("baseline", "random"):
            raise ConfigError(f"start: found {start!r}; allowed are 'baseline' and 'random'")
        if width is not None and width < 1:
            raise ConfigError(
                f"width: found {width}; local search needs at least 1 neighbour, or None for all"
            )
        self.start, self.width = start, width

    def stages(self) -> Stages:
        """Starts alone, then neighbours, ``width`` a stage."""
        seen: set[str] = set()
        climbs = 0
        first = self.space.baseline if self.start == "baseline" else None
        while (here := first or self._draw(seen, "start", climbs)) is not None:
            first = None
            climbs += 1
            seen.add(here.digest)
            height = (yield {here.digest: here})[here.digest]
            while height is not None:
                better = None
                for stage in self._neighbourhood(here):
                    seen.update(stage)
                    scores = yield stage
                    # max takes the first of equals.
                    top = max(stage, key=lambda digest: _or_lowest(scores[digest]))
                    if _or_lowest(scores[top]) > height:
                        better = stage[top], scores[top]
                        break
                if better is None:
                    break
                here, height = better

    def _neighbourhood(self, here: Architecture) -> Iterator[Stage]:
        """The neighbours, ``width`` at a time."""
        neighbours = [(neighbour.digest, neighbour) for neighbour in self.space.neighbours(here)]
        width = self.width or len(neighbours)
        if self.width is not None:
            rng_for(self.seed, "neighbours", here.digest).shuffle(neighbours)
        return (dict(neighbours[i : i + width]) for i in range(0, len(neighbours), width or 1))


def _or_lowest(score: float | None) -> float:
    """Candidates without a score are never the best."""
    return -math.inf if score is None else score
