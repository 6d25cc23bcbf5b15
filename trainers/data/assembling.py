"""A set from its parts: decoded pictures, wherever their pixels are, and the boxes of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.detection_set import NOT_STATED, Category, DetectionSet, Target
from trainers.data.masks import Rle, resized_mask
from trainers.data.sizing import canvas_of
from trainers.data.stored import StoredImages


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Decoded and resized pictures.

    Args:
        entries: of the annotation file.
        contents: (height, width) of each as resized.
        sizes: (height, width) of each before.
        padded: all of them, padded at right and bottom to a (height, width).
        digest: of annotations, names and pixels.
    """

    entries: tuple[ImageEntry, ...]
    contents: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[int, int], ...]
    padded: Callable[[tuple[int, int]], Tensor | StoredImages]
    digest: str

    def places(self) -> dict[int, int]:
        """Image id -> position."""
        return {entry.id: place for place, entry in enumerate(self.entries)}


def pictures_in_memory(
    entries: Sequence[ImageEntry],
    pixels: Sequence[npt.NDArray[np.uint8]],
    sizes: Sequence[tuple[int, int]],
    *,
    digest: str,
) -> Pictures:
    """Pictures whose resized pixels (h, w, 3) are at hand."""
    return Pictures(
        entries=tuple(entries),
        contents=tuple((one.shape[0], one.shape[1]) for one in pixels),
        sizes=tuple(sizes),
        padded=partial(_padded, pixels),
        digest=digest,
    )


def _padded(pixels: Sequence[npt.NDArray[np.uint8]], canvas: tuple[int, int]) -> Tensor:
    images = torch.zeros((len(pixels), 3, *canvas), dtype=torch.uint8)
    for index, one in enumerate(pixels):
        images[index, :, : one.shape[0], : one.shape[1]] = torch.from_numpy(one).permute(2, 0, 1)
    return images


def assemble(
    *,
    pictures: Sequence[tuple[ImageEntry, npt.NDArray[np.uint8], tuple[int, int]]],
    boxes: tuple[BoxEntry, ...],
    categories: tuple[Category, ...],
    canvas: tuple[int, int] | None,
    digest: str,
    sides: tuple[int, int] | None = None,
    masks: bool = False,
    licence: str = NOT_STATED,
) -> DetectionSet:
    """:func:`assembled` of pictures in memory: entry, resized pixels (h, w, 3), original (height, width)."""
    entries, pixels, sizes = zip(*pictures, strict=True)
    return assembled(
        pictures_in_memory(entries, pixels, sizes, digest=digest),
        boxes=boxes,
        categories=categories,
        canvas=canvas,
        sides=sides,
        masks=masks,
        licence=licence,
    )


def assembled(
    pictures: Pictures,
    *,
    boxes: tuple[BoxEntry, ...],
    categories: tuple[Category, ...],
    canvas: tuple[int, int] | None,
    sides: tuple[int, int] | None = None,
    skipped: tuple[str, ...] = (),
    masks: bool = False,
    licence: str = NOT_STATED,
) -> DetectionSet:
    """Pad resized pictures to one size and scale their boxes and masks.

    Args:
        pictures: at least one.
        boxes: of these pictures, in original px.
        categories: sorted by id.
        canvas: (height, width) to pad to; the largest picture when None. Rounded up to multiples of 32.
        sides: see :class:`~trainers.data.detection_set.DetectionSet`; images then have room for what orientations there
            are.
        skipped: what was dropped.
        masks: every box has a mask, and the set shall have them.
        licence: of the pictures.
    """
    if sides is not None:
        canvas = canvas_of(sides, (height > width for height, width in pictures.contents))
    tallest = max(height for height, _ in pictures.contents)
    widest = max(width for _, width in pictures.contents)
    height, width = (-(-side // 32) * 32 for side in (canvas or (tallest, widest)))
    images = pictures.padded((height, width))
    labels = {category.id: label for label, category in enumerate(categories)}
    of_image: dict[int, list[BoxEntry]] = {entry.id: [] for entry in pictures.entries}
    for box in boxes:
        if not box.crowd:
            of_image[box.image_id].append(box)
    targets: list[Target] = []
    scales: list[tuple[float, float]] = []
    outlines: list[tuple[Rle, ...]] = []
    for entry, content, size in zip(pictures.entries, pictures.contents, pictures.sizes, strict=True):
        scale = (content[1] / size[1], content[0] / size[0])
        scales.append(scale)
        targets.append(_target(entry.id, of_image[entry.id], labels, size, scale))
        if masks:
            outlines.append(
                tuple(
                    resized_mask(box.mask, content, (height, width))
                    for box in of_image[entry.id]
                    if box.mask is not None
                )
            )
    return DetectionSet(
        images=images,
        targets=tuple(targets),
        categories=categories,
        ground_truth=_ground_truth(pictures, boxes, categories),
        scales=torch.tensor(scales, dtype=torch.float64),
        sizes=pictures.sizes,
        file_names=tuple(entry.file_name for entry in pictures.entries),
        digest=hashlib.sha256(f"{pictures.digest} {tuple(images.shape)}".encode()).hexdigest(),
        sides=sides,
        skipped=skipped,
        masks=tuple(outlines) if masks else None,
        licence=licence,
    )


def _target(
    image_id: int,
    boxes: list[BoxEntry],
    labels: dict[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
) -> Target:
    corners = torch.tensor([box.box for box in boxes], dtype=torch.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners[:, 0::2] = corners[:, 0::2].clamp(0, size[1]) * scale[0]
    corners[:, 1::2] = corners[:, 1::2].clamp(0, size[0]) * scale[1]
    numbers: Tensor = torch.tensor([labels[box.category_id] for box in boxes], dtype=torch.int64)
    return Target(boxes=corners.float(), labels=numbers, image_id=image_id)


def _ground_truth(
    pictures: Pictures,
    boxes: tuple[BoxEntry, ...],
    categories: tuple[Category, ...],
) -> dict[str, list[dict[str, Any]]]:
    return {
        "images": [
            {"id": entry.id, "file_name": entry.file_name, "height": size[0], "width": size[1]}
            for entry, size in zip(pictures.entries, pictures.sizes, strict=True)
        ],
        "annotations": [
            {
                "id": box.id,
                "image_id": box.image_id,
                "category_id": box.category_id,
                "bbox": list(box.box),
                "area": box.area,
                "iscrowd": int(box.crowd),
                **({} if box.mask is None else {"segmentation": box.mask}),
            }
            for box in boxes
        ],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }
