"""Instance masks from an annotation file to a batch and from a detector to COCO's segm AP."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from nas.config import check
from nas.recipes.train_job import TrainJobRecipe
from search_spaces.errors import ConfigError, DataError
from trainers.batches import Batches, flip, jitter_scale
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, Target, hold_out
from trainers.data.digits import write_folder
from trainers.data.masks import decode_masks, encode_mask, mask_area, read_mask, resized_mask
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detections
from trainers.evaluate import Backend, coco_metrics, detect
from trainers.recipes import DataRecipe, DetectorRecipe, DigitsRecipe, TrainRecipe

Change = Callable[[dict[str, Any]], None]
CPU = torch.device("cpu")
DIGITS = DataRecipe(
    source="digits",
    masks=True,
    digits=DigitsRecipe(train_images=6, val_images=3, image_size=96, min_side=24, max_side=80),
)


def disc(height: int, width: int, radius: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[:height, :width]
    return ((y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2).astype(np.uint8)


def overlap(first: Tensor, second: Tensor) -> float:
    both = (first.bool() & second.bool()).sum()
    return float(both / (first.bool() | second.bool()).sum())


def test_polygons_and_both_forms_of_run_lengths_are_one_mask() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 4:10] = 1
    mask[2:4, 20:29] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    runs, value = [0], 0
    for pixel in mask.flatten(order="F").tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    forms: list[Any] = [
        [[4, 5, 10, 5, 10, 15, 4, 15], [20, 2, 29, 2, 29.0, 4, 20, 4]],
        {"size": [20, 30], "counts": runs},
        {"size": [20, 30], "counts": compressed["counts"].decode()},
    ]
    found = [read_mask(form, (20, 30)) for form in forms]
    assert found[1] == found[2] == encode_mask(mask)
    for one in found:
        assert torch.equal(decode_masks([one], (20, 30))[0], torch.from_numpy(mask))
    assert mask_area(found[0]) == 78.0
    json.dumps(found[0])


@pytest.mark.parametrize("seed", range(6))
def test_compressed_run_lengths_are_read_as_pycocotools_reads_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.random((37, 53)) < (0.5, 0.02, 0.98, 0.3, 0.001, 0.9)[seed]
    noise[3, 4] = True
    mask = noise.astype(np.uint8)
    text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    found = read_mask({"size": [37, 53], "counts": text}, (37, 53))
    assert found["counts"] == text


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "is None; needed are polygons or run lengths"),
        ([], r"is \[\]; needed are polygons or run lengths"),
        ("abc", "is 'abc'; needed are polygons"),
        ([[1, 2, 3, 4]], r"polygon \[1, 2, 3, 4\]; needed are x and y of at least 3 points"),
        ([1, 2, 3, 4, 5, 6], "polygon 1; needed are x and y"),
        ([[1, 2, 3, 4, 5, 6, 7]], "needed are x and y"),
        ([[1, 2, 3, "4", 5, 6]], "needed are x and y"),
        ([[1, 2, 3, float("nan"), 5, 6]], "or is not finite"),
        ([[1, 2, 1e9, 4, 5, 6]], "leaves its image of 40x30 px by more than a whole side"),
        ([[1, 1, 1, 1, 1, 1]], "covers no pixel of its image of 40x30 px"),
        (
            {"size": [40, 30], "counts": [1200]},
            r"size \[40, 30\]; its image has \[height, width\] \[30, 40\]",
        ),
        ({"size": [30, 40], "counts": None}, "counts None; needed is a list of integers or a compressed"),
        ({"size": [30, 40], "counts": [1, 2.5]}, "needed is a list of integers"),
        ({"size": [30, 40], "counts": [600, 601]}, "do not add up to the 1200 pixels"),
        ({"size": [30, 40], "counts": [-1, 1201]}, "do not add up"),
        ({"size": [30, 40], "counts": "~~~"}, "has the character '~'"),
        ({"size": [30, 40], "counts": "o"}, "end within a number"),
        ({"size": [30, 40], "counts": "0oooo"}, "end within a number"),
        ({"size": [30, 40], "counts": "1111"}, "do not add up"),
        ({"size": [30, 40], "counts": [1200]}, "covers no pixel"),
    ],
)
def test_bad_segmentations_are_sentences(segmentation: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_mask(segmentation, (30, 40))


def test_a_mask_is_resized_with_its_image() -> None:
    mask = encode_mask(disc(90, 120, 30.0))
    half = resized_mask(mask, (45, 60), (64, 64))
    found = decode_masks([half], (64, 64))[0]
    assert overlap(found[:45, :60], torch.from_numpy(disc(45, 60, 15.0))) > 0.95
    assert not found[45:].any() and not found[:, 60:].any(), "padding belongs to nothing"
    speck = np.zeros((90, 120), np.uint8)
    speck[40, 60] = 1
    assert decode_masks([resized_mask(encode_mask(speck), (30, 40), (32, 64))], (32, 64)).sum() >= 1
    assert decode_masks([], (32, 64)).shape == (0, 32, 64)


@pytest.fixture
def folder(coco_folder: Callable[..., Path]) -> Callable[..., Path]:
    """The folder of three images with a segmentation for every annotation; ``change`` edits them."""

    def write(change: Change | None = None) -> Path:
        def outlined(content: dict[str, Any]) -> None:
            for one in content["annotations"]:
                x, y, width, height = one["bbox"]
                right, bottom = x + max(2, width), y + max(2, height)
                one["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]
            content["annotations"][3]["segmentation"] = {"size": [80, 60], "counts": [0, 40 * 60, 40 * 60]}
            if change is not None:
                change(content)

        return coco_folder(outlined)

    return write


def test_masks_of_a_folder(folder: Callable[..., Path]) -> None:
    data = open_split(DataRecipe(root=str(folder()), masks=True, image_size=200), "train")
    assert data.masks is not None and [len(one) for one in data.masks] == [2, 1, 0]
    target = data.target(0)
    assert target["masks"].shape == (2, *data.image_size) and target["masks"].dtype == torch.uint8
    box = target["boxes"][0].int().tolist()
    assert box == [20, 10, 60, 30] and target["masks"][0].sum() == 40 * 20
    assert target["masks"][0, 10:30, 20:60].all()
    assert target["masks"][1].sum() == 20 * 20, "cut off where its image ends"
    assert data.target(2)["masks"].shape == (0, *data.image_size)
    truth = {one["id"]: one["segmentation"] for one in data.ground_truth["annotations"]}
    assert truth[3]["size"] == [80, 60] and mask_area(truth[3]) == 2400.0, "a crowd, for evaluation only"
    part = data.subset([1])
    assert part.masks is not None and len(part.masks) == 1
    assert torch.equal(part.target(0)["masks"], data.target(1)["masks"])


def test_without_masks_segmentations_are_not_looked_at(folder: Callable[..., Path]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = "nonsense"

    data = open_split(DataRecipe(root=str(folder(spoil))), "train")
    assert data.masks is None and "masks" not in data.target(0)
    assert "segmentation" not in data.ground_truth["annotations"][0]


def test_a_bad_segmentation_names_its_annotation_and_can_be_skipped(folder: Callable[..., Path]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
        del content["annotations"][2]["segmentation"]

    recipe = DataRecipe(root=str(folder(spoil)), masks=True)
    with pytest.raises(DataError) as caught:
        open_split(recipe, "train")
    text = str(caught.value)
    assert "2 problem(s)" in text and "data.on_bad=skip" in text
    assert "annotation id 0 (image id 10, a.png): its segmentation has a polygon [1, 2, 3, 4]" in text
    assert "annotation id 2 (image id 11, sub/b.jpg): its segmentation is None" in text
    data = open_split(DataRecipe(root=recipe.root, masks=True, on_bad="skip"), "train")
    assert len(data.skipped) == 2 and data.num_objects == 1


def test_digits_have_the_masks_of_their_ink(tmp_path: Path) -> None:
    data = open_split(DIGITS, "train")
    assert data.masks is not None and data.num_objects == sum(len(one) for one in data.masks)
    for index in range(len(data)):
        target = data.target(index)
        assert (target["masks"].sum(0) <= 1).all(), "a pixel shows one digit"
        for mask, (left, top, right, bottom) in zip(target["masks"], target["boxes"].int(), strict=True):
            inside = mask[top:bottom, left:right]
            assert inside.sum() == mask.sum() and 0.1 < inside.float().mean() < 0.95
    bare = open_split(DataRecipe(source="digits", digits=DIGITS.digits), "train")
    assert torch.equal(bare.images, data.images)
    write_folder(DIGITS, tmp_path / "digits")
    read = open_split(DataRecipe(root=str(tmp_path / "digits"), masks=True), "train")
    assert read.masks == data.masks


def test_masks_are_mirrored_and_rescaled_with_their_boxes() -> None:
    data = open_split(DIGITS, "train")
    targets = [data.target(index) for index in range(len(data))]
    mirrored = flip(data.images, targets, [True] * len(data))[1]
    for before, after in zip(targets, mirrored, strict=True):
        assert torch.equal(after["masks"], before["masks"].flip(-1))
    contents = [data.content(index) for index in range(len(data))]
    for seed in range(5):
        _, moved = jitter_scale(data.images, targets, contents, (0.5, 1.6), Random(seed))
        for one in moved:
            assert len(one["masks"]) == len(one["boxes"])
            assert one["masks"].shape[1:] == data.images.shape[2:]
            for mask, (left, top, right, bottom) in zip(one["masks"], one["boxes"], strict=True):
                y, x = torch.nonzero(mask, as_tuple=True)
                assert x.min() >= left - 1.5 and x.max() <= right + 0.5
                assert y.min() >= top - 1.5 and y.max() <= bottom + 0.5
                assert mask.any()
    train = TrainRecipe(steps=1, batch_size=4, scale_jitter=(0.5, 1.5))
    first, second = (Batches(data, train, 3).at(2, CPU)[1] for _ in range(2))
    assert all(torch.equal(one["masks"], other["masks"]) for one, other in zip(first, second, strict=True))


class Oracle(torch.nn.Module):
    """Answers with given detections, image after image."""

    def __init__(self, answers: list[Detections]) -> None:
        super().__init__()
        self.answers = answers
        self.shown = 0

    def detections(self, images: Tensor) -> list[Detections]:
        start, self.shown = self.shown, self.shown + len(images)
        return self.answers[start : self.shown]


def perfect(data: DetectionSet, cells: int = 28) -> list[Detections]:
    """The truth, its masks cut into cells as a mask head gives them."""
    answers = []
    for index in range(len(data)):
        target = data.target(index)
        masks = torch.zeros(len(target["boxes"]), cells, cells)
        for place, (mask, box) in enumerate(zip(target["masks"], target["boxes"].int(), strict=True)):
            left, top, right, bottom = box.tolist()
            cut = mask[None, None, top:bottom, left:right].float()
            masks[place] = torch.nn.functional.interpolate(cut, (cells, cells), mode="bilinear")[0, 0]
        scores = torch.linspace(0.9, 0.8, len(masks))
        answers.append(Detections(boxes=target["boxes"], scores=scores, labels=target["labels"], masks=masks))
    return answers


@pytest.mark.parametrize("backend", ["pycocotools", "faster"])
def test_true_masks_score_high_and_wrong_ones_do_not(backend: Backend) -> None:
    # Twice as large in memory as the truth, so that masks come back to original pixels.
    recipe = DataRecipe(source="digits", masks=True, digits=DIGITS.digits, image_size=192)
    data = open_split(recipe, "val")
    results = detect(Oracle(perfect(data)), data, device=CPU)  # type: ignore[arg-type]
    assert results[0]["segmentation"]["size"] == [96, 96]
    found = coco_metrics(data, results, backend=backend)
    assert found.AP > 0.999 and found.masks is not None
    assert found.masks.AP50 > 0.999 and found.masks.AP > 0.8
    assert set(found.scalars()) == {
        *(name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")),
        *(f"mask_{name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")),
    }
    assert found.to_dict()["mask_per_class"] == found.masks.per_class
    wrong = perfect(data)
    for one in wrong:
        one["masks"] = 1 - one["masks"]
    worse = coco_metrics(data, detect(Oracle(wrong), data, device=CPU), backend=backend)  # type: ignore[arg-type]
    assert worse.AP > 0.999, "boxes are as they were"
    assert worse.masks is not None and worse.masks.AP < 0.2


def test_what_lies_in_the_padding_has_no_mask(folder: Callable[..., Path]) -> None:
    # A wide picture in a square: the lower half is padding, and a detector may find something there.
    recipe = DataRecipe(source="coco", root=str(folder()), masks=True, image_size=(128, 128))
    data = open_split(recipe, "train")
    height, width = data.sizes[0]
    scale = data.scales[0]
    corner = torch.tensor([width, height]) * scale
    boxes = torch.stack(
        [
            torch.tensor([4.0, 4.0, 30.0, 30.0]),
            torch.cat([corner, corner + 20]),
            torch.cat([corner - 0.01, corner + 20]),
            torch.tensor([-9.0, -9.0, 0.0, 0.0]),
        ]
    )
    one = Detections(
        boxes=boxes,
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        labels=torch.zeros(4, dtype=torch.int64),
        masks=torch.ones(4, 28, 28),
    )
    answers = [one] * len(data)
    results = detect(Oracle(answers), data, device=CPU)[:4]  # type: ignore[arg-type]
    areas = [mask_area(result["segmentation"]) for result in results]
    assert areas[0] > 100 and areas[1] == 0 and areas[3] == 0 and areas[2] <= 4
    bare = detect(Oracle(answers), data, device=CPU, masks=False)[:4]  # type: ignore[arg-type]
    assert bare == [{key: value for key, value in one.items() if key != "segmentation"} for one in results]


def test_both_libraries_agree_on_masks() -> None:
    data = open_split(DIGITS, "val")
    results = detect(Oracle(perfect(data, cells=5)), data, device=CPU)  # type: ignore[arg-type]
    first, second = (
        coco_metrics(data, results, backend=name).scalars() for name in ("pycocotools", "faster")
    )  # type: ignore[arg-type]
    assert first == pytest.approx(second, abs=1e-12)
    assert 0 < first["mask_AP"] < 1


def test_boxes_alone_are_scored_as_boxes() -> None:
    data = open_split(DIGITS, "val")
    results = detect(Oracle(perfect(data)), data, device=CPU)  # type: ignore[arg-type]
    bare = [{key: value for key, value in one.items() if key != "segmentation"} for one in results]
    assert coco_metrics(data, bare).masks is None
    nothing = coco_metrics(data, [])
    assert nothing.masks is not None and nothing.masks.AP == 0.0


def test_mask_rcnn_wants_masks(tiny_backbone: Callable[..., torch.nn.Module]) -> None:
    settings = {"name": "t", "train": {"steps": 1}}
    with pytest.raises(
        ConfigError, match=r"r: data\.masks: found False; allowed for detector mask_rcnn is true"
    ):
        check(TrainJobRecipe, {**settings, "detector": {"name": "mask_rcnn"}}, source="r")
    with pytest.raises(ConfigError, match=r"r: data\.masks: found True; allowed for detector fcos is false"):
        check(TrainJobRecipe, {**settings, "data": {"masks": True}}, source="r")
    both = {**settings, "data": {"masks": True}, "detector": {"name": "mask_rcnn"}}
    assert check(TrainJobRecipe, both, source="r").data.masks
    recipe = DetectorRecipe(name="mask_rcnn", fpn_channels=16, box_head=8, mask_convs=1)
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0)
    bare = Target(boxes=torch.tensor([[4.0, 4.0, 20.0, 20.0]]), labels=torch.tensor([0]), image_id=1)
    with pytest.raises(ConfigError, match=r"come without; open them with data\.masks: true"):
        detector.losses(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [bare])


def test_statistics_survive_a_batch_without_an_object(tiny_backbone: Callable[..., torch.nn.Module]) -> None:
    """Batch normalisation of no region at all would leave NaN for good."""
    recipe = DetectorRecipe(name="mask_rcnn", fpn_channels=16, box_head=8, mask_convs=2)
    detector = build_detector(recipe, tiny_backbone(), 2, (64, 64), seed=0).train()
    empty = Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        image_id=1,
        masks=torch.zeros(0, 64, 64, dtype=torch.uint8),
    )
    terms = detector.losses(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), [empty, empty])
    assert terms["loss_mask"].item() == 0.0
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(one).all() for one in detector.state_dict().values())


def test_a_real_set_with_masks(shared_data: Path) -> None:
    recipe = DataRecipe(root=str(shared_data / "nuclei-tiny"), masks=True)
    data = open_split(recipe, "val")
    results = detect(Oracle(perfect(data)), data, device=CPU)  # type: ignore[arg-type]
    metrics = coco_metrics(data, results)
    assert metrics.masks is not None and metrics.masks.AP50 > 0.95, metrics
    rest, held = hold_out(open_split(recipe, "train"), 0.25, seed=0)
    assert rest.masks is not None and held.masks is not None
    assert len(held.masks) == len(held) and len(rest.masks) == len(rest)


def test_real_polygons_and_crowds(shared_data: Path) -> None:
    data = open_split(DataRecipe(root=str(shared_data / "coco-cc"), masks=True, image_size=128), "val")
    crowds = [one for one in data.ground_truth["annotations"] if one["iscrowd"]]
    assert crowds and all(mask_area(one["segmentation"]) > 0 for one in crowds)
    results = [{**one, "score": 1.0} for one in data.ground_truth["annotations"] if not one["iscrowd"]]
    metrics = coco_metrics(data, results)
    assert metrics.masks is not None and metrics.masks.AP > 0.999
    assert Image.open(shared_data / "coco-cc" / "images" / data.file_names[0]).size[::-1] == data.sizes[0]
