"""Mask R-CNN (He et al. 2017): Faster R-CNN with a mask for every box, from torchvision's parts."""

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from search_spaces.errors import ConfigError
from trainers.data.detection_set import Target
from trainers.detectors.detector import Detections
from trainers.detectors.faster_rcnn import FasterRCNN, roi_align
from trainers.detectors.norm import REGIONS, norm_of
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.recipes import DetectorRecipe

_ROI_SIDE = 14


class MaskRCNN(FasterRCNN):
    """Mask R-CNN over a pyramid; attribute names are torchvision's. Its losses have one more term, ``loss_mask``.

    The mask head has batch normalisation, as the authors of SpineNet have it (``tensorflow/tpu``,
    ``models/official/detection/modeling/architecture/heads.py``), and masks of 28 cells a side.

    Args:
        backbone: with its pyramid.
        num_classes: categories; inside, label 0 is the background.
        recipe: anchors, heads and post-processing.
    """

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> None:
        super().__init__(backbone, num_classes, recipe)
        channels = backbone.out_channels
        width = recipe.mask_channels or channels
        self.roi_heads.mask_roi_pool = roi_align(backbone, _ROI_SIDE, recipe)
        self.roi_heads.mask_head = MaskRCNNHeads(
            channels, [width] * recipe.mask_convs, dilation=1, norm_layer=norm_of(recipe, REGIONS)
        )
        self.roi_heads.mask_predictor = MaskRCNNPredictor(
            width if recipe.mask_convs else channels, width, num_classes + 1
        )

    def _inside(self, target: Target, device: torch.device) -> dict[str, Tensor]:
        if "masks" not in target:
            raise ConfigError(
                "mask_rcnn learns from masks, and these images come without; open them with data.masks: true"
            )
        return {**super()._inside(target, device), "masks": target["masks"].to(device)}

    def _found(self, one: dict[str, Any]) -> Detections:
        return Detections(**super()._found(one), masks=one["masks"][:, 0])
