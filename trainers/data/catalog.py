"""The data sources by name."""

from collections.abc import Callable

from trainers.data.coco import open_coco
from trainers.data.detection_set import DetectionSet
from trainers.data.digits import compose_digits
from trainers.data.stored import Say
from trainers.recipes import DataRecipe

# Scenes of digits are few, whatever the number of processes.
SOURCES: dict[str, Callable[[DataRecipe, str, int, Say], DetectionSet]] = {
    "coco": open_coco,
    "digits": lambda recipe, split, *_: compose_digits(recipe, split),
}


def open_split(recipe: DataRecipe, split: str, *, copies: int = 1, say: Say | None = None) -> DetectionSet:
    """Load and check one split; every problem is reported before anything trains.

    Args:
        recipe: which data.
        split: ``train``, ``val`` or any other name that has an annotation file.
        copies: processes of this machine that open it, each of which holds all pixels unless the recipe has a
            ``cache``.
        say: takes lines for a person while pictures are decoded into it.

    Raises:
        DataError: naming files and ids.
    """
    return SOURCES[recipe.source](recipe, split, copies, say or (lambda _: None))
