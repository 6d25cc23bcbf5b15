"""Average precision without a part of the images: how much of it is luck of the images."""

from collections.abc import Sequence
from typing import Any

from trainers.data.detection_set import DetectionSet
from trainers.evaluate import box_ap, require_finite


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
    require_finite(results)
    whole = box_ap(data.ground_truth, results)
    without = []
    for group in range(groups):
        kept = {number for index, number in enumerate(data.image_ids) if index % groups != group}
        without.append(box_ap(data.truth_of(kept), [one for one in results if one["image_id"] in kept]))
    return whole, tuple(without)
