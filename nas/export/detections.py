"""Comparison of what two detectors find in the same images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nas.export.parity import Check
from search_spaces.errors import RunError
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detections
from trainers.evaluate import coco_metrics

BOXES = 0.01
SCORES = 1e-4
MASKS = 1e-3
AP = 1e-4


def compare_detections(
    wanted: Sequence[Detections],
    found: Sequence[Detections],
    *,
    threshold: float,
    most: int,
    name: str,
    of: str,
    start: int = 0,
) -> tuple[Check, ...]:
    """Every object of one is one of the other, with the same label and, within the limits, box, score and mask.

    Where a score lies as near as the limit to the threshold, or to the last one of a full list, an object may be in one
    of the two only.

    Args:
        wanted: of the detector in PyTorch, one an image.
        found: of what was exported.
        threshold: below which nothing is found.
        most: objects found in an image at most.
        name: of the format.
        of: file that was run.
        start: number of the first image, for the sentence of an error.

    Raises:
        RunError: names format and image, and how many objects have no partner.
    """
    assert len(wanted) == len(found)
    worst = dict.fromkeys(("boxes", "scores", "masks"), torch.zeros(()))
    for image, (one, other) in enumerate(zip(wanted, found, strict=True), start=start):
        mine, theirs = _pairs(one, other)
        lonely = _inside(one, mine, threshold, most) + _inside(other, theirs, threshold, most)
        if lonely:
            raise RunError(
                f"{name}: {of} finds {len(other['scores'])} objects in image {image} and PyTorch {len(one['scores'])}; "
                f"{lonely} have no partner within {BOXES:g} px and {SCORES:g} of score; nothing was exported"
            )
        if not len(mine):
            continue
        pairs = [("boxes", one["boxes"], other["boxes"]), ("scores", one["scores"], other["scores"])]
        if "masks" in one:
            pairs.append(("masks", one["masks"], other["masks"]))
        for key, first, second in pairs:
            # Of torch: a NaN stays one.
            worst[key] = torch.maximum(worst[key], (first[mine] - second[theirs]).abs().max())
    masks = float(worst["masks"])
    if not masks <= MASKS:
        raise RunError(f"{name}: {of}: masks are {masks:.2g} off, allowed is {MASKS:g}; nothing was exported")
    checks = [
        Check(of="boxes", difference=float(worst["boxes"]), limit=BOXES, unit="px"),
        Check(of="scores", difference=float(worst["scores"]), limit=SCORES, unit="of 1"),
    ]
    if any("masks" in one for one in wanted):
        checks.append(Check(of="masks", difference=masks, limit=MASKS, unit="of 1"))
    return tuple(checks)


def compare_ap(
    data: DetectionSet,
    wanted: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    *,
    name: str,
    of: str,
) -> tuple[Check, ...]:
    """AP of both on the same images.

    Args:
        data: the images' objects.
        wanted: of the detector in PyTorch, in COCO's result form.
        found: of what was exported.
        name: of the format.
        of: file that was run.

    Raises:
        RunError: they differ.
    """
    first = coco_metrics(data, wanted).scalars()
    second = coco_metrics(data, found).scalars()
    checks = []
    for key in ("AP", "mask_AP"):
        if key not in first:
            continue
        difference = abs(first[key] - second[key])
        if not difference <= AP:
            raise RunError(
                f"{name}: {of} has {key} {second[key]:.5f} where PyTorch has {first[key]:.5f}; nothing was exported"
            )
        values = (first[key], second[key])
        checks.append(Check(of=key, difference=difference, limit=AP, unit="of 1", values=values))
    return tuple(checks)


def _pairs(one: Detections, other: Detections) -> tuple[Tensor, Tensor]:
    """Indices of partners; everything has one at most, the nearest that is free."""
    count, others = len(one["scores"]), len(other["scores"])
    if not count or not others:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    apart = (one["boxes"][:, None] - other["boxes"][None]).abs().amax(2)
    near = (apart <= BOXES) & ((one["scores"][:, None] - other["scores"][None]).abs() <= SCORES)
    near &= one["labels"][:, None] == other["labels"][None]
    mine, theirs = [], []
    free = torch.ones(others, dtype=torch.bool)
    for index in range(count):
        fits = near[index] & free
        if fits.any():
            best = int(torch.where(fits, apart[index], torch.inf).argmin())
            free[best] = False
            mine.append(index)
            theirs.append(best)
    return torch.tensor(mine, dtype=torch.int64), torch.tensor(theirs, dtype=torch.int64)


def _inside(one: Detections, paired: Tensor, threshold: float, most: int) -> int:
    """How many have no partner although their score is not next to where the list ends."""
    scores = one["scores"]
    alone = torch.ones(len(scores), dtype=torch.bool)
    alone[paired] = False
    end = float(scores.min()) if len(scores) >= most else threshold
    return int((alone & (scores > max(end, threshold) + SCORES)).sum())
