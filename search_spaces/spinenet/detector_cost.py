"""Costs of what scale-permuted networks are trained in: RetinaNet, and the classifier of the paper.

Du et al. 2020 (arXiv 1912.05027), sections 4.1 and 4.2, with heads as in the authors' released code: towers are
shared over the levels, and each level has batch normalisation of its own. Without torch.
"""

from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.cost import Cost, cost
from search_spaces.families import family_of
from search_spaces.spinenet.costs import cells_by_level

POSITIONS = 4
"""Numbers that say where a box is."""


@dataclass(frozen=True, kw_only=True)
class DetectorCost:
    """Cost of one image, part by part.

    Args:
        backbone: with the 1x1 convolutions that make P3 to P7.
        head: class and box towers on all levels.
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
    levels = family_of(architecture).levels(architecture)
    cells = [cells_by_level(input_size)[level.stride.bit_length() - 1] for level in levels.values()]
    channels = next(iter(levels.values())).channels
    width = channels if width is None else width
    head = Cost()
    for outputs in (classes * anchors, POSITIONS * anchors):
        inputs = channels
        for _ in range(convs):
            head += _conv(inputs, width, sum(cells), separable=separable)
            head += Cost(params=2 * width * len(cells))
            inputs = width
        head += _conv(inputs, outputs, sum(cells), separable=separable)
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
    linear = Cost(params=(channels + 1) * classes, macs=channels * classes, activations=classes)
    return cost(architecture, input_size) + linear


def _conv(inputs: int, outputs: int, cells: int, *, separable: bool) -> Cost:
    """A 3x3 convolution with bias, shared over the levels."""
    if not separable:
        weights = 9 * inputs * outputs
        return Cost(params=weights + outputs, macs=weights * cells, activations=outputs * cells)
    weights = 9 * inputs + inputs * outputs
    return Cost(params=weights + outputs, macs=weights * cells, activations=(inputs + outputs) * cells)
