"""Average precision of parts of the images: how much of it is luck of the images."""

from collections.abc import Sequence
from typing import Any

from trainers.data.detection_set import DetectionSet
from trainers.evaluate import BoxTruth, require_finite


def aps_of_groups(
    data: DetectionSet, results: Sequence[dict[str, Any]], groups: int
) -> tuple[float, tuple[float, ...]]:
    """AP of boxes over all images, and over each of some groups of them.

    The spread of the groups' values tells that of the whole (the method of random groups: Wolter 2007, "Introduction to
    variance estimation", chapter 2). It costs one more evaluation; leaving out each group in turn would cost one for
    every group. Every image is in one group; image i is in group i modulo their number.

    Args:
        data: the images that were looked at, in an order by chance.
        results: as :func:`trainers.evaluate.detect` returns them.
        groups: 2 to the number of images.

    Returns:
        As fractions: the AP, and that of each group, -1 where it has no object.

    Raises:
        ValueError: another number of groups.
        NonFiniteDetection: see :func:`trainers.evaluate.require_finite`.
    """
    if not 2 <= groups <= len(data):
        raise ValueError(f"groups: found {groups}; allowed is 2 to {len(data)}, the number of images")
    require_finite(results)
    parts = []
    for group in range(groups):
        own = set(data.image_ids[group::groups])
        parts.append(BoxTruth(data.truth_of(own)).aps([one for one in results if one["image_id"] in own]).AP)
    return BoxTruth(data.ground_truth).aps(results).AP, tuple(parts)
