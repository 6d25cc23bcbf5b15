"""A race: candidates are scored on more and more of the held-out images, and poor ones are stopped on the way.

In the manner of Maron and Moore 1994 ("Hoeffding races") and Birattari et al. 2002 (F-race), with paired differences
of AP: all candidates see the same images, so what is luck of the images is nearly the same for all of them. AP is no
mean over images; the error of a difference comes from the differences in groups of images.
"""

import math
from collections.abc import Mapping, Sequence

from nas.recipes.race import RaceRecipe
from nas.report.ranking import student_t_quantile
from nas.trials import BY_GROUP, History, Json, Record
from search_spaces.architecture import Prefix
from search_spaces.errors import ConfigError


class Race:
    """Decides at each rung which candidates are still in the race; see :class:`nas.rungs.Rungs`.

    A candidate is stopped when more than ``keep`` others are better than it by more than luck explains, so that one of
    those may fail. Another is better when, with AP a and b on s of n images, and a_g and b_g on group g of G,

        a - b > t sqrt(1 - s / n) sqrt(sum (d_g - mean d)^2 / (G (G - 1))),  d_g = a_g - b_g

    with Student's t of G - 1 degrees at the recipe's level. The first root is that of a draw without putting back: the
    question is who is best on these n images. Compared are candidates of one level, of the same round or before, so the
    more are asked for together (``batch``), the more are stopped. The level is that of one comparison: among many near
    equals the best may be lost.

    Args:
        recipe: rungs and level.
        images: n, all held-out ones.
        mini_batch: images that are scored at a time; rungs are multiples of it.
        keep: candidates of a level that the controller goes on from.

    Raises:
        ConfigError: the first rung holds all images.
    """

    def __init__(self, recipe: RaceRecipe, *, images: int, mini_batch: int, keep: int) -> None:
        self.recipe, self.images, self.keep = recipe, images, keep
        self.rungs: Sequence[int] = rungs_of(recipe, images, mini_batch)

    def stops(self, history: History, number: int, step: int) -> str | None:
        """Why a trial ends at a rung, or None; see :class:`nas.rungs.Rungs`."""
        own = history[number]
        better = [one for one in _together(history, own, step) if self._behind(own, one, step)]
        # One to spare, for a candidate that leads now may fail before it has its score.
        if len(better) <= self.keep:
            return None
        ahead = max(one.intermediate[step] for one in better)
        return (
            f"stopped after {step} of {self.images} images: {own.intermediate[step]:.2f} AP, {len(better)} others are "
            f"better by more than chance, the best with {ahead:.2f}"
        )

    def decisions(self, history: History) -> Mapping[tuple[int, int], bool]:
        """All decisions of a history, made again."""
        return {
            (one.number, step): self.stops(history, one.number, step) is not None
            for one in history
            for step in one.intermediate
        }

    def _behind(self, own: Record, other: Record, step: int) -> bool:
        """Whether another candidate is better by more than luck of the images explains."""
        gap = other.intermediate[step] - own.intermediate[step]
        if gap <= 0:
            return False
        apart = [a - b for a, b in zip(by_group(other, step), by_group(own, step), strict=True)]
        groups, mean = len(apart), sum(apart) / len(apart)
        error = math.sqrt(sum((one - mean) ** 2 for one in apart) / (groups * (groups - 1)))
        drawn = math.sqrt(1.0 - step / self.images)
        return gap > student_t_quantile(1.0 - self.recipe.level, groups - 1) * drawn * error


def rungs_of(recipe: RaceRecipe, images: int, mini_batch: int) -> tuple[int, ...]:
    """Images of the rungs, rising, all before the last image.

    Raises:
        ConfigError: the first rung holds all images.
    """
    found: list[int] = []
    wanted = recipe.first
    while (rung := math.ceil(wanted / mini_batch) * mini_batch) < images:
        if not found or rung > found[-1]:
            found.append(rung)
        wanted *= recipe.growth
    if not found:
        raise ConfigError(
            f"first: found {recipe.first}, in mini-batches of {mini_batch}; allowed is less than the {images} held-out "
            "images, or leave the race out"
        )
    return tuple(found)


def by_group(record: Record, step: int) -> tuple[float, ...]:
    """AP of a trial at a rung, of each group of images."""
    found = record.attributes.get(BY_GROUP)
    values: Json = found.get(str(step)) if isinstance(found, Mapping) else None
    assert isinstance(values, Sequence), "noted before the value of the rung"
    return tuple(float(str(one)) for one in values)


def _together(history: History, own: Record, step: int) -> list[Record]:
    """The others that are compared with a trial at a rung; of its own round whatever came of them later."""
    return [
        one
        for one in history
        if one.digest != own.digest
        and one.round <= own.round
        and step in one.intermediate
        and _level(one) == _level(own)
        # Who failed in an earlier round will not win.
        and not (one.state == "failed" and one.round < own.round)
    ]


def _level(record: Record) -> int:
    """Genes that are decided; scores of different levels are not comparable."""
    return len(record.candidate.genes) if isinstance(record.candidate, Prefix) else -1
