"""Cascade R-CNN (Cai and Vasconcelos 2018): box heads in a row, each on the boxes of the one before."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import clip_boxes_to_image

from trainers.detectors.faster_rcnn import FasterRCNN, box_heads
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.detectors.sampler import SharedSampler
from trainers.recipes import DetectorRecipe

# Of each head: the IoU from which a region is positive, the weights of its box codes, and that of its losses in the
# authors' code (``zhaoweicai/Detectron-Cascade-RCNN``).
_STAGES = (
    (0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
    (0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    (0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)


class CascadeRCNN(FasterRCNN):
    """Cascade R-CNN over a pyramid, with the box head of Faster R-CNN three times; masks it has none.

    Args:
        backbone: with its pyramid.
        num_classes: categories; inside, label 0 is the background.
        recipe: anchors, heads and post-processing.
    """

    def _roi_heads(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> Any:
        return CascadeHeads(
            [
                box_heads(
                    backbone,
                    recipe,
                    partial(OneBoxPredictor, recipe.box_head, num_classes + 1),
                    iou=iou,
                    weights=weights,
                )
                for iou, weights, _ in _STAGES
            ],
            loss_weights=[weight for _, _, weight in _STAGES],
        )


class OneBoxPredictor(nn.Module):
    """Logits of every class and one box for all of them (section 4.1: regression is class agnostic).

    Args:
        channels: of a region.
        classes: with the background.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes)
        self.bbox_pred = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, channels) -> (R, classes) and (R, 4)."""
        return self.cls_score(x), self.bbox_pred(x)


class CascadeHeads(nn.Module):
    """Heads in a row, called as torchvision's one is.

    In training the first samples regions; the others take the boxes that the one before has made of these, and match
    them to the objects anew, so all heads see the same number of regions. At test time the boxes are those of the last
    head, and their scores the mean of what each head says of the region that it got.

    Args:
        stages: torchvision's heads, whose predictors give one box for all classes.
        loss_weights: of each.
    """

    def __init__(self, stages: Sequence[RoIHeads], loss_weights: Sequence[float]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.loss_weights = tuple(loss_weights)

    @property
    def fg_bg_sampler(self) -> SharedSampler:
        """Of the regions that all stages see."""
        sampler = self._stages[0].fg_bg_sampler
        assert isinstance(sampler, SharedSampler)
        return sampler

    @property
    def _stages(self) -> list[Any]:
        return list(self.stages)

    def forward(
        self,
        maps: dict[str, Tensor],
        proposals: list[Tensor],
        image_sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each image, or in training no detections and the losses of each stage."""
        if self.training:
            assert targets is not None, "heads in training mode need targets"
            return [], self._losses(maps, proposals, image_sizes, targets)
        return self._detections(maps, proposals, image_sizes), {}

    def _losses(
        self,
        maps: dict[str, Tensor],
        regions: list[Tensor],
        image_sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(zip(self._stages, self.loss_weights, strict=True), start=1):
            if number == 1:
                regions, _, labels, wanted = stage.select_training_samples(regions, targets)
            else:
                labels, wanted = _matched(stage, regions, targets)
            logits, codes = _predicted(stage, maps, regions, image_sizes)
            classes, boxes = fastrcnn_loss(logits, _for_each_class(codes, logits), labels, wanted)
            found[f"loss_classifier_{number}"] = weight * classes
            found[f"loss_box_reg_{number}"] = weight * boxes
            regions = _moved(stage, codes, regions, image_sizes)
        return found

    def _detections(
        self, maps: dict[str, Tensor], regions: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        scores = []
        for stage in self._stages:
            given = regions
            logits, codes = _predicted(stage, maps, given, image_sizes)
            scores.append(logits.softmax(1))
            regions = _moved(stage, codes, given, image_sizes)
        mean = torch.stack(scores).mean(0)
        # The last stage's post-processing begins with a softmax, which takes these back to what they are.
        boxes, kept, labels = stage.postprocess_detections(
            mean.log(), _for_each_class(codes, mean), given, image_sizes
        )
        return [
            {"boxes": box, "scores": score, "labels": label}
            for box, score, label in zip(boxes, kept, labels, strict=True)
        ]


def _predicted(
    stage: Any, maps: dict[str, Tensor], regions: list[Tensor], image_sizes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """float32 logits (R, classes) and box codes (R, 4) of the regions of all images."""
    logits, codes = stage.box_predictor(stage.box_head(stage.box_roi_pool(maps, regions, image_sizes)))
    return logits.float(), codes.float()


def _matched(
    stage: Any, regions: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Labels of an image's regions, 0 for the background, and codes of the boxes they answer for."""
    truth = [one["boxes"].to(regions[0]) for one in targets]
    objects, labels = stage.assign_targets_to_proposals(regions, truth, [one["labels"] for one in targets])
    boxes = [
        some[one] if len(some) else torch.zeros_like(region)
        for some, one, region in zip(truth, objects, regions, strict=True)
    ]
    return labels, list(stage.box_coder.encode(boxes, regions))


def _moved(
    stage: Any, codes: Tensor, regions: list[Tensor], image_sizes: list[tuple[int, int]]
) -> list[Tensor]:
    """What a stage makes of its regions; none is dropped, and no gradient goes through them."""
    boxes = stage.box_coder.decode(codes.detach(), regions)[:, 0].split([len(one) for one in regions])
    return [clip_boxes_to_image(one, size) for one, size in zip(boxes, image_sizes, strict=True)]


def _for_each_class(codes: Tensor, scores: Tensor) -> Tensor:
    """(R, 4) -> (R, 4 * classes), as torchvision's functions take them."""
    return codes.repeat(1, scores.shape[1])
