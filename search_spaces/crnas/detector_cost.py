"""Multiply-adds of Faster and Mask R-CNN with FPN around a backbone, by the counting rule of CR-NAS.

Liang et al. 2020 (tables 1 and 3) count the whole detector without RoIAlign at 800x1088; the rest of the rule, the
numbers of regions included, was reconstructed from the published totals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.detector_parts import box_head, cells_at, lateral, mask_head, proposals, smoothing
from search_spaces.families import family_of
from search_spaces.family import Level

ROIS, MASK_ROIS = 2000, 128
"""Regions of an image through the box head and through the mask head, which the published totals amount to."""


@dataclass(frozen=True, kw_only=True)
class DetectorMacs:
    """Multiply-adds of one image, part by part.

    Args:
        backbone: stem to last level.
        lateral: the pyramid's 1x1 convolutions.
        outputs: the pyramid's 3x3 convolutions.
        rpn: region proposals on P2 to P6.
        box_head: two fully connected layers and the predictors, for all regions.
        mask_head: four convolutions, deconvolution and predictor, for all regions; 0 without masks.
    """

    backbone: int
    lateral: int
    outputs: int
    rpn: int
    box_head: int
    mask_head: int = 0

    @property
    def total(self) -> int:
        """Of the whole detector."""
        return self.backbone + self.lateral + self.outputs + self.rpn + self.box_head + self.mask_head


def faster_rcnn_macs(
    architecture: Architecture,
    input_size: tuple[int, int] = (800, 1088),
    *,
    levels: Mapping[str, Level] | None = None,
    channels: int = 256,
    anchors: int = 3,
    classes: int = 81,
    rois: int = ROIS,
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
    strides = [level.stride for level in read.values()]
    cells = cells_at(input_size, strides)
    pooled = cells_at(input_size, [2 * max(strides)])
    return DetectorMacs(
        backbone=cost(architecture, input_size).macs,
        lateral=lateral(read, cells, channels).macs,
        outputs=smoothing(cells, channels).macs,
        rpn=proposals(channels, (*cells, *pooled), anchors=anchors).macs,
        box_head=box_head(channels, rois, classes=classes).macs,
    )


def mask_rcnn_macs(
    architecture: Architecture,
    input_size: tuple[int, int] = (800, 1088),
    *,
    levels: Mapping[str, Level] | None = None,
    channels: int = 256,
    anchors: int = 3,
    classes: int = 81,
    rois: int = ROIS,
    mask_rois: int = MASK_ROIS,
) -> DetectorMacs:
    """Multiply-adds of Mask R-CNN with FPN: Faster R-CNN and a mask of 28x28 for the best regions.

    Args:
        architecture: of the backbone.
        input_size: (height, width) in pixels.
        levels: what the pyramid reads, where it is not what the backbone declares.
        channels: of the pyramid.
        anchors: per cell.
        classes: with background.
        rois: regions that reach the box head.
        mask_rois: regions that reach the mask head.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    boxes = faster_rcnn_macs(
        architecture,
        input_size,
        levels=levels,
        channels=channels,
        anchors=anchors,
        classes=classes,
        rois=rois,
    )
    return replace(boxes, mask_head=mask_head(channels, mask_rois, classes=classes).macs)
