"""One-stage detectors as modules of which a graph can be made."""

import torch
from torch import Tensor, nn

from nas.export.suppression import kept_of_each_class
from trainers.detectors.dense import DenseDetector

OUTPUTS = ("boxes", "scores", "labels", "image")
"""What a whole detector gives: everything found in the batch in a row, and in which image each lies."""


class Candidates(nn.Module):
    """A one-stage detector up to non-maximum suppression.

    Args:
        detector: in evaluation mode.
    """

    def __init__(self, detector: DenseDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bytes (N, 3, H, W) -> boxes (N, K, 4) px, falling scores (N, K), labels (N, K)."""
        return self.detector.candidates(images)


class OneStage(nn.Module):
    """A whole one-stage detector.

    Args:
        detector: in evaluation mode.
    """

    def __init__(self, detector: DenseDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Bytes (N, 3, H, W) -> as in :data:`OUTPUTS`: (M, 4) px, (M,), (M,), (M,); best first within an image."""
        one = self.detector
        boxes, scores, labels = one.candidates(images)
        kept = kept_of_each_class(
            boxes,
            scores,
            labels,
            classes=one.num_classes,
            overlap=one.nms,
            threshold=one.score_threshold,
            most=one.max_detections,
        )
        image, place = torch.nonzero(kept).unbind(1)
        return boxes[image, place], scores[image, place], labels[image, place], image
