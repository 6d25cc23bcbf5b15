"""The compiled metric against pycocotools: the same matches to the last bit, precisions but for one rounding.

pycocotools divides by tp + fp + 2.2e-16, which changes the quotient of the very first detection alone: 1 becomes
0.9999999999999998. Everything else is compared with ==.
"""

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from search_spaces.errors import NonFiniteDetection
from trainers.box_truth import BoxTruth
from trainers.boxes import Boxes
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet
from trainers.data.masks import Mask, encode_mask, mask_area, read_mask
from trainers.evaluate import Backend, Overlap, coco_metrics, evaluated

SIDE = 200
IMAGES = (0, 3, 9, 42, 5_000_000_000)
CATEGORIES = (2, 7, 11, 90)
OUTSIDE = 91
BELOW_ONE = 1 / (1 + np.spacing(1))
ROUNDING = 1e-15
Result = dict[str, Any]


def ellipse(box: tuple[float, ...]) -> Mask:
    x, y, width, height = box
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    across = (columns - x - width / 2) / (width / 2 + 0.01)
    down = (rows - y - height / 2) / (height / 2 + 0.01)
    return (across**2 + down**2 <= 1).astype(np.uint8)


def a_set(boxes: list[BoxEntry], images: tuple[int, ...] = IMAGES, *, masks: bool = False) -> DetectionSet:
    pixels = np.zeros((32, 32, 3), np.uint8)
    return assemble(
        pictures=[
            (ImageEntry(id=one, file_name=f"{one}.png", size=None), pixels, (SIDE, SIDE)) for one in images
        ],
        boxes=tuple(boxes),
        categories=tuple(Category(one, f"c{one}") for one in CATEGORIES),
        canvas=None,
        digest="made up",
        masks=masks,
    )


def an_object(image: int, category: int, box: tuple[float, ...], **more: Any) -> BoxEntry:
    known = {"id": 0, "area": box[2] * box[3], "crowd": False}
    return BoxEntry(image_id=image, category_id=category, box=box, **{**known, **more})  # type: ignore[arg-type]


def a_result(
    image: int, category: int, box: tuple[float, ...], score: float, *, masks: bool = False
) -> Result:
    outline = {"segmentation": encode_mask(ellipse(box))} if masks else {}
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score, **outline}


def random_box(rng: np.random.Generator, grid: bool) -> tuple[float, ...]:
    # On a grid many overlaps are equal, and sides of 32 and 96 lie on the edge between two areas.
    if grid:
        width, height = (int(side) for side in rng.choice([8, 16, 32, 64, 96], 2))
        return (
            4 * int(rng.integers(0, (SIDE - width) // 4)),
            4 * int(rng.integers(0, (SIDE - height) // 4)),
            width,
            height,
        )
    width, height = rng.uniform(1, 110, 2)
    return tuple(map(float, (rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height), width, height)))


def random_scene(seed: int, *, masks: bool = False) -> tuple[DetectionSet, list[Result]]:
    """Objects and detections with everything on which two libraries could part.

    Crowds, objects twice, categories and images without objects or detections, categories outside the set, equal
    scores and overlaps, areas on the edges of the ranges, more than 100 detections, boxes without a width.
    """
    rng = np.random.default_rng(seed)
    grid = bool(rng.integers(2))
    objects: list[BoxEntry] = []
    for image in IMAGES[1:]:
        for _ in range(int(rng.integers(0, 9))):
            box = random_box(rng, grid)
            more: dict[str, Any] = {"crowd": bool(rng.random() < 0.2)}
            if rng.random() < 0.3:
                more["area"] = float(rng.choice([1023.999, 1024, 9216, 9216.001]))
            if masks:
                x, y, width, height = box
                corners = [x, y, x + width, y, x + width, y + height, x + 0.3 * width, y + 0.8 * height]
                flat = rng.random() < 0.5 and min(width, height) > 4
                more["mask"] = (
                    read_mask([corners], (SIDE, SIDE))
                    if flat
                    else read_mask(encode_mask(ellipse(box)), (SIDE, SIDE))
                )
            objects.append(an_object(image, int(rng.choice(CATEGORIES[:-1])), box, **more))
            if rng.random() < 0.2:
                objects.append(an_object(image, objects[-1].category_id, box, **{**more, "crowd": grid}))
    results: list[Result] = []
    most = 300 if seed % 4 == 0 and not masks else 25
    for image in IMAGES[:-1]:
        here = [one for one in objects if one.image_id == image]
        for _ in range(int(rng.integers(0, most))):
            box, category = random_box(rng, grid), int(rng.choice([*CATEGORIES, OUTSIDE]))
            if here and rng.random() < 0.7:
                known = here[int(rng.integers(len(here)))]
                shift = int(rng.integers(-2, 3)) / 8 if grid else float(rng.normal(0, 0.15))
                x, y, width, height = known.box
                box = (x + shift * width, y, width * float(rng.choice([0, 0.5, 1, 1, 1, 1])), height)
                category = known.category_id
            score = float(rng.choice([0.1, 0.5, 0.9]) if rng.random() < 0.5 else np.float32(rng.random()))
            results.append(a_result(image, category, box, score, masks=masks))
    rng.shuffle(results)  # type: ignore[arg-type]
    return a_set(objects, masks=masks), results


def agree(data: DetectionSet, results: list[Result], overlap: Overlap = "bbox") -> Any:
    """Everything that both libraries say, and pycocotools' object."""
    reference, quick = (
        evaluated(data, results, backend=name, overlap=overlap) for name in ("pycocotools", "faster")
    )
    assert quick.params.iouThrs.tolist() == reference.params.iouThrs.tolist()
    assert quick.params.maxDets == reference.params.maxDets == [1, 10, 100]
    for what in ("recall", "scores"):
        np.testing.assert_array_equal(quick.eval[what], reference.eval[what], err_msg=what)
    expected = np.asarray(reference.eval["precision"])
    np.testing.assert_array_equal(quick.eval["precision"], np.where(expected == BELOW_ONE, 1.0, expected))
    np.testing.assert_allclose(quick.stats[:12], reference.stats, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(np.equal(quick.stats[:12], -1), np.equal(reference.stats, -1))
    first, second = (coco_metrics(data, results, backend=name) for name in ("pycocotools", "faster"))
    assert second.scalars() == pytest.approx(first.scalars(), rel=0, abs=ROUNDING)
    assert second.per_class == pytest.approx(first.per_class, rel=0, abs=ROUNDING)
    return reference


@pytest.mark.parametrize("seed", range(16))
def test_boxes_of_random_scenes(seed: int) -> None:
    data, results = random_scene(seed)
    agree(data, results)
    known = set(data.image_ids)
    kept = [one for one in results if one["image_id"] in known]
    truth, whole = BoxTruth(data.ground_truth), coco_metrics(data, results)
    assert truth.aps(Boxes.of_results(kept)) == (whole.AP, whole.AP50, whole.AP75)
    # Nothing of what it was asked before stays in it.
    for part in ([], kept[::2], kept):
        alone, whole = truth.aps(Boxes.of_results(part)), coco_metrics(data, part)
        assert alone == (whole.AP, whole.AP50, whole.AP75)


@pytest.mark.parametrize("seed", range(6))
def test_masks_of_random_scenes(seed: int) -> None:
    data, results = random_scene(100 + seed, masks=True)
    agree(data, results, "segm")
    agree(data, results, "bbox")


def test_the_random_scenes_hold_what_they_are_made_for() -> None:
    seen: Counter[str] = Counter()
    for seed in range(16):
        data, results = random_scene(seed)
        truth = data.ground_truth["annotations"]
        each = Counter((one["image_id"], one["category_id"]) for one in results)
        seen["crowds"] += sum(one["iscrowd"] for one in truth)
        seen["more than 100"] += sum(count > 100 for count in each.values())
        seen["equal scores"] += len(results) - len({one["score"] for one in results})
        seen["edges of areas"] += sum(one["area"] in (1024, 9216) for one in truth)
        seen["absent categories"] += len(set(CATEGORIES) - {one["category_id"] for one in truth})
        seen["outside"] += each[IMAGES[1], OUTSIDE]
        seen["no width"] += sum(one["bbox"][2] == 0 for one in results)
        seen["empty images"] += sum(one not in {each["image_id"] for each in truth} for one in IMAGES)
    assert len(seen) == 8 and min(seen.values()) > 0, seen


def test_of_more_than_100_equal_scores_the_first_count() -> None:
    data = a_set([an_object(3, 2, (10, 10, 40, 40))])
    wrong = [a_result(3, 2, (120, 120, 40, 40), 0.5) for _ in range(130)]
    for position, share in ((0, 1.0), (99, 0.01), (100, 0.0), (129, 0.0)):
        results = [*wrong]
        results.insert(position, a_result(3, 2, (10, 10, 40, 40), 0.5))
        assert agree(data, results).stats[1] == pytest.approx(share), position


def test_equal_scores_in_two_images_go_by_the_image() -> None:
    data = a_set([an_object(image, 2, (10, 10, 40, 40)) for image in (3, 9)])
    right, wrong = a_result(9, 2, (10, 10, 40, 40), 0.5), a_result(3, 2, (120, 120, 40, 40), 0.5)
    for results in ([right, wrong], [wrong, right]):
        assert 0.25 < agree(data, results).stats[1] < 0.26, "the wrong one is first"


def test_of_two_objects_with_equal_overlap_one_is_left_for_the_next_detection() -> None:
    box = (10.0, 10.0, 40.0, 40.0)
    data = a_set([an_object(3, 2, box), an_object(3, 2, box), an_object(3, 2, box, crowd=True)])
    results = [a_result(3, 2, box, score) for score in (0.9, 0.8, 0.7, 0.7)]
    assert agree(data, results).stats[0] == pytest.approx(1.0), "the others lie in the crowd"


@pytest.mark.parametrize(("side", "area"), [(32, "both"), (31.9, "small"), (96, "both"), (96.1, "large")])
def test_an_area_on_an_edge_counts_on_both_sides(side: float, area: str) -> None:
    box = (10.0, 10.0, float(side), float(side))
    stats = agree(a_set([an_object(3, 2, box)]), [a_result(3, 2, box, 0.9)]).stats
    held = stats[3:6] > -1
    assert held.sum() == (2 if area == "both" else 1)
    assert held[{"small": 0, "large": 2, "both": 1}[area]]


def test_overlaps_that_are_a_threshold_count() -> None:
    data = a_set([an_object(3, 2, (0, 0, 100, 100))])
    for share in range(50, 100, 5):
        # A part of the object: its overlap is its share.
        reached = agree(data, [a_result(3, 2, (0, 0, share, 100), 0.9)]).eval["recall"][:, 0, 0, 2]
        assert reached.sum() == (share - 45) / 5, share


def test_nothing_found_and_nothing_there() -> None:
    one = an_object(3, 2, (10, 10, 40, 40))
    right = a_result(3, 2, (10, 10, 40, 40), 0.9)
    assert agree(a_set([one]), []).stats[0] == 0.0
    assert agree(a_set([]), [right]).stats[0] == -1.0
    assert agree(a_set([]), []).stats[0] == -1.0
    assert agree(a_set([an_object(3, 2, (10, 10, 40, 40), crowd=True)]), [right]).stats[0] == -1.0
    assert agree(a_set([one]), [{**right, "category_id": OUTSIDE}]).stats[0] == 0.0
    assert agree(a_set([one]), [right, a_result(3, 7, (10, 10, 40, 40), 0.9)]).stats[0] == pytest.approx(1.0)
    assert set(coco_metrics(a_set([one]), [right]).per_class) == {"c2"}


def test_polygons_that_were_never_made_run_lengths() -> None:
    data, results = random_scene(200, masks=True)
    changed = 0
    for one in data.ground_truth["annotations"]:
        x, y, width, height = one["bbox"]
        if not one["iscrowd"]:
            one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            changed += 1
    assert changed
    agree(data, results, "segm")


def test_masks_without_a_pixel() -> None:
    box = (10.0, 10.0, 40.0, 40.0)
    data = a_set([an_object(3, 2, box, mask=encode_mask(ellipse(box)))], masks=True)
    empty = {**a_result(3, 2, box, 0.95), "segmentation": encode_mask(np.zeros((SIDE, SIDE), np.uint8))}
    assert mask_area(empty["segmentation"]) == 0
    assert 0 < agree(data, [empty, a_result(3, 2, box, 0.9, masks=True)], "segm").stats[0] < 0.6


def test_scoring_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has the cores that its recipe gives it, and the others are at work on theirs."""
    data, results = random_scene(100, masks=True)

    def refuse(_: threading.Thread) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert coco_metrics(data, results).masks is not None


@pytest.mark.parametrize("backend", ["faster", "pycocotools"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(backend: Backend, value: float) -> None:
    data = a_set([an_object(3, 2, (10, 10, 40, 40))])
    good = a_result(3, 2, (10, 10, 40, 40), 0.9)
    for bad in ({**good, "score": value}, {**good, "bbox": [10, 10, value, 40]}):
        with pytest.raises(NonFiniteDetection, match=r"image 3: .*(nan|inf).*training has diverged"):
            coco_metrics(data, [good, bad], backend=backend)
