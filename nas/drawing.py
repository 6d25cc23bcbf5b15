"""Boxes, masks, names and scores on a copy of a picture."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from trainers.data.masks import decode_masks

# Hues of neighbouring labels lie far apart.
_GOLDEN = 0.618
_ALPHA = 0.45
_PIXELS_A_LINE = 300
"""Of the longer side, for each px of a line's width."""


def drawn(
    picture: Image.Image, results: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> Image.Image:
    """A copy of a picture with what was found on it.

    Args:
        picture: RGB.
        results: of this picture, in COCO's form; the best scored is drawn last, on top.
        names: category id -> name.
    """
    if not results:
        return picture.copy()
    order = sorted(results, key=lambda one: float(one["score"]))
    labels = {number: position for position, number in enumerate(names)}
    colours = [_colour(labels[one["category_id"]]) for one in order]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if all("segmentation" in one for one in order):
        masks = decode_masks([one["segmentation"] for one in order], (picture.height, picture.width)).bool()
        pixels = draw_segmentation_masks(pixels, masks, alpha=_ALPHA, colors=colours)
    boxes = torch.tensor([one["bbox"] for one in order], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    pixels = draw_bounding_boxes(
        pixels,
        boxes,
        labels=[f"{names[one['category_id']]} {one['score']:.2f}" for one in order],
        colors=colours,
        width=max(1, max(picture.size) // _PIXELS_A_LINE),
    )
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
