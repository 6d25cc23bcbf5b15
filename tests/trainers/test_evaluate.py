"""COCO metrics with known answers, from either library, and boxes back in original pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.errors import NonFiniteDetection
from trainers.box_truth import BoxTruth
from trainers.boxes import Boxes
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet, Target
from trainers.detectors.detector import Detections
from trainers.evaluate import Backend, boxes_evaluating, coco_metrics, detect

# (image, category, x, y, width, height): two images, six objects, four of category 5 and two of 9.
OBJECTS = (
    (1, 5, 10, 10, 40, 40),
    (1, 5, 100, 20, 20, 60),
    (1, 9, 30, 120, 120, 40),
    (2, 5, 5, 90, 80, 80),
    (2, 5, 120, 120, 12, 12),
    (2, 9, 100, 10, 40, 20),
)


@pytest.fixture(params=["pycocotools", "faster"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param  # type: ignore[no-any-return]


def scene(scale: float = 1.0, first_id: int = 0) -> DetectionSet:
    side = round(200 * scale)
    pictures = [
        (
            ImageEntry(id=number, file_name=f"{number}.png", size=None),
            np.zeros((side, side, 3), np.uint8),
            (200, 200),
        )
        for number in (1, 2)
    ]
    boxes = tuple(
        BoxEntry(
            id=first_id + index,
            image_id=image,
            category_id=category,
            box=box,
            area=box[2] * box[3],
            crowd=False,
        )
        for index, (image, category, *box) in enumerate(OBJECTS)  # type: ignore[assignment]
    )
    return assemble(
        pictures=pictures,
        boxes=boxes,
        categories=(Category(5, "a"), Category(9, "b")),
        canvas=None,
        digest="scene",
    )


def found(index: int, score: float = 0.9, shift: float = 0.0) -> dict[str, Any]:
    image, category, x, y, width, height = OBJECTS[index]
    box = [x + shift * width, y, width, height]
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def scored(data: DetectionSet, results: list[dict[str, Any]], backend: Backend = "faster") -> float:
    return coco_metrics(data, results, backend=backend).AP


def test_perfect_detections_even_where_ids_start_at_zero(backend: Backend) -> None:
    metrics = coco_metrics(scene(), [found(index) for index in range(6)], backend=backend)
    assert metrics.per_class == pytest.approx({"a": 1.0, "b": 1.0})
    no_object = -1.0
    expected = {"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "APs": 1.0, "APm": 1.0, "APl": no_object}
    assert metrics.scalars() == pytest.approx(expected)


def test_half_of_the_objects(backend: Backend) -> None:
    assert scored(scene(), [found(0), found(3), found(2)], backend) == pytest.approx(0.505, abs=5e-4)


def test_one_false_positive_above_all(backend: Backend) -> None:
    extra = {"image_id": 1, "category_id": 5, "bbox": [150, 150, 30, 30], "score": 0.99}
    results = [extra, *(found(index) for index in range(6))]
    assert scored(scene(), results, backend) == pytest.approx(0.9, abs=1e-6)


def test_boxes_shifted_by_a_quarter(backend: Backend) -> None:
    metrics = coco_metrics(scene(), [found(index, shift=0.25) for index in range(6)], backend=backend)
    first = list(metrics.scalars().values())[:3]
    assert first == pytest.approx([0.3, 1.0, 0.0], abs=1e-6)


def test_no_detection_is_zero_not_an_error(backend: Backend) -> None:
    metrics = coco_metrics(scene(), [], backend=backend)
    assert (metrics.AP, metrics.AP50, metrics.AP75, metrics.APs) == (0.0, 0.0, 0.0, 0.0)
    assert metrics.per_class == {"a": 0.0, "b": 0.0}


def test_a_subset_is_scored_on_its_own_images(backend: Backend) -> None:
    part = scene().subset([1])
    results = [found(index) for index in range(6)]
    assert scored(part, results, backend) == pytest.approx(1.0)
    assert scored(part, results[:3], backend) == 0.0


def test_results_are_not_changed_and_nothing_is_printed(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [found(0)]
    coco_metrics(scene(), results, backend=backend)
    assert results == [found(0)]
    assert capsys.readouterr().out == ""


def test_crowds_forgive_detections(backend: Backend) -> None:
    data = scene()
    data.ground_truth["annotations"].append(
        {"id": 50, "image_id": 1, "category_id": 5, "bbox": [140, 140, 60, 60], "area": 3600, "iscrowd": 1}
    )
    inside = {"image_id": 1, "category_id": 5, "bbox": [150, 150, 20, 20], "score": 0.99}
    results = [inside, *(found(index) for index in range(6))]
    assert scored(data, results, backend) == pytest.approx(1.0)


class Oracle(torch.nn.Module):
    """Answers with the targets of the images it is shown, in order."""

    def __init__(self, targets: tuple[Target, ...]) -> None:
        super().__init__()
        self.targets = list(targets)

    def detections(self, images: Tensor) -> list[Detections]:
        assert not self.training
        now, self.targets = self.targets[: len(images)], self.targets[len(images) :]
        return [
            Detections(
                boxes=one["boxes"], scores=torch.full((len(one["labels"]),), 0.8), labels=one["labels"]
            )
            for one in now
        ]


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_detections_come_back_in_original_pixels(scale: float, batch_size: int) -> None:
    data = scene(scale)
    oracle = Oracle(data.targets).train()
    results = detect(oracle, data, batch_size=batch_size, device=torch.device("cpu"))  # type: ignore[arg-type]
    assert oracle.training, "the mode is as before"
    assert results[0]["bbox"] == pytest.approx([10, 10, 40, 40], abs=1e-4)
    assert {one["category_id"] for one in results} == {5, 9}
    assert scored(data, results) == pytest.approx(1.0)


def test_boxes_in_the_padding_are_cut_at_the_image(squares: Callable[..., DetectionSet]) -> None:
    data = scene(0.5)
    wide = Target(boxes=torch.tensor([[90.0, 90.0, 128.0, 128.0]]), labels=torch.tensor([0]), image_id=1)
    empty = Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), image_id=2)
    results = detect(Oracle((wide, empty)), data, device=torch.device("cpu"))  # type: ignore[arg-type]
    assert [one["bbox"] for one in results] == [[180, 180, 20, 20]]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_rows_are_the_results_to_the_bit(batch_size: int) -> None:
    data = scene(1.6)
    spread = torch.Generator().manual_seed(3)
    found = tuple(
        Target(
            # Some reach out of the image, on every side.
            boxes=torch.rand(number, 4, generator=spread) * 300 - 60 + torch.tensor([0.0, 0.0, 90.0, 90.0]),
            labels=torch.randint(2, (number,), generator=spread),
            image_id=image,
        )
        for image, number in ((1, 40), (2, 0))
    )
    cpu = torch.device("cpu")
    for targets in (found, (found[1], found[1])):
        results = detect(Oracle(targets), data, batch_size=batch_size, device=cpu)  # type: ignore[arg-type]
        oracle = Oracle(targets).eval()
        rows = boxes_evaluating(oracle, data, batch_size=batch_size, device=cpu)  # type: ignore[arg-type]
        assert rows.results() == results == Boxes.of_results(results).results()
        assert len(rows) == len(results)
        assert rows.of_images({2}).results() == [one for one in results if one["image_id"] == 2]
        ap = BoxTruth(data.ground_truth).aps(rows)
        assert ap.AP == coco_metrics(data, results).AP


@pytest.mark.parametrize("column", ["boxes", "scores"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_refused(column: str, value: float) -> None:
    data = scene()
    rows = Boxes.of_results([{"image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5}])
    getattr(rows, column)[..., -1] = value
    with pytest.raises(NonFiniteDetection, match="image 2: the detector found"):
        BoxTruth(data.ground_truth).aps(rows)
