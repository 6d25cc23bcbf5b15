"""Average precision without a part of the images: how much of it is luck of the images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trainers.data.detection_set import DetectionSet
from trainers.evaluate import coco_metrics


def left_out_aps(
    data: DetectionSet, results: Sequence[dict[str, Any]], groups: int
) -> tuple[float, tuple[float, ...]]:
    """AP of boxes over all images, and over all but each of some groups: what a jackknife needs.

    AP is no mean over images, so its spread is that of the values without each group (Quenouille 1956, Tukey 1958).
    Every image is in one group; image i is in group i modulo their number.

    Args:
        data: the images that were looked at, in an order by chance.
        results: as :func:`trainers.evaluate.detect` returns them.
        groups: 2 to the number of images.

    Returns:
        As fractions: the AP, and that without each group.

    Raises:
        ValueError: another number of groups.
    """
    if not 2 <= groups <= len(data):
        raise ValueError(f"groups: found {groups}; allowed is 2 to {len(data)}, the number of images")
    every = list(results)
    whole = coco_metrics(data, every).AP
    return whole, tuple(coco_metrics(_without(data, group, groups), every).AP for group in range(groups))


def _without(data: DetectionSet, group: int, groups: int) -> DetectionSet:
    """The targets and the ground truth of all but a group; the images stay, for nobody looks at them."""
    targets = tuple(one for index, one in enumerate(data.targets) if index % groups != group)
    kept = {one["image_id"] for one in targets}
    truth = {
        **data.ground_truth,
        "images": [image for image in data.ground_truth["images"] if image["id"] in kept],
        "annotations": [one for one in data.ground_truth["annotations"] if one["image_id"] in kept],
    }
    return replace(data, targets=targets, ground_truth=truth, masks=None)
