"""Instance masks: COCO's polygons and run lengths checked, kept as run lengths, decoded a batch at a time.

Decoded, the masks of a set would take more memory than its images, one byte a pixel and object; run lengths take
about a hundred bytes an object. pycocotools does the arithmetic and is imported where it is needed.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Mask = npt.NDArray[np.uint8]

_POINTS = 3
_SHOWN = 60
# Runs of a compressed string that are no differences.
_ABSOLUTE = 3


class Rle(TypedDict):
    """COCO's compressed run lengths: ``size`` is [height, width], ``counts`` the runs column by column."""

    size: list[int]
    counts: str


def read_mask(value: object, size: tuple[int, int]) -> Rle:
    """The mask that a ``segmentation`` of an annotation file describes.

    Args:
        value: polygons, or run lengths of either form.
        size: (height, width) of the image in px.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    from pycocotools import mask as coco_mask

    if isinstance(value, list) and value:
        found = coco_mask.merge(coco_mask.frPyObjects(_polygons(value, size), *size))
    elif isinstance(value, dict):
        counts = _runs(value, size)
        found = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    else:
        raise ValueError(f"is {value!r}; needed are polygons or run lengths")
    if not int(coco_mask.area(found)):
        raise ValueError(f"covers no pixel of its image of {size[1]}x{size[0]} px")
    return _plain(found)


def encode_mask(mask: Mask) -> Rle:
    """Run lengths of a mask (H, W) of zeros and ones."""
    from pycocotools import mask as coco_mask

    return _plain(coco_mask.encode(np.asfortranarray(mask)))


def decode_masks(masks: Sequence[Rle], size: tuple[int, int]) -> Tensor:
    """Masks of one image: uint8 (n, H, W) of zeros and ones; ``size`` (H, W) is for an image without any."""
    from pycocotools import mask as coco_mask

    if not masks:
        return torch.zeros((0, *size), dtype=torch.uint8)
    decoded: Mask = coco_mask.decode(list(masks))
    return torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1)))


def mask_area(mask: Rle) -> float:
    """Pixels of the mask."""
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(mask))


def resized_mask(mask: Rle, size: tuple[int, int], canvas: tuple[int, int]) -> Rle:
    """The mask of an image resized to ``size`` and padded at right and bottom to ``canvas``, both (height, width).

    A pixel belongs to it that it covers by half; one too thin for that keeps every pixel that it touches.
    """
    whole = decode_masks([mask], size)[0].numpy()
    if whole.shape != size:
        picture = Image.fromarray(whole * np.uint8(255))
        share = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        whole = (share >= min(128, max(1, int(share.max())))).astype(np.uint8)
    padded = np.zeros(canvas, dtype=np.uint8)
    padded[: size[0], : size[1]] = whole
    return encode_mask(padded)


def _polygons(value: list[object], size: tuple[int, int]) -> list[list[float]]:
    found: list[list[float]] = []
    for polygon in value:
        numbers = polygon if isinstance(polygon, list) else []
        if (
            len(numbers) < 2 * _POINTS
            or len(numbers) % 2
            or not all(type(one) in (int, float) for one in numbers)
        ):
            raise ValueError(
                f"has a polygon {_short(polygon)}; needed are x and y of at least {_POINTS} points in one list"
            )
        corners = np.asarray(numbers, dtype=np.float64).reshape(-1, 2)
        sides = np.array([size[1], size[0]])
        # Beyond that pycocotools draws lines for which there is no memory.
        if not ((corners >= -sides) & (corners <= 2 * sides)).all():
            raise ValueError(
                f"has a polygon {_short(polygon)} that leaves its image of {size[1]}x{size[0]} px by more than a "
                "whole side, or is not finite"
            )
        found.append([float(one) for one in numbers])
    return found


def _runs(value: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """Uncompressed run lengths that add up to the image; pycocotools would write past the end of others."""
    stated, counts = value.get("size"), value.get("counts")
    if stated != list(size):
        raise ValueError(f"has the size {stated!r}; its image has [height, width] {list(size)}")
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(type(one) is int for one in counts):
        runs = counts
    else:
        raise ValueError(f"has counts {_short(counts)}; needed is a list of integers or a compressed string")
    if any(run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"has runs that do not add up to the {size[0] * size[1]} pixels of its image")
    return runs


def _uncompressed(text: str) -> list[int]:
    """COCO's string: five bits a character, the sixth says that more follow; later runs are differences."""
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"has the character {character!r} in its compressed counts")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        # Background and object alternate, so a run is like the one before the last.
        runs.append(number + (runs[-2] if len(runs) >= _ABSOLUTE else 0))
        number = shift = 0
    if shift:
        raise ValueError("has compressed counts that end within a number")
    return runs


def _plain(rle: dict[str, Any]) -> Rle:
    return Rle(size=[int(side) for side in rle["size"]], counts=rle["counts"].decode("ascii"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
