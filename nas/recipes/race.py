"""A race of candidates over the held-out images."""

from dataclasses import dataclass

from search_spaces.recipe import Recipe

GROUPS = 16
"""Parts of the images whose differences tell how much is luck, unless a recipe says otherwise."""


@dataclass(frozen=True, kw_only=True)
class RaceRecipe(Recipe):
    """Candidates are scored on a part of the held-out images first, and who is clearly behind there on no more.

    A candidate that is behind by more than the images explain is stopped; see :class:`nas.racing.Race`. Every rung
    rebuilds the BN statistics and begins with the first image again, so with few held-out images scoring everybody on
    all of them costs less; docs/evidence.md has what was measured. Allowed beside controllers
    that do not learn from the scores of poor candidates: ``exhaustive``, ``greedy``, ``random``.

    Args:
        first: held-out images of the first rung; each rung after it has ``growth`` times as many, while that is less
            than all. Rounded up to whole mini-batches.
        growth: see ``first``.
        level: one-sided level of each comparison of two candidates at a rung.
        groups: of images, whose differences tell how much is luck.
    """

    first: int
    growth: int = 4
    level: float = 0.01
    groups: int = GROUPS

    def __post_init__(self) -> None:
        self.require("first", self.first >= 4, "at least 4")
        self.require("growth", self.growth >= 2, "at least 2")
        self.require("level", 0.0 < self.level < 0.5, "between 0 and 0.5")
        self.require("groups", self.groups >= 4, "at least 4")
