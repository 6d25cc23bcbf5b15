"""Runs an exported one-stage detector; needs Python 3.11 and torch, nothing else.

``load("detector.pt2")`` gives a function: images, bytes (N, 3, H, W), RGB -> one dict an image with ``boxes`` (n, 4) as
x1 y1 x2 y2 in px, falling ``scores`` (n,) and ``labels`` (n,), positions in ``categories``. How pictures are resized
and padded before says ``settings["input"]``; ``size`` is the (height, width) that most images of the training had. Load
files of people you trust only: torch may unpickle parts of a ``.pt2`` file, which can run code.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SETTINGS = "detector.json"
# From here on each class is treated alone instead of being moved away from the others (torchvision's batched_nms).
MANY = 4000


class ExportedDetector:
    """A loaded file.

    Args:
        graph: images -> boxes (N, K, 4), scores (N, K), labels (N, K).
        settings: what the file says of itself.
    """

    def __init__(self, graph: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], settings: dict[str, Any]):
        self.graph, self.settings = graph, settings
        self.size: tuple[int, int] = tuple(settings["size"])
        self.categories: list[str] = settings["categories"]

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """What is found in each image."""
        with torch.no_grad():
            found = self.graph(images)
        return [self._of_one(*one) for one in zip(*found, strict=True)]

    def _of_one(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        good = int((scores > self.settings["threshold"]).sum())
        boxes, scores, labels = boxes[:good], scores[:good], labels[:good]
        kept = kept_of_each_class(boxes, labels, self.settings["overlap"])[: self.settings["most"]]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def load(path: str) -> ExportedDetector:
    """Read a ``.pt2`` file."""
    extra = {SETTINGS: ""}
    program = torch.export.load(path, extra_files=extra)
    return ExportedDetector(program.module(), json.loads(extra[SETTINGS]))


def kept_of_each_class(boxes: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Non-maximum suppression within classes of boxes (n, 4), the best first; indices of those that stay."""
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    if boxes.numel() <= MANY:
        boxes = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for index in range(len(boxes)):
        if alive[index]:
            kept.append(index)
            low = torch.maximum(boxes[index, :2], boxes[index + 1 :, :2])
            high = torch.minimum(boxes[index, 2:], boxes[index + 1 :, 2:])
            common = (high - low).clamp(min=0).prod(1)
            covered = (common / (areas[index] + areas[index + 1 :] - common)).double() > overlap
            alive[index + 1 :] &= ~(covered & (labels[index + 1 :] == labels[index]))
    return torch.tensor(kept)
