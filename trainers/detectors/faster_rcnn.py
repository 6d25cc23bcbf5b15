"""Faster R-CNN, two-stage (Ren et al. 2015) over a pyramid (Lin et al. 2017), from torchvision's parts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from trainers.data.detection_set import Target
from trainers.detectors.detector import Detections, Detector
from trainers.detectors.norm import BatchNorm
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.recipes import DetectorRecipe

_ROI_SIDE = 7
# torchvision counts from the level of stride 16.
_CANONICAL_STRIDE = 16
_ASPECTS = (0.5, 1.0, 2.0)


class FasterRCNN(Detector):
    """Faster R-CNN over a pyramid; attribute names are torchvision's.

    Regions are pooled from the levels the backbone declares; extra, coarser maps serve proposals only. The box head
    is that of Lin et al. 2017 or, with convolutions, that of Du et al. 2020, section 4.1.

    Args:
        backbone: with its pyramid.
        num_classes: categories; inside, label 0 is the background.
        recipe: anchors, heads and post-processing.
    """

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> None:
        super().__init__(backbone, num_classes)
        channels = backbone.out_channels
        anchors = AnchorGenerator(
            sizes=tuple((stride * recipe.anchor_scale,) for stride in backbone.strides),
            aspect_ratios=(_ASPECTS,) * len(backbone.strides),
        )
        proposals = {"training": recipe.candidates, "testing": recipe.candidates}
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(channels, len(_ASPECTS), conv_depth=max(1, recipe.head_convs)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=proposals,
            post_nms_top_n=proposals,
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            roi_align(backbone, _ROI_SIDE, recipe),
            _box_head(channels, recipe),
            FastRCNNPredictor(recipe.box_head, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=recipe.roi_batch,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=recipe.score_threshold,
            nms_thresh=recipe.nms,
            detections_per_img=recipe.detections,
        )

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Two terms of the proposals, two of the boxes; proposals are sampled with torch's generator."""
        maps, batch = self._maps(images)
        inside = [self._inside(target, images.device) for target in targets]
        proposals, first = self.rpn(batch, maps, inside)
        _, second = self.roi_heads(maps, proposals, batch.image_sizes, inside)
        return {**first, **second}

    def detections(self, images: Tensor) -> list[Detections]:
        """The best-scored boxes after non-maximum suppression within classes."""
        maps, batch = self._maps(images)
        proposals, _ = self.rpn(batch, maps)
        found, _ = self.roi_heads(maps, proposals, batch.image_sizes)
        return [self._found(one) for one in found]

    def _inside(self, target: Target, device: torch.device) -> dict[str, Tensor]:
        """A target as torchvision's heads take it: label 0 is the background."""
        return {"boxes": target["boxes"].to(device), "labels": target["labels"].to(device) + 1}

    def _found(self, one: dict[str, Any]) -> Detections:
        """What torchvision's heads return for an image, with our labels."""
        return Detections(boxes=one["boxes"], scores=one["scores"], labels=one["labels"] - 1)

    def _maps(self, images: Tensor) -> tuple[dict[str, Tensor], ImageList]:
        normalised = self.normalise(images)
        # bf16 maps would enter ops that know float32 only.
        maps = {name: one.float() for name, one in self.backbone(normalised).items()}
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return maps, ImageList(normalised, [size] * len(images))


def roi_align(backbone: BackboneWithPyramid, side: int, recipe: DetectorRecipe) -> MultiScaleRoIAlign:
    """Pools a region from the level of its size (Lin et al. 2017, equation 1) to ``side`` cells a side."""
    return MultiScaleRoIAlign(
        featmap_names=list(backbone.levels),
        output_size=side,
        sampling_ratio=2,
        canonical_scale=recipe.roi_scale * _CANONICAL_STRIDE,
        canonical_level=_CANONICAL_STRIDE.bit_length() - 1,
    )


def _box_head(channels: int, recipe: DetectorRecipe) -> nn.Module:
    """Regions (R, channels, 7, 7) -> (R, box_head)."""
    if recipe.box_convs == 0:
        return TwoMLPHead(channels * _ROI_SIDE**2, recipe.box_head)  # type: ignore[no-any-return]
    return FastRCNNConvFCHead(  # type: ignore[no-any-return]
        (channels, _ROI_SIDE, _ROI_SIDE),
        [channels] * recipe.box_convs,
        [recipe.box_head],
        norm_layer=BatchNorm,
    )
