"""Average precision of parts of the images: how much of it is luck of the images."""

from trainers.data.detection_set import DetectionSet
from trainers.evaluate import Boxes, BoxTruth


def aps_of_groups(data: DetectionSet, found: Boxes, groups: int) -> tuple[float, tuple[float, ...]]:
    """AP of boxes over all images, and over each of some groups of them.

    The spread of the groups' values tells that of the whole (the method of random groups: Wolter 2007, "Introduction to
    variance estimation", chapter 2). It costs one more evaluation; leaving out each group in turn would cost one for
    every group. Every image is in one group; image i is in group i modulo their number.

    Args:
        data: the images that were looked at, in an order by chance.
        found: rows of these images only.
        groups: 2 to the number of images.

    Returns:
        As fractions: the AP, and that of each group, -1 where it has no object.

    Raises:
        ValueError: another number of groups.
        NonFiniteDetection: see :func:`trainers.evaluate.require_finite`.
    """
    if not 2 <= groups <= len(data):
        raise ValueError(f"groups: found {groups}; allowed is 2 to {len(data)}, the number of images")
    parts = []
    for group in range(groups):
        own = set(data.image_ids[group::groups])
        parts.append(BoxTruth(data.truth_of(own)).aps(found.of_images(own)).AP)
    return BoxTruth(data.ground_truth).aps(found).AP, tuple(parts)
