"""Faster R-CNN, two-stage (Ren et al. 2015) over a pyramid (Lin et al. 2017), from torchvision's parts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from trainers.data.detection_set import Target
from trainers.detectors.detector import Detections, Detector
from trainers.detectors.norm import REGIONS, TOWERS, Norm, norm_of
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.detectors.region_pooling import RegionPooling
from trainers.detectors.retinanet_head import Tower
from trainers.detectors.sampler import SharedSampler
from trainers.recipes import DetectorRecipe

_ROI_SIDE = 7
# torchvision counts from the level of stride 16.
_CANONICAL_STRIDE = 16
_ASPECTS = (0.5, 1.0, 2.0)


class FasterRCNN(Detector):
    """Faster R-CNN over a pyramid; attribute names are torchvision's.

    Regions are pooled from the levels the backbone declares; extra, coarser maps serve proposals only. The box head
    is that of Lin et al. 2017 or, with convolutions and normalisation, that of Du et al. 2020, section 4.1.

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
            _proposal_head(channels, len(backbone.strides), recipe),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=proposals,
            post_nms_top_n=proposals,
            nms_thresh=0.7,
        )
        self.rpn.fg_bg_sampler = SharedSampler(256, 0.5)
        self.roi_heads = self._roi_heads(backbone, num_classes, recipe)

    def _roi_heads(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> Any:
        """What takes proposals to boxes."""
        return box_heads(
            backbone,
            recipe,
            partial(FastRCNNPredictor, recipe.box_head, num_classes + 1),
            iou=0.5,
            weights=(10.0, 10.0, 5.0, 5.0),
        )

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Two terms of the proposals, two of the boxes; proposals are sampled with torch's generator."""
        maps, batch = self._maps(images)
        inside = [self._inside(target, images.device) for target in targets]
        samplers = self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler
        for one in samplers:
            one.ranks = self.ranks
        proposals, first = self.rpn(batch, maps, inside)
        _, second = self.roi_heads(maps, proposals, batch.image_sizes, inside)
        if self.ranks.count == 1:
            return {**first, **second}
        of_proposals, of_boxes = (one.share() for one in samplers)
        of_masks = samplers[1].share(positives=True)
        return {
            **{name: of_proposals * term for name, term in first.items()},
            **{name: (of_masks if name == "loss_mask" else of_boxes) * term for name, term in second.items()},
        }

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


def box_heads(
    backbone: BackboneWithPyramid,
    recipe: DetectorRecipe,
    predictor: Callable[[], nn.Module],
    *,
    iou: float,
    weights: tuple[float, float, float, float],
) -> RoIHeads:
    """torchvision's heads, which sample regions, pool them and take them to boxes.

    Args:
        backbone: with its pyramid.
        recipe: of the detector.
        predictor: makes what gives class logits and box codes from (R, box_head); called after the box head is made.
        iou: with an object, from which on a region is positive.
        weights: of the codes of x, y, width and height.
    """
    heads = RoIHeads(
        roi_align(backbone, _ROI_SIDE, recipe),
        _box_head(backbone.out_channels, recipe),
        predictor(),
        fg_iou_thresh=iou,
        bg_iou_thresh=iou,
        batch_size_per_image=recipe.roi_batch,
        positive_fraction=0.25,
        bbox_reg_weights=weights,
        score_thresh=recipe.score_threshold,
        nms_thresh=recipe.nms,
        detections_per_img=recipe.detections,
    )
    heads.fg_bg_sampler = SharedSampler(recipe.roi_batch, 0.25)
    return heads


def roi_align(backbone: BackboneWithPyramid, side: int, recipe: DetectorRecipe) -> RegionPooling:
    """Pools a region from the level of its size (Lin et al. 2017, equation 1) to ``side`` cells a side."""
    return RegionPooling(
        featmap_names=list(backbone.levels),
        output_size=side,
        sampling_ratio=2,
        canonical_scale=recipe.roi_scale * _CANONICAL_STRIDE,
        canonical_level=_CANONICAL_STRIDE.bit_length() - 1,
    )


class NormedRPNHead(nn.Module):
    """torchvision's head of proposals with batch normalisation: levels share convolutions, not normalisations.

    Du et al. 2020, section 4.1, as the authors' code (``tensorflow/tpu``,
    ``models/official/detection/modeling/architecture/heads.py``).

    Args:
        channels: of the maps.
        levels: how many maps there are.
        anchors: per cell.
        convs: before the outputs, at least 1.
        width: of theirs.
        norm: makes a normalisation.
    """

    def __init__(
        self, channels: int, *, levels: int, anchors: int, convs: int, width: int, norm: Norm
    ) -> None:
        super().__init__()
        self.tower = Tower(
            channels, levels=levels, convs=convs, width=width, activation="relu", norm=norm, separable=False
        )
        self.cls_logits = nn.Conv2d(width, anchors, 1)
        self.bbox_pred = nn.Conv2d(width, anchors * 4, 1)
        for one in (self.cls_logits, self.bbox_pred):
            nn.init.normal_(one.weight, std=0.01)
            assert one.bias is not None
            nn.init.zeros_(one.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (N, anchors, H, W) and codes (N, 4 * anchors, H, W) of each level, fine to coarse."""
        towers = [self.tower(one, level) for level, one in enumerate(maps)]
        return [self.cls_logits(one) for one in towers], [self.bbox_pred(one) for one in towers]


def _proposal_head(channels: int, levels: int, recipe: DetectorRecipe) -> nn.Module:
    convs = max(1, recipe.head_convs)
    if recipe.rcnn_norm:
        return NormedRPNHead(
            channels,
            levels=levels,
            anchors=len(_ASPECTS),
            convs=convs,
            width=recipe.head_channels or channels,
            norm=norm_of(recipe, TOWERS),
        )
    return RPNHead(channels, len(_ASPECTS), conv_depth=convs)  # type: ignore[no-any-return]


def _box_head(channels: int, recipe: DetectorRecipe) -> nn.Module:
    """Regions (R, channels, 7, 7) -> (R, box_head)."""
    if recipe.box_convs == 0 and not recipe.rcnn_norm:
        return TwoMLPHead(channels * _ROI_SIDE**2, recipe.box_head)  # type: ignore[no-any-return]
    norm = norm_of(recipe, REGIONS)
    head = FastRCNNConvFCHead(
        (channels, _ROI_SIDE, _ROI_SIDE),
        [recipe.head_channels or channels] * recipe.box_convs,
        [recipe.box_head] * (1 if recipe.box_convs else 2),
        norm_layer=norm,
    )
    if not recipe.rcnn_norm:
        return head  # type: ignore[no-any-return]
    layers: list[nn.Module] = []
    for layer in head:
        layers += [layer, norm(recipe.box_head)] if isinstance(layer, nn.Linear) else [layer]
    return nn.Sequential(*layers)
