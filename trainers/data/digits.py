"""Scenes composed from scikit-learn's handwritten digits: a detection set that needs no file.

The digits are the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak
1998), 1797 pictures of 8x8 px that scikit-learn installs. Sides are log-uniform over a 1:8 range, so that
every level of a pyramid has work to do.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from search_spaces.errors import DataError
from search_spaces.randomness import rng_for, seed_for
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.coco import resized
from trainers.data.detection_set import NOT_STATED, Category, DetectionSet
from trainers.data.masks import encode_mask
from trainers.recipes import DataRecipe, DigitsRecipe

# Part of a val scene's ids, so that ids are unique over both splits as in a COCO folder.
_VAL_OFFSET = 1_000_000
_VAL_SHARE = 0.2
_TRIES = 30
_OVERLAP = 0.15
_INK = 0.5

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def compose_digits(recipe: DataRecipe, split: str) -> DetectionSet:
    """Compose one split; equal recipes give equal pixels and boxes.

    Args:
        recipe: ``digits`` says what scenes look like, ``image_size`` (if given) what they are resized to.
        split: ``train`` or ``val``; they share no handwritten digit.

    Raises:
        DataError: another split, or no scikit-learn.
    """
    settings = recipe.digits
    counts = {"train": settings.train_images, "val": settings.val_images}
    if split not in counts:
        raise DataError(f"the digits have no split {split!r}; allowed are {sorted(counts)}")
    drawings, labels = _drawings(split, settings)
    pictures: list[tuple[ImageEntry, Pixels, tuple[int, int]]] = []
    boxes: list[BoxEntry] = []
    offset = _VAL_OFFSET if split == "val" else 0
    digest = hashlib.sha256(f"{settings} {split}".encode())
    for index in range(counts[split]):
        rng = np.random.default_rng(seed_for(settings.seed, "scene", split, index))
        pixels, found = _scene(rng, drawings, settings)
        number = offset + index + 1
        entry = ImageEntry(id=number, file_name=f"{split}_{index:05d}.png", size=pixels.shape[:2])
        for box, drawing, mask in found:
            one = _entry(offset + len(boxes) + 1, number, int(labels[drawing]) + 1, box)
            boxes.append(replace(one, mask=encode_mask(mask)) if recipe.masks else one)
        digest.update(pixels.tobytes())
        pictures.append((entry, resized(Image.fromarray(pixels), recipe.fit), pixels.shape[:2]))
    categories = tuple(Category(id=digit + 1, name=str(digit)) for digit in sorted(settings.classes))
    return assemble(
        pictures=pictures,
        boxes=tuple(boxes),
        categories=categories,
        canvas=recipe.fit.canvas,
        sides=recipe.fit.sides,
        digest=digest.hexdigest(),
        masks=recipe.masks,
        licence=recipe.licence or NOT_STATED,
    )


def write_folder(recipe: DataRecipe, root: Path) -> None:
    """Write both splits as a COCO folder of PNG files that ``source: coco`` reads back to the same pixels."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for split in ("train", "val"):
        data = compose_digits(recipe, split)
        for index, name in enumerate(data.file_names):
            height, width = data.sizes[index]
            pixels = data.images[index][:, :height, :width].permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(pixels).save(root / "images" / name)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(data.ground_truth), encoding="utf-8")


def _drawings(split: str, recipe: DigitsRecipe) -> tuple[list[Pixels], npt.NDArray[np.int64]]:
    """Digits of the split, cut to their ink, with the figures they show."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the handwritten digits come with scikit-learn, which is not installed: "
            "pip install 'vertebra[demo]'"
        ) from error
    bunch = load_digits()
    order = list(range(len(bunch.target)))
    rng_for(recipe.seed, "digits").shuffle(order)
    cut = round(_VAL_SHARE * len(order))
    part = order[:cut] if split == "val" else order[cut:]
    chosen = [index for index in part if int(bunch.target[index]) in recipe.classes]
    drawings = []
    for index in chosen:
        ink = bunch.images[index]
        rows, columns = np.nonzero(ink.max(axis=1) > 1)[0], np.nonzero(ink.max(axis=0) > 1)[0]
        cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        drawings.append(np.round(cropped * (255.0 / 16.0)).astype(np.uint8))
    return drawings, np.asarray(bunch.target[chosen], dtype=np.int64)


def _scene(
    rng: np.random.Generator, drawings: list[Pixels], recipe: DigitsRecipe
) -> tuple[Pixels, list[tuple[tuple[int, int, int, int], int, Pixels]]]:
    """One picture (h, w, 3), and of each digit (x, y, width, height), the drawing's number and its mask (h, w).

    A mask is where ink prevails and no later digit covers it.
    """
    size = recipe.image_size
    canvas = _background(rng, size)
    count = int(rng.integers(1, recipe.max_objects + 1))
    low, high = np.log(recipe.min_side), np.log(recipe.max_side)
    sides = np.sort(np.exp(rng.uniform(low, high, count)))[::-1]
    found: list[tuple[tuple[int, int, int, int], int, Pixels]] = []
    for side in sides:
        drawing = int(rng.integers(len(drawings)))
        ink = _enlarged(drawings[drawing], float(side))
        height, width = ink.shape
        for _ in range(_TRIES):
            x, y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
            if all(_overlap((x, y, width, height), box) <= _OVERLAP for box, _, _ in found):
                _paint(canvas[y : y + height, x : x + width], ink, rng)
                mask = np.zeros((size, size), dtype=np.uint8)
                mask[y : y + height, x : x + width] = ink >= _INK
                for _, _, below in found:
                    below[mask == 1] = 0
                found.append(((x, y, width, height), drawing, mask))
                break
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8), found


def _background(rng: np.random.Generator, size: int) -> Floats:
    """Coloured noise of two grain sizes around a grey."""
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    fine = rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
    layers = [
        np.asarray(Image.fromarray(layer).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
        - 127.5
        for layer in (coarse, fine)
    ]
    return np.asarray(rng.uniform(70, 185) + 0.22 * layers[0] + 0.1 * layers[1], dtype=np.float64)


def _enlarged(drawing: Pixels, side: float) -> Floats:
    """Ink from 0 to 1, longer side ``side`` px."""
    height, width = drawing.shape
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return (
        np.asarray(Image.fromarray(drawing).resize(size, Image.Resampling.BILINEAR), dtype=np.float64) / 255.0
    )


def _paint(part: Floats, ink: Floats, rng: np.random.Generator) -> None:
    """Blend a colour of clear contrast into the part of the canvas below the ink."""
    mean = part.mean(axis=(0, 1))
    colour = rng.uniform(0, 255, 3)
    # A colour near the ground's would be an object that nobody can see.
    sign = 1.0 if mean.mean() < 127.5 else -1.0
    colour = np.where(np.abs(colour - mean) < 70, np.clip(mean + sign * 90, 0, 255), colour)
    alpha = ink[:, :, None]
    part[:] = (1 - alpha) * part + alpha * colour


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller of two boxes."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0, width) * max(0, height) / min(first[2] * first[3], second[2] * second[3])


def _entry(number: int, image_id: int, category_id: int, box: tuple[int, int, int, int]) -> BoxEntry:
    x, y, width, height = box
    return BoxEntry(
        id=number,
        image_id=image_id,
        category_id=category_id,
        box=(float(x), float(y), float(width), float(height)),
        area=float(width * height),
        crowd=False,
    )
