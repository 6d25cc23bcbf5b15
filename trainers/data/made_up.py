"""Images of noise with boxes, in the form of a recipe's data, to measure a training's pace where there are no data."""

import math

import numpy as np

from search_spaces.randomness import rng_for, seed_for
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet
from trainers.data.masks import read_mask
from trainers.recipes import DataRecipe

STORED = (480, 640)
"""(height, width) px of most of COCO's photos, taken where a recipe leaves pixels as they are."""
OBJECTS = 7
"""In an image; COCO's train2017 has 7.3 on average."""
_SMALLEST, _LARGEST = 1 / 32, 1 / 2


def made_up_size(recipe: DataRecipe) -> tuple[int, int]:
    """(height, width) px of a recipe's images before padding; square where only the longest side is known."""
    size = recipe.image_size
    if size is None:
        side = recipe.digits.image_size
        return (side, side) if recipe.source == "digits" else STORED
    return (size, size) if isinstance(size, int) else size


def made_up_set(recipe: DataRecipe, *, images: int, classes: int, seed: int = 0) -> DetectionSet:
    """A set of a recipe's image size; sides of objects are log-uniform from a 32nd to half of the shorter one.

    Args:
        recipe: of the data.
        images: how many.
        classes: categories.
        seed: of everything.
    """
    size = made_up_size(recipe)
    pictures, boxes = [], []
    for number in range(1, images + 1):
        rng = rng_for(seed, "made-up boxes", number)
        pixels = np.random.default_rng(seed_for(seed, "made-up pixels", number)).integers(
            0, 256, (*size, 3), dtype=np.uint8
        )
        pictures.append((ImageEntry(id=number, file_name=f"{number}.png", size=size), pixels, size))
        for place in range(OBJECTS):
            width, height = (
                min(size) * math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST))) for _ in range(2)
            )
            left, top = rng.uniform(0, size[1] - width), rng.uniform(0, size[0] - height)
            right, bottom = left + width, top + height
            outline = [[left, top, right, top, right, bottom, left, bottom]]
            boxes.append(
                BoxEntry(
                    id=(number - 1) * OBJECTS + place + 1,
                    image_id=number,
                    category_id=1 + rng.randrange(classes),
                    box=(left, top, width, height),
                    area=width * height,
                    crowd=False,
                    mask=read_mask(outline, size) if recipe.masks else None,
                )
            )
    return assemble(
        pictures=pictures,
        boxes=tuple(boxes),
        categories=tuple(Category(number, f"class {number}") for number in range(1, classes + 1)),
        canvas=size,
        digest=f"made up {seed} {images} {classes}",
        masks=recipe.masks,
    )
