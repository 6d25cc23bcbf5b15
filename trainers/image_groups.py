"""Average precision of parts of the images: how much of it is luck of the images."""

from trainers.box_truth import BoxTruth
from trainers.boxes import Boxes
from trainers.data.detection_set import DetectionSet


class GroupTruth:
    """Ground truth for AP of boxes over all images, and over each of some groups of them.

    The spread of the groups' values tells that of the whole (the method of random groups: Wolter 2007, "Introduction to
    variance estimation", chapter 2). It costs one more evaluation; leaving out each group in turn would cost one for
    every group. Every image is in one group; image i is in group i modulo their number.

    Args:
        data: the images that are looked at, in an order by chance.
        groups: 2 to the number of images.

    Raises:
        ValueError: another number of groups.
    """

    def __init__(self, data: DetectionSet, groups: int) -> None:
        if not 2 <= groups <= len(data):
            raise ValueError(f"groups: found {groups}; allowed is 2 to {len(data)}, the number of images")
        self._whole = BoxTruth(data.ground_truth)
        images = [set(data.image_ids[group::groups]) for group in range(groups)]
        self._groups = [(own, BoxTruth(data.truth_of(own))) for own in images]

    def aps(self, found: Boxes) -> tuple[float, tuple[float, ...]]:
        """What was found, scored.

        Args:
            found: rows of these images only.

        Returns:
            As fractions: the AP, and that of each group, -1 where it has no object.

        Raises:
            NonFiniteDetection: see :func:`trainers.boxes.require_finite`.
        """
        parts = tuple(truth.aps(found.of_images(own)).AP for own, truth in self._groups)
        return self._whole.aps(found).AP, parts
