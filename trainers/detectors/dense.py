"""What one-stage detectors share: a score and a box for every class and place, thinned out to detections."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from trainers.detectors.detector import Detections, Detector
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.recipes import DetectorRecipe


class DenseDetector(Detector, ABC):
    """Base of the one-stage detectors.

    Args:
        backbone: with its pyramid.
        num_classes: categories.
        recipe: thresholds and numbers of detections.
    """

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> None:
        super().__init__(backbone, num_classes)
        self.score_threshold = recipe.score_threshold
        self.nms = recipe.nms
        self.max_detections = recipe.detections
        self.max_candidates = recipe.candidates

    @abstractmethod
    def scored(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Scores and boxes of all places; images as for :meth:`normalise`.

        Returns:
            Scores (N, places * classes), a place's classes side by side, and a function: places (N, K) -> boxes
            (N, K, 4), px.
        """

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What enters non-maximum suppression: for every image the same number of boxes, whatever their scores.

        Classes of a place compete for the same candidates.

        Returns:
            Boxes (N, K, 4) px, inside the images; scores (N, K), falling; labels (N, K).
        """
        scores, boxes_at = self.scored(images)
        best, order = scores.topk(min(self.max_candidates, scores.shape[1]), dim=1)
        size = (images.shape[-2], images.shape[-1])
        boxes = clip_boxes_to_image(boxes_at(order.div(self.num_classes, rounding_mode="floor")), size)
        return boxes, best, order % self.num_classes

    def detections(self, images: Tensor) -> list[Detections]:
        """The best-scored boxes of each image after non-maximum suppression within classes."""
        boxes, scores, labels = self.candidates(images)
        counts = (scores > self.score_threshold).sum(dim=1).tolist()
        # Nothing here is for autocast to convert, and it would look at every operation on every image.
        with torch.autocast(boxes.device.type, enabled=False):
            found = (boxes.float(), scores.float(), labels, counts)
            return [self._suppressed(*one) for one in zip(*found, strict=True)]

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Detections:
        boxes, scores, labels = boxes[:count], scores[:count], labels[:count]
        kept = batched_nms(boxes, scores, labels, self.nms)[: self.max_detections]
        return Detections(boxes=boxes[kept], scores=scores[kept], labels=labels[kept])
