"""COCO average precision of boxes and masks: pycocotools is the reference, faster-coco-eval does the work."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from trainers.boxes import Boxes, require_finite
from trainers.data.detection_set import DetectionSet
from trainers.data.masks import Rle, encode_mask, mask_area
from trainers.detectors.detector import Detections, Detector
from trainers.precision import autocast
from trainers.recipes import Amp

Backend = Literal["faster", "pycocotools"]
Overlap = Literal["bbox", "segm"]

# Threads are the caller's to give.
_BACKENDS: Mapping[Backend, tuple[Callable[[], Any], Callable[[Any, Any, str], Any]]] = {
    "faster": (FasterCOCO, functools.partial(COCOeval_faster, rle_iou_max_workers=1)),
    "pycocotools": (COCO, COCOeval),
}
_HEADLINE = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_PROBABLE = 0.5
# Pixels of pasted masks at a time.
_PASTED = 2**24


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """COCO's metrics as fractions; -1 where the images hold no object of that kind (COCO's convention).

    By the overlap of boxes, and in ``masks`` the same by that of masks.

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95 and categories.
        AP50: at IoU 0.50.
        AP75: at IoU 0.75.
        APs: objects below 32^2 px of area.
        APm: objects of 32^2 to 96^2 px.
        APl: objects above 96^2 px.
        per_class: AP of every category that has an object.
        masks: of the masks, where set and detector have them.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    per_class: dict[str, float]
    masks: "Metrics | None" = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; what is said of masks has keys with ``mask_`` before them."""
        found: dict[str, Any] = {**self._headline(), "per_class": dict(self.per_class)}
        if self.masks is not None:
            found |= {f"mask_{name}": value for name, value in self.masks.to_dict().items()}
        return found

    def scalars(self) -> dict[str, float]:
        """The six headline numbers by name, ``mask_AP`` and so on after them where there are masks."""
        found = self._headline()
        if self.masks is not None:
            found |= {f"mask_{name}": value for name, value in self.masks.scalars().items()}
        return found

    def _headline(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in _HEADLINE}


@torch.no_grad()
def detect(
    detector: Detector,
    data: DetectionSet,
    *,
    batch_size: int = 16,
    device: torch.device,
    amp: Amp = "off",
    masks: bool = True,
) -> list[dict[str, Any]]:
    """Detections in COCO's result form, in original px; the detector's mode is as before afterwards.

    Args:
        detector: on ``device``.
        data: images to look at.
        batch_size: images at a time; results do not depend on it beyond rounding.
        device: where the detector is.
        amp: as in training.
        masks: bring them to the size of their images too, where the detector has any; ten times the work of the boxes.
    """
    was_training = detector.training
    switched = any(module.training for module in detector.modules())
    if switched:
        detector.eval()
    try:
        return detect_evaluating(detector, data, batch_size=batch_size, device=device, amp=amp, masks=masks)
    finally:
        if switched:
            detector.train(was_training)


def detect_evaluating(
    detector: Detector,
    data: DetectionSet,
    *,
    batch_size: int = 16,
    device: torch.device,
    amp: Amp = "off",
    masks: bool = True,
) -> list[dict[str, Any]]:
    """:func:`detect` with a detector whose every part is in evaluation mode, which is not looked at."""
    found: dict[int, list[dict[str, Any]]] = {}
    for chosen, outputs in _looked_at(detector, data, batch_size, device, amp):
        for index, one in zip(chosen, outputs, strict=True):
            found[index] = _results(data, index, one, masks=masks)
    return [one for index in range(len(data)) for one in found[index]]


def boxes_evaluating(
    detector: Detector,
    data: DetectionSet,
    *,
    batch_size: int = 16,
    device: torch.device,
    amp: Amp = "off",
) -> Boxes:
    """The boxes of :func:`detect_evaluating`, to the bit, without an object for each of them: a supernet has thousands
    of parts, and a search comes here for every batch."""
    parts = [
        _boxes(data, chosen, outputs)
        for chosen, outputs in _looked_at(detector, data, batch_size, device, amp)
    ]
    return Boxes.together(parts)


@torch.no_grad()
def _looked_at(
    detector: Detector, data: DetectionSet, batch_size: int, device: torch.device, amp: Amp
) -> Iterator[tuple[Sequence[int], list[Detections]]]:
    """Places of the images of a batch, and what is found in each of them."""
    for chosen in data.batches(batch_size):
        images = data.padded(chosen, data.padded_size(chosen))
        with autocast(device, amp):
            outputs = detector.detections(images.to(device))
        yield chosen, outputs


def _boxes(data: DetectionSet, chosen: Sequence[int], found: Sequence[Detections]) -> Boxes:
    """Detections of some images as rows; the same arithmetic as :func:`_results`."""
    counts = [len(one["scores"]) for one in found]
    whose = np.repeat(np.asarray(chosen, dtype=np.int64), counts)
    corners = torch.cat([one["boxes"] for one in found]).double().cpu().numpy()
    corners = corners / np.tile(data.scales.numpy()[whose], 2)
    limits = np.asarray(data.sizes, dtype=np.float64)[:, ::-1][whose]
    corners = np.clip(corners, 0.0, np.tile(limits, 2))
    corners[:, 2:] -= corners[:, :2]
    ids = np.asarray([one["image_id"] for one in data.targets], dtype=np.int64)
    categories = np.asarray([category.id for category in data.categories], dtype=np.int64)
    return Boxes(
        images=ids[whose],
        categories=categories[torch.cat([one["labels"] for one in found]).cpu().numpy()],
        boxes=corners,
        scores=torch.cat([one["scores"] for one in found]).double().cpu().numpy(),
    )


def coco_results(
    data: DetectionSet, found: Sequence[Detections], *, masks: bool = True
) -> list[dict[str, Any]]:
    """Detections of all images of a set, however they came about, in COCO's result form and original px."""
    return [result for index, one in enumerate(found) for result in _results(data, index, one, masks=masks)]


def _results(data: DetectionSet, index: int, found: Detections, *, masks: bool) -> list[dict[str, Any]]:
    height, width = data.sizes[index]
    corners = found["boxes"].double().cpu() / data.scales[index].repeat(2)
    outlines: list[dict[str, Any]] = [{}] * len(corners)
    if masks and "masks" in found:
        pasted = _pasted(found["masks"].float().cpu(), corners.float(), (height, width))
        outlines = [{"segmentation": one} for one in pasted]
    corners[:, 0::2] = corners[:, 0::2].clamp(0, width)
    corners[:, 1::2] = corners[:, 1::2].clamp(0, height)
    corners[:, 2:] -= corners[:, :2]
    image_id = data.targets[index]["image_id"]
    ids = [category.id for category in data.categories]
    scores, labels = found["scores"].tolist(), found["labels"].tolist()
    return [
        {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score, **outline}
        for box, score, label, outline in zip(corners.tolist(), scores, labels, outlines, strict=True)
    ]


def _pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Rle]:
    """Masks (n, M, M) of probabilities inside boxes (n, 4) -> masks of an image of (height, width) px."""
    found: list[Rle] = []
    step = max(1, _PASTED // (size[0] * size[1]))
    # Of what was found in the padding nothing is left, and torchvision cannot paste it.
    seen = (boxes[:, :2] < boxes.new_tensor([size[1], size[0]])).all(1) & (boxes[:, 2:] > 0).all(1)
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        whole = torch.zeros((len(masks[part]), *size), dtype=torch.bool)
        if (here := seen[part]).any():
            pasted = paste_masks_in_image(masks[part][here][:, None], boxes[part][here], size)
            whole[here] = pasted[:, 0] > _PROBABLE
        found += [encode_mask(one.numpy().astype(np.uint8)) for one in whole]
    return found


def coco_metrics(
    data: DetectionSet, results: Sequence[dict[str, Any]], *, backend: Backend = "faster"
) -> Metrics:
    """Score results against a set's ground truth; images outside the set do not count.

    Masks are scored too where the set has them and every result has one.

    Args:
        data: the images and their ground truth.
        results: as :func:`detect` returns them.
        backend: ``faster`` is faster-coco-eval; ``pycocotools`` gives the same matches, recalls and scores, and
            precisions that are the same to 2.3e-16 (docs/decisions/0012-metric-in-compiled-code.md).

    Raises:
        NonFiniteDetection: a box or score that is NaN or infinite; to pycocotools such a box fits any object.
    """
    wanted = set(data.image_ids)
    kept = [one for one in results if one["image_id"] in wanted]
    require_finite(kept)
    found = _metrics(data, evaluated(data, kept, backend=backend, overlap="bbox"))
    if data.masks is None or not all("segmentation" in one for one in kept):
        return found
    masks = _metrics(data, evaluated(data, kept, backend=backend, overlap="segm"))
    return replace(found, masks=masks)


def evaluated(
    data: DetectionSet, results: Sequence[dict[str, Any]], *, backend: Backend, overlap: Overlap
) -> Any:
    """The library's evaluation object after its summary, for whoever needs more than :class:`Metrics`.

    Args:
        data: the images and their ground truth.
        results: of these images only.
        backend: as for :func:`coco_metrics`.
        overlap: of boxes or of masks.
    """
    dataset, evaluation = _BACKENDS[backend]
    # pycocotools talks on standard output, which belongs to whoever asked for JSON.
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluation(*_pair(dataset, data.ground_truth, results, overlap), overlap)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found


def _pair(
    dataset: Callable[[], Any],
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    overlap: Overlap,
) -> tuple[Any, Any]:
    """Ground truth and results as a library's objects."""
    truth = with_ids_from_one(ground_truth)
    return indexed(dataset, truth), indexed(dataset, {**truth, "annotations": _numbered(results, overlap)})


def _numbered(results: Sequence[Mapping[str, Any]], overlap: Overlap) -> list[dict[str, Any]]:
    return [
        {
            **one,
            "id": number,
            "area": one["bbox"][2] * one["bbox"][3] if overlap == "bbox" else mask_area(one["segmentation"]),
            "iscrowd": 0,
        }
        for number, one in enumerate(results, start=1)
    ]


def _metrics(data: DetectionSet, found: Any) -> Metrics:
    stats = [float(value) for value in found.stats[:6]]
    # (IoU, recall, category, area range, detections): all areas, 100 detections.
    precision = np.asarray(found.eval["precision"])[:, :, :, 0, -1]
    names = {category.id: category.name for category in data.categories}
    per_class: dict[str, float] = {}
    for position, number in enumerate(found.params.catIds):
        values = precision[:, :, position]
        if (values > -1).any():
            per_class[names[int(number)]] = float(values[values > -1].mean())
    return Metrics(**dict(zip(_HEADLINE, stats, strict=True)), per_class=per_class)  # type: ignore[arg-type]


def with_ids_from_one(truth: Mapping[str, Any]) -> dict[str, Any]:
    """With annotation ids from 1: pycocotools takes id 0 for "no match" and loses the object."""
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


def indexed(dataset: Callable[[], Any], content: dict[str, Any]) -> Any:
    """A COCO dictionary as a library's object."""
    # loadRes cannot take an empty list; an index built by hand can.
    coco = dataset()
    coco.dataset = content
    coco.createIndex()
    return coco
