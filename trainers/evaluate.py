"""COCO average precision of a detector: pycocotools is the reference, faster-coco-eval the quick twin."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from search_spaces.errors import ConfigError
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detector
from trainers.recipes import Amp

Backend = Literal["pycocotools", "faster", "auto"]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """COCO's box metrics as fractions; -1 where the images hold no object of that kind (COCO's convention).

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95 and categories.
        AP50: at IoU 0.50.
        AP75: at IoU 0.75.
        APs: objects below 32^2 px of area.
        APm: objects of 32^2 to 96^2 px.
        APl: objects above 96^2 px.
        per_class: AP of every category that has an object.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    per_class: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """The six headline numbers by name."""
        return {name: value for name, value in asdict(self).items() if name != "per_class"}


@torch.no_grad()
def detect(
    detector: Detector,
    data: DetectionSet,
    *,
    batch_size: int = 16,
    device: torch.device,
    amp: Amp = "off",
) -> list[dict[str, Any]]:
    """Detections in COCO's result form, in original px; the detector's mode is as before afterwards.

    Args:
        detector: on ``device``.
        data: images to look at.
        batch_size: images at a time; results do not depend on it beyond rounding.
        device: where the detector is.
        amp: as in training.
    """
    was_training = detector.training
    detector.eval()
    results: list[dict[str, Any]] = []
    try:
        for start in range(0, len(data), batch_size):
            images = data.images[start : start + batch_size].to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp == "bf16"):
                found = detector.detections(images)
            for offset, one in enumerate(found):
                results += _results(data, start + offset, one["boxes"], one["scores"], one["labels"])
    finally:
        detector.train(was_training)
    return results


def _results(
    data: DetectionSet, index: int, boxes: Tensor, scores: Tensor, labels: Tensor
) -> list[dict[str, Any]]:
    height, width = data.sizes[index]
    corners = boxes.double().cpu() / data.scales[index].repeat(2)
    corners[:, 0::2] = corners[:, 0::2].clamp(0, width)
    corners[:, 1::2] = corners[:, 1::2].clamp(0, height)
    corners[:, 2:] -= corners[:, :2]
    image_id = data.targets[index]["image_id"]
    ids = [category.id for category in data.categories]
    return [
        {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score}
        for box, score, label in zip(corners.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]


def coco_metrics(
    data: DetectionSet, results: Sequence[dict[str, Any]], *, backend: Backend = "auto"
) -> Metrics:
    """Score results against a set's ground truth; images outside the set do not count.

    Args:
        data: the images and their ground truth.
        results: as :func:`detect` returns them.
        backend: ``pycocotools``; ``faster`` (faster-coco-eval, same digits); ``auto``: the latter where it
            is installed.

    Raises:
        ConfigError: ``faster`` where it is not installed.
    """
    wanted = set(data.image_ids)
    truth = _rebased(data.ground_truth)
    kept = [
        {**one, "id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate((one for one in results if one["image_id"] in wanted), start=1)
    ]
    dataset, evaluation = _backend(backend)
    # Both libraries talk on standard output, which belongs to whoever asked for JSON.
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluation(_coco(dataset, truth), _coco(dataset, {**truth, "annotations": kept}), "bbox")
        found.evaluate()
        found.accumulate()
        found.summarize()
    stats = [float(value) for value in found.stats[:6]]
    # (IoU, recall, category, area range, detections): all areas, 100 detections.
    precision = np.asarray(found.eval["precision"])[:, :, :, 0, -1]
    names = {category.id: category.name for category in data.categories}
    per_class: dict[str, float] = {}
    for position, number in enumerate(found.params.catIds):
        values = precision[:, :, position]
        if (values > -1).any():
            per_class[names[int(number)]] = float(values[values > -1].mean())
    return Metrics(
        AP=stats[0],
        AP50=stats[1],
        AP75=stats[2],
        APs=stats[3],
        APm=stats[4],
        APl=stats[5],
        per_class=per_class,
    )


def _rebased(truth: Any) -> dict[str, Any]:
    """Annotation ids from 1: pycocotools takes id 0 for "no match" and loses the object."""
    annotations = [
        {
            **one,
            "id": number,
            "area": one.get("area", one["bbox"][2] * one["bbox"][3]),
            "iscrowd": one.get("iscrowd", 0),
        }
        for number, one in enumerate(truth["annotations"], start=1)
    ]
    return {**truth, "annotations": annotations}


def _coco(dataset: Callable[[], Any], content: dict[str, Any]) -> Any:
    # loadRes cannot take an empty list; an index built by hand can.
    coco = dataset()
    coco.dataset = content
    coco.createIndex()
    return coco


def _backend(name: Backend) -> tuple[Callable[[], Any], Callable[[Any, Any, str], Any]]:
    if name == "pycocotools":
        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        if name == "auto":
            return COCO, COCOeval
        raise ConfigError("the backend 'faster' needs: pip install faster-coco-eval") from error
    return FasterCOCO, COCOeval_faster
