"""Two-stage detectors as modules of which a graph can be made: what torchvision does, for a whole batch.

The number of proposals is the same for every image; what is no proposal has score 0 and is never found.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import clip_boxes_to_image

from nas.export.pooling import pooled
from nas.export.suppression import kept_of_each_class
from trainers.detectors.cascade_rcnn import CascadeHeads
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.detectors.mask_rcnn import MaskRCNN

# Sides below are dropped, px (``filter_proposals`` and ``postprocess_detections`` of torchvision).
_LEAST_PROPOSAL = 1e-3
_LEAST_BOX = 1e-2


class TwoStage(nn.Module):
    """A whole two-stage detector.

    Args:
        detector: in evaluation mode, on the CPU.
        size: (height, width) px of some images that may enter.
    """

    def __init__(self, detector: FasterRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        image = torch.zeros(1, 3, *size)
        with torch.no_grad():
            # torchvision's layers learn their scales from the first maps that they see.
            detector.detections(image)
            masks = [detector.roi_heads.mask_roi_pool] if isinstance(detector, MaskRCNN) else []
            for align in (*(one.box_roi_pool for one in self._stages), *masks):
                align(detector.backbone(image), [image.new_tensor([[0.0, 0.0, *size[::-1]]])], [size])

    @property
    def _stages(self) -> list[RoIHeads]:
        """The box heads, in the order in which regions go through them."""
        heads = self.detector.roi_heads
        return list(heads.stages) if isinstance(heads, CascadeHeads) else [heads]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Bytes (N, 3, H, W) -> boxes (M, 4) px, scores, labels and image (M,), and masks (M, 28, 28) if it has any."""
        one = self.detector
        maps = {name: found.float() for name, found in one.backbone(one.normalise(images)).items()}
        size = (images.shape[-2], images.shape[-1])
        proposals, real = self._proposals(list(maps.values()), size)
        boxes, scores, labels, image = self._boxes(maps, proposals, real, size)
        if not isinstance(one, MaskRCNN):
            return boxes, scores, labels, image
        heads = one.roi_heads
        regions = torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1)
        # And one that nobody asked for: normalisation wants to know that there are any.
        regions = torch.cat((regions, regions.new_zeros(1, 5)))
        logits = heads.mask_predictor(heads.mask_head(pooled(heads.mask_roi_pool, maps, regions)))[:-1]
        chosen = (labels + 1)[:, None, None, None].expand(-1, 1, *logits.shape[-2:])
        return boxes, scores, labels, image, logits.sigmoid().gather(1, chosen)[:, 0]

    def _anchors(self, maps: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Of every map (A, 4) px, cells row by row, as torchvision's ``AnchorGenerator`` has them."""
        generator = self.detector.rpn.anchor_generator
        generator.set_cell_anchors(torch.float32, maps[0].device)
        found = []
        for one, cell in zip(maps, generator.cell_anchors, strict=True):
            rows, columns = one.shape[-2:]
            # A stride is what fits, so a coarse map whose cells hang over the edge has a smaller one.
            down = torch.arange(rows) * (size[0] // rows)
            right = torch.arange(columns) * (size[1] // columns)
            x, y = right[None].expand(rows, columns), down[:, None].expand(rows, columns)
            corners = torch.stack((x, y, x, y), dim=2).flatten(0, 1).to(cell.dtype)
            found.append((corners[:, None] + cell[None]).flatten(0, 1))
        return found

    def _proposals(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, 4) px and which of them are proposals (N, P)."""
        rpn = self.detector.rpn
        logits, codes = rpn.head(maps)
        best, offsets, places, levels = [], [], [], []
        # Level by level, so that no graph has to count how many anchors come before one.
        for number, (one, code, anchors) in enumerate(
            zip(logits, codes, self._anchors(maps, size), strict=True)
        ):
            scores = one.permute(0, 2, 3, 1).flatten(1)
            values, order = scores.topk(torch.sym_min(rpn.pre_nms_top_n(), scores.shape[1]), dim=1)
            of_level = code.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            best.append(values)
            offsets.append(of_level.gather(1, order[:, :, None].expand(-1, -1, 4)))
            places.append(anchors[order.flatten()].reshape(offsets[-1].shape))
            levels.append(torch.full_like(order, number))
        chosen = torch.cat(offsets, dim=1)
        boxes = rpn.box_coder.decode_single(chosen.flatten(0, 1), torch.cat(places, dim=1).flatten(0, 1))
        boxes = clip_boxes_to_image(boxes.reshape(chosen.shape), size)
        scores = torch.where(_wide(boxes, _LEAST_PROPOSAL), torch.cat(best, dim=1).sigmoid(), 0.0)
        boxes, scores, level = _by_score(boxes, scores, torch.cat(levels, dim=1))
        most = torch.sym_min(rpn.post_nms_top_n(), boxes.shape[1])
        kept = kept_of_each_class(
            boxes,
            scores,
            level,
            classes=len(maps),
            overlap=rpn.nms_thresh,
            threshold=0.0,
            most=most,
        )
        # Kept ones first, in their order.
        order = torch.arange(boxes.shape[1], 0, -1, device=boxes.device)
        rank, place = torch.where(kept, order, 0).topk(most, dim=1)
        return boxes.gather(1, place[:, :, None].expand(-1, -1, 4)), rank > 0

    def _boxes(
        self, maps: dict[str, Tensor], proposals: Tensor, real: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """What is found: boxes (M, 4) px, scores, labels and image (M,)."""
        heads, classes = self._stages[-1], self.detector.num_classes
        number, most = proposals.shape[:2]
        image = torch.arange(number, device=proposals.device)[:, None, None].expand(-1, most, 1)
        regions = torch.cat((image.to(proposals.dtype), proposals), dim=2).flatten(0, 1)
        logits, boxes = self._predicted(maps, regions, size)
        boxes = boxes[:, 1:].reshape(number, most * classes, 4)
        scores = logits.softmax(-1)[:, 1:].reshape(number, most, classes)
        scores = torch.where(real[:, :, None], scores, 0.0).flatten(1)
        scores = torch.where(_wide(boxes, _LEAST_BOX), scores, 0.0)
        labels = torch.arange(classes, device=boxes.device).expand(number, most, classes).flatten(1)
        boxes, scores, labels = _by_score(boxes, scores, labels)
        kept = kept_of_each_class(
            boxes,
            scores,
            labels,
            classes=classes,
            overlap=heads.nms_thresh,
            threshold=heads.score_thresh,
            most=heads.detections_per_img,
        )
        image, place = torch.nonzero(kept).unbind(1)
        return boxes[image, place], scores[image, place], labels[image, place], image

    def _predicted(
        self, maps: dict[str, Tensor], regions: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, classes + 1) and boxes (R, classes + 1, 4) px, none outside, of regions (R, 5)."""
        logits: list[Tensor] = []
        boxes = regions[:, None, 1:]
        for number, stage in enumerate(self._stages):
            if number:
                regions = torch.cat((regions[:, :1], boxes[:, 0]), dim=1)
            found, codes = stage.box_predictor(stage.box_head(pooled(stage.box_roi_pool, maps, regions)))
            boxes = stage.box_coder.decode_single(codes, regions[:, 1:]).unflatten(1, (-1, 4))
            boxes = clip_boxes_to_image(boxes, size)
            logits.append(found)
        if len(logits) == 1:
            return logits[0], boxes
        # Of a cascade scores are a mean, and a box is that of every class.
        mean = torch.stack([one.softmax(-1) for one in logits]).mean(0)
        return mean.log(), boxes.expand(-1, mean.shape[-1], -1)


def _wide(boxes: Tensor, least: float) -> Tensor:
    """Which boxes (..., 4) have sides of at least so many px."""
    return (boxes[..., 2] - boxes[..., 0] >= least) & (boxes[..., 3] - boxes[..., 1] >= least)


def _by_score(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three (N, K, ...) with scores falling; equal ones stay in their order, as in torchvision."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return boxes.gather(1, order[:, :, None].expand(-1, -1, 4)), scores, labels.gather(1, order)
