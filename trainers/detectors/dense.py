"""What one-stage detectors share: a score and a box for every class and place, thinned out to detections."""

from abc import ABC
from collections.abc import Callable

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
        self.candidates = recipe.candidates

    def best(
        self, scores: Tensor, boxes_at: Callable[[Tensor], Tensor], size: tuple[int, int]
    ) -> list[Detections]:
        """The best-scored boxes of each image after non-maximum suppression within classes.

        Args:
            scores: (N, places * classes), a place's classes side by side; they compete for the same candidates.
            boxes_at: places (N, K) -> boxes (N, K, 4), px.
            size: (height, width) of the images, px.
        """
        best, order = scores.topk(min(self.candidates, scores.shape[1]), dim=1)
        boxes = clip_boxes_to_image(boxes_at(order.div(self.num_classes, rounding_mode="floor")), size)
        labels = order % self.num_classes
        return [self._suppressed(*one) for one in zip(boxes, best, labels, strict=True)]

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        count = int((scores > self.score_threshold).sum())
        boxes, scores, labels = boxes[:count], scores[:count], labels[:count]
        kept = batched_nms(boxes, scores, labels, self.nms)[: self.max_detections]
        return Detections(boxes=boxes[kept], scores=scores[kept], labels=labels[kept])
