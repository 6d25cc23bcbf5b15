"""AP of boxes alone, in a fraction of the time of all metrics: searches score thousands of candidates by it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from faster_coco_eval.core.mask import iou as overlaps
from numpy.typing import NDArray

from trainers.boxes import Boxes, require_finite
from trainers.evaluate import indexed, with_ids_from_one

# Of an image and category the best so many count.
_MOST = 100


class BoxAPs(NamedTuple):
    """AP of boxes as fractions, -1 without an object: as in :class:`Metrics`."""

    AP: float
    AP50: float
    AP75: float


class BoxTruth:
    """Ground truth for AP of boxes alone, in a fraction of the time: no ranges of area, no other numbers of
    detections, and what can be made once is made once for all that is found. Not for two threads at a time.

    Args:
        truth: a COCO dictionary.
    """

    def __init__(self, truth: Mapping[str, Any]) -> None:
        self._evaluation = _BoxesAlone(with_ids_from_one(truth))

    def aps(self, found: Boxes) -> BoxAPs:
        """AP of what was found in its images.

        Args:
            found: rows of its images only.

        Raises:
            NonFiniteDetection: see :func:`require_finite`.
        """
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            require_finite(found.results())
        precision = self._evaluation.precision(found)
        thresholds = np.asarray(self._evaluation.params.iouThrs)
        return BoxAPs(
            AP=_mean(precision),
            **{f"AP{at}": _mean(precision[np.isclose(thresholds, at / 100)]) for at in (50, 75)},
        )


class _BoxesAlone(COCOeval_faster):  # type: ignore[misc]
    """faster-coco-eval's evaluation of boxes that lie in arrays.

    Its own way makes a dictionary of every box three times, of the ground truth too, and an index of them, and takes
    their overlaps from lists; its matching, and what comes of it, are left as they are. What it asks of us are its two
    methods that are replaced here.

    Args:
        truth: a COCO dictionary, each object with ``area`` and ``iscrowd``.
    """

    def __init__(self, truth: Mapping[str, Any]) -> None:
        super().__init__(indexed(FasterCOCO, dict(truth)), None, "bbox", rle_iou_max_workers=1)
        self.params.areaRng, self.params.areaRngLbl = [[0, 1e10]], ["all"]
        self.params.maxDets = [_MOST]
        objects: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for one in truth["annotations"]:
            pair = (one["image_id"], one["category_id"])
            objects.setdefault(pair, []).append(one)
            self.gt_dataset.append_ref(*pair, {**one, "ignore": one["iscrowd"]})
        self._objects = {
            pair: (
                np.asarray([one["bbox"] for one in some], dtype=np.float64),
                [one["iscrowd"] for one in some],
            )
            for pair, some in objects.items()
        }
        self._found: dict[tuple[int, int], NDArray[np.float64]] = {}

    def precision(self, found: Boxes) -> NDArray[np.float64]:
        """By IoU, recall and category, and twice one place."""
        try:
            self._take(found)
            self.evaluate()
        finally:
            self.dt_dataset.clean()
            self._found = {}
            self.ious.clear()
        return np.asarray(self.eval["precision"])

    def _take(self, found: Boxes) -> None:
        areas = (found.boxes[:, 2] * found.boxes[:, 3]).tolist()
        columns = (found.images.tolist(), found.categories.tolist(), found.scores.tolist(), areas)
        rows: dict[tuple[int, int], list[int]] = {}
        for row, (image, category, score, area) in enumerate(zip(*columns, strict=True)):
            self.dt_dataset.append_ref(
                image, category, {"id": row + 1, "score": score, "area": area, "iscrowd": 0}
            )
            rows.setdefault((image, category), []).append(row)
        for pair in rows.keys() & self._objects.keys():
            # Stable, as COCO has it: of equal scores the first is the first.
            order = np.argsort(-found.scores[rows[pair]], kind="stable")[:_MOST]
            self._found[pair] = found.boxes[np.asarray(rows[pair])[order]]

    def _prepare(self) -> None:
        """Called by ``evaluate``: nothing is left to be read."""
        self._nonempty_iou_pairs = set(self._found)

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Overlaps of what was found, falling by score, with the objects; one image, one category."""
        pair = (imgId, catId)
        return overlaps(self._found[pair], *self._objects[pair]) if pair in self._found else []


def _mean(precision: Any) -> float:
    there = precision[precision > -1]
    return float(there.mean()) if len(there) else -1.0
