"""Multiply-adds of Faster R-CNN with FPN around a backbone, by the counting rule of CR-NAS.

Liang et al. 2020 (table 1) count the whole detector without RoIAlign at 800x1088; the rest of the rule, the
number of regions included, was reconstructed from the published totals.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.families import family_of
from search_spaces.family import Level

POOLED = 7
"""Side in cells of what RoIAlign hands to the box head."""
HIDDEN = 1024
"""Width of the box head's two fully connected layers."""


@dataclass(frozen=True, kw_only=True)
class DetectorMacs:
    """Multiply-adds of one image, part by part.

    Args:
        backbone: stem to last level.
        lateral: the pyramid's 1x1 convolutions.
        outputs: the pyramid's 3x3 convolutions.
        rpn: region proposals on P2 to P6.
        box_head: two fully connected layers and the predictors, for all regions.
    """

    backbone: int
    lateral: int
    outputs: int
    rpn: int
    box_head: int

    @property
    def total(self) -> int:
        """Of the whole detector."""
        return self.backbone + self.lateral + self.outputs + self.rpn + self.box_head


def faster_rcnn_macs(
    architecture: Architecture,
    input_size: tuple[int, int] = (800, 1088),
    *,
    levels: Mapping[str, Level] | None = None,
    channels: int = 256,
    anchors: int = 3,
    classes: int = 81,
    rois: int = 2000,
) -> DetectorMacs:
    """Multiply-adds of Faster R-CNN with FPN; P6 is a pooling of P5, boxes are regressed per class.

    Args:
        architecture: of the backbone.
        input_size: (height, width) in pixels.
        levels: what the pyramid reads, where it is not what the backbone declares.
        channels: of the pyramid.
        anchors: per cell.
        classes: with background.
        rois: regions that reach the box head.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    read = family_of(architecture).levels(architecture) if levels is None else levels
    sizes = [_cells(input_size, level.stride) for level in read.values()]
    coarsest = max(level.stride for level in read.values())
    pyramid = sum(sizes) + _cells(input_size, 2 * coarsest)
    per_roi = channels * POOLED**2 * HIDDEN + HIDDEN**2 + HIDDEN * (classes + 4 * classes)
    return DetectorMacs(
        backbone=cost(architecture, input_size).macs,
        lateral=sum(
            cells * level.channels * channels for cells, level in zip(sizes, read.values(), strict=True)
        ),
        outputs=sum(sizes) * channels**2 * 9,
        rpn=pyramid * (channels**2 * 9 + channels * anchors * 5),
        box_head=rois * per_roi,
    )


def _cells(input_size: tuple[int, int], stride: int) -> int:
    return -(-input_size[0] // stride) * -(-input_size[1] // stride)
