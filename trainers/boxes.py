"""Boxes that were found in images, as rows of arrays."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import NonFiniteDetection


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Boxes that were found in images, a row each.

    Args:
        images: ids of their images (n,).
        categories: ids of their categories (n,).
        boxes: x, y, width and height in original px (n, 4).
        scores: (n,).
    """

    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def together(cls, parts: Sequence["Boxes"]) -> "Boxes":
        """The rows of one after those of the other; at least one part."""
        columns = (field.name for field in fields(cls))
        return cls(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in columns})

    @classmethod
    def of_results(cls, results: Sequence[Mapping[str, Any]]) -> "Boxes":
        """Those of results in COCO's form."""
        return cls(
            images=np.asarray([one["image_id"] for one in results], dtype=np.int64),
            categories=np.asarray([one["category_id"] for one in results], dtype=np.int64),
            boxes=np.asarray([one["bbox"] for one in results], dtype=np.float64).reshape(-1, 4),
            scores=np.asarray([one["score"] for one in results], dtype=np.float64),
        )

    def results(self) -> list[dict[str, Any]]:
        """The rows in COCO's result form."""
        columns = (one.tolist() for one in (self.images, self.categories, self.boxes, self.scores))
        return [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(*columns, strict=True)
        ]

    def of_images(self, ids: Collection[int]) -> "Boxes":
        """The rows of these images."""
        kept = np.isin(self.images, np.asarray(sorted(ids), dtype=np.int64))
        return Boxes(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})


def require_finite(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a box or a score that is NaN or infinite.

    Raises:
        NonFiniteDetection: names the image.
    """
    for one in results:
        if not math.isfinite(sum(one["bbox"]) + one["score"]):
            raise NonFiniteDetection(
                f"image {one['image_id']}: the detector found the box {one['bbox']} with the score {one['score']}; "
                "needed are finite numbers. Its training has diverged: lower the learning rate or lengthen the warm-up"
            )
