"""Costs of what scale-permuted networks are trained in: RetinaNet, Mask R-CNN, and the classifier of the paper.

Du et al. 2020 (arXiv 1912.05027), sections 4.1 and 4.2, with heads as in the authors' released code: towers are
shared over the levels, and each level has batch normalisation of its own. Without torch.
"""

from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.cost import Cost, cost
from search_spaces.detector_parts import POSITIONS, box_head, cells_at, linear, mask_head, proposals, towers
from search_spaces.families import family_of


@dataclass(frozen=True, kw_only=True)
class DetectorCost:
    """Cost of one image, part by part.

    Args:
        backbone: with the 1x1 convolutions that make P3 to P7.
        head: everything behind it.
    """

    backbone: Cost
    head: Cost

    @property
    def total(self) -> Cost:
        """Of the whole detector."""
        return self.backbone + self.head


def retinanet_cost(
    architecture: Architecture,
    input_size: tuple[int, int],
    *,
    classes: int = 91,
    width: int | None = None,
    convs: int = 4,
    anchors: int = 9,
    separable: bool = False,
) -> DetectorCost:
    """Cost of RetinaNet, whose towers read the backbone's levels directly.

    Args:
        architecture: of a family whose levels are P3 to P7.
        input_size: (height, width) in pixels.
        classes: scores for each anchor; published figures have 91, COCO's ids with one for background.
        width: of the towers; ``None``: that of the levels.
        convs: in each of the two towers.
        anchors: per cell.
        separable: 3x3 convolutions are depthwise without bias, followed by 1x1 with bias (the mobile head).

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    channels, cells = _maps(architecture, input_size)
    head = towers(
        channels,
        cells,
        (classes * anchors, POSITIONS * anchors),
        convs=convs,
        width=channels if width is None else width,
        norms=len(cells),
        separable=separable,
    )
    return DetectorCost(backbone=cost(architecture, input_size), head=head)


def mask_rcnn_cost(
    architecture: Architecture,
    input_size: tuple[int, int],
    *,
    classes: int = 91,
    width: int | None = None,
    convs: int = 4,
    hidden: int = 1024,
    rois: int = 1000,
    mask_rois: int = 100,
) -> DetectorCost:
    """Cost of Mask R-CNN, whose heads read the backbone's levels directly.

    The counting rule of the published figures: all of an image's 1000 proposals go through the box head, its 100
    detections through the mask head, and proposals take one convolution, whatever a configuration says of theirs.

    Args:
        architecture: of a family whose levels are P3 to P7.
        input_size: (height, width) in pixels.
        classes: with background; published figures have 91, COCO's ids with one for background.
        width: of all convolutions; ``None``: that of the levels.
        convs: of the box head and of the mask head, each.
        hidden: width of the box head's one linear layer.
        rois: regions that reach the box head.
        mask_rois: regions that reach the mask head.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    channels, cells = _maps(architecture, input_size)
    head = proposals(channels, cells, width=width, normed=True)
    head += box_head(channels, rois, classes=classes, hidden=hidden, convs=convs, width=width, normed=True)
    head += mask_head(channels, mask_rois, classes=classes, convs=convs, width=width)
    return DetectorCost(backbone=cost(architecture, input_size), head=head)


def classifier_cost(
    architecture: Architecture, input_size: tuple[int, int] = (224, 224), *, classes: int = 1001
) -> Cost:
    """Cost of the classifier: the mean of all levels, pooled, and one linear layer.

    Args:
        architecture: of a family whose levels have one width.
        input_size: (height, width) in pixels.
        classes: of the linear layer; the authors' ImageNet has 1000 and one for background.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    channels = next(iter(family_of(architecture).levels(architecture).values())).channels
    return cost(architecture, input_size) + linear(channels, classes, 1)


def _maps(architecture: Architecture, input_size: tuple[int, int]) -> tuple[int, tuple[int, ...]]:
    """Width of the backbone's levels, and the cells of each."""
    levels = family_of(architecture).levels(architecture).values()
    return next(iter(levels)).channels, cells_at(input_size, [level.stride for level in levels])
