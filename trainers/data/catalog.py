"""The data sources by name."""

from collections.abc import Callable

from trainers.data.coco import open_coco
from trainers.data.detection_set import DetectionSet
from trainers.data.digits import compose_digits
from trainers.recipes import DataRecipe

SOURCES: dict[str, Callable[[DataRecipe, str], DetectionSet]] = {"coco": open_coco, "digits": compose_digits}


def open_split(recipe: DataRecipe, split: str) -> DetectionSet:
    """Load and check one split; every problem is reported before anything trains.

    Args:
        recipe: which data.
        split: ``train``, ``val`` or any other name that has an annotation file.

    Raises:
        DataError: naming files and ids.
    """
    return SOURCES[recipe.source](recipe, split)
