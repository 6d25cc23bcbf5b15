"""Whole detectors leave as files that find the same objects; what cannot leave is said."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms

from nas.export import pt2_loader
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.export.detections import compare_ap, compare_detections
from nas.export.detector_files import _checks, _of_images, onnx_detector, torch_export_detector
from nas.export.formats import export_formats
from nas.export.onnx_file import OnnxModel
from nas.export.pooling import pooled
from nas.export.subject import Subject
from nas.export.suppression import float_at_most, kept_of_each_class
from nas.export.two_stage_graph import TwoStage
from nas.export.work import Work
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import family_of
from search_spaces.errors import RunError
from trainers.data.catalog import open_split
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detections, Detector
from trainers.evaluate import coco_results
from trainers.recipes import DataRecipe, DetectorRecipe, DigitsRecipe

SIZE = (64, 64)
DATA = DataRecipe(
    source="digits",
    digits=DigitsRecipe(
        train_images=4, val_images=9, image_size=64, min_side=24, max_side=56, classes=(1, 7)
    ),
)


def small() -> Architecture:
    settings = {"block": "basic", "widths": [8, 8, 8, 8], "stem": "small", "groups": 1, "width_per_group": 64}
    genes = {"blocks": [1, 1, 1, 1], "dilations": [1, 1, 1, 1]}
    return Architecture(family="crnas.resnet", settings=Genes(settings), genes=Genes(genes))


def detector(name: Any, **fields: Any) -> Detector:
    """One whose weights were moved, so that it finds a lot."""
    values = {
        "fpn_channels": 8,
        "levels": ("c3", "c4", "c5"),
        "head_convs": 1,
        "score_threshold": 0.02,
        **fields,
    }
    recipe = DetectorRecipe(name=name, **values)
    found = build_detector(recipe, family_of(small()).build(small(), seed=1), 2, SIZE, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for one in found.parameters():
            one.add_(0.05 * torch.randn_like(one))
    return found.eval()


def subject(one: Detector) -> Subject:
    data = open_split(DATA, "val")
    return Subject(
        architecture=small(),
        backbone=one.backbone.body,
        image_size=SIZE,
        images=data.images,
        on="9 images of val",
        detector=one,
        categories=("1", "7"),
        data=data,
    )


def folder_of(one: Subject, to: Path) -> Path:
    return export_bundle(one.architecture, one.backbone.state_dict(), to, Card(title="Test"))


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_a_one_stage_detector_leaves_whole_in_both_formats(name: str, tmp_path: Path) -> None:
    fields = {"anchor_scale": 3.0, "norm_eps": 0.05, "norm_momentum": 0.01} if name == "retinanet" else {}
    one = subject(detector(name, **fields))
    to = folder_of(one, tmp_path / "bundle")
    work = Work(one, to)
    onnx_detector(work)
    torch_export_detector(work)
    assert work.left_out == []
    files = {artefact.file: artefact for artefact in work.artefacts}
    for name in ("detector.onnx", "detector.pt2"):
        checks = {check.of: check for check in files[name].checks}
        assert checks["boxes"].difference <= checks["boxes"].limit == 0.01
        assert checks["scores"].difference <= checks["scores"].limit == 1e-4
        assert checks["AP"].difference <= checks["AP"].limit == 1e-4
        assert files[name].accepts.startswith("uint8 (N, 3, H, W), any N, H and W multiples of 32 from 64")
        assert files[name].on == "9 images of val"
    assert sum(len(found["scores"]) for found in one.detector.detections(one.images)) > 20  # type: ignore[union-attr]
    # At yet another size than the two of the check, alone and in a batch.
    model = OnnxModel(to / "detector.onnx")
    for count, size in ((1, (128, 64)), (3, (96, 160))):
        images = torch.nn.functional.pad(one.images[:count], (0, size[1] - 64, 0, size[0] - 64))
        with torch.no_grad():
            wanted = one.detector.detections(images)  # type: ignore[union-attr]
        compare_detections(
            wanted,
            _of_images(model(images), count),
            threshold=0.02,
            most=100,
            name="onnx",
            of="detector.onnx",
        )
    loaded = pt2_loader.load(str(to / "detector.pt2"))
    assert (loaded.size, loaded.categories) == (SIZE, ["1", "7"])
    assert (to / "detector.py").exists()
    if fields:
        nodes = onnx.load(to / "detector.onnx").graph.node
        kept = [
            one.f
            for node in nodes
            if node.op_type == "BatchNormalization"
            for one in node.attribute
            if one.name == "epsilon"
        ]
        assert kept == pytest.approx([0.05] * 6), "two towers, three levels"


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn", "cascade_rcnn"])
def test_two_stages_as_a_graph_find_the_same(name: str) -> None:
    """The graph's operations in PyTorch, without the minute that an ONNX file of them takes."""
    fields = {"box_head": 16, "candidates": 40, "anchor_scale": 2.0}
    more = {"mask_convs": 1} if name == "mask_rcnn" else {}
    one = detector(name, **fields, **more)
    images = open_split(DATA, "val").images
    graph = TwoStage(one, SIZE)  # type: ignore[arg-type]
    # The second size has coarse maps whose cells hang over its edge.
    for pictures in (images, torch.nn.functional.pad(images, (0, 96, 0, 32))):
        with torch.no_grad():
            wanted = one.detections(pictures)
            boxes, scores, labels, image, *masks = graph(pictures)
        found = []
        for index in range(len(pictures)):
            here = image == index
            found.append(Detections(boxes=boxes[here], scores=scores[here], labels=labels[here]))
            if masks:
                found[-1]["masks"] = masks[0][here]
        assert sum(len(one["scores"]) for one in wanted) > 20
        checks = compare_detections(wanted, found, threshold=0.02, most=100, name="graph", of="TwoStage")
        assert {check.of for check in checks} == {"boxes", "scores", *(["masks"] if masks else [])}


def test_two_stages_leave_whole_as_onnx(tmp_path: Path) -> None:
    fields = {"box_head": 16, "candidates": 20, "anchor_scale": 2.0, "mask_convs": 1}
    one = subject(detector("mask_rcnn", **fields))
    work = Work(one, folder_of(one, tmp_path / "bundle"))
    onnx_detector(work)
    (whole,) = work.artefacts
    assert whole.file == "detector.onnx"
    checks = {check.of: check for check in whole.checks}
    assert {"boxes", "scores", "masks", "AP"} <= checks.keys()
    assert whole.accepts.startswith("uint8 (N, 3, H, W), any N, H and W multiples of 32 from 64")
    assert all(check.difference <= check.limit for check in checks.values())
    assert sum(len(found["scores"]) for found in one.detector.detections(one.images)) > 20  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["fcos", "mask_rcnn"])
def test_parts_are_compared_as_the_whole_would_be(name: str, tmp_path: Path) -> None:
    fields = {"box_head": 16, "candidates": 20, "anchor_scale": 2.0, "mask_convs": 1}
    one = subject(detector(name, **(fields if name == "mask_rcnn" else {})))
    whole, data, work = one.detector, one.data, Work(one, tmp_path)
    assert whole is not None and data is not None
    given, others = [], []

    def run(images: Tensor) -> list[Detections]:
        """Further off with every part."""
        given.append(len(images))
        with torch.no_grad():
            found = whole.detections(images)
        for item in found:
            item["scores"] = item["scores"] + 1e-5 * len(given)
            item["boxes"] = item["boxes"] + 1e-3 * len(given)
        others.extend(found)
        return found

    words = {"name": "onnx", "of": "detector.onnx"}
    checks = _checks(work, run, resized=True, **words)
    assert given == [7, 2, 7], "more than one batch size, and some at another size"
    wanted = [item for _, part in work.detections(True) for item in part]
    together = compare_detections(wanted, others, threshold=0.02, most=100, **words)
    results = (coco_results(data, some[: len(data)]) for some in (wanted, others))
    assert checks == (*together, *compare_ap(data, *results, **words))
    assert all(check.difference > 0 for check in checks if check.of in ("boxes", "scores"))
    kept = sum(len(part) for part in work._wanted.values())
    assert kept == (0 if name == "mask_rcnn" else 16), "masks of a whole split are not kept"

    def empty(images: Tensor) -> list[Detections]:
        return [found() for _ in images] if len(images) == 2 else whole.detections(images)

    with pytest.raises(RunError, match=r"finds 0 objects in image 7 and PyTorch \d+;"), torch.no_grad():
        _checks(work, empty, resized=True, **words)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    one = subject(detector("faster_rcnn", box_head=16, candidates=20))
    exported = export_formats(one, folder_of(one, tmp_path / "bundle"), ["torch_export"])
    assert [artefact.file for artefact in exported.artefacts] == ["backbone.pt2"]
    assert "FasterRCNN is left out" in exported.left_out[0]
    report = json.loads((tmp_path / "bundle/export.json").read_text(encoding="utf-8"))
    assert report["left_out"] == list(exported.left_out)


def boxes_of(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crowded boxes with falling scores, in three classes."""
    generator = torch.Generator().manual_seed(seed)
    corners = 40 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(count, 2, generator=generator)), dim=1)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([1, 7, 60, 1200]),
    overlap=st.sampled_from([0.3, 0.6, 0.7]),
)
def test_suppression_keeps_what_torchvision_keeps(seed: int, count: int, overlap: float) -> None:
    boxes, scores, labels = boxes_of(seed, count)
    good = int((scores > 0.1).sum())
    wanted = batched_nms(boxes[:good], scores[:good], labels[:good], overlap)[:20]
    kept = kept_of_each_class(
        boxes[None], scores[None], labels[None], classes=3, overlap=overlap, threshold=0.1, most=20
    )
    assert torch.equal(torch.nonzero(kept[0]).squeeze(1), wanted)
    alone = pt2_loader.kept_of_each_class(boxes[:good], labels[:good], overlap)[:20]
    assert torch.equal(alone, wanted)


def test_a_limit_is_rounded_down() -> None:
    assert float_at_most(0.6) <= 0.6 < float_at_most(0.6) + 1e-7
    assert float_at_most(0.5) == 0.5


def test_pooling_is_torchvisions() -> None:
    one = detector("faster_rcnn", box_head=16)
    align = one.roi_heads.box_roi_pool  # type: ignore[union-attr, attr-defined]
    maps = {
        name: torch.rand(2, 8, 64 // side, 64 // side) for name, side in (("c3", 8), ("c4", 16), ("c5", 32))
    }
    boxes = boxes_of(5, 12)[0]
    wanted = align(maps, [boxes[:6], boxes[6:]], [SIZE, SIZE])
    image = torch.arange(2.0).repeat_interleave(6)[:, None]
    torch.testing.assert_close(pooled(align, maps, torch.cat((image, boxes), dim=1)), wanted)


def found(*rows: tuple[float, float, int]) -> Detections:
    """Boxes of 10 px at x, with score and label."""
    return Detections(
        boxes=torch.tensor([[x, 0.0, x + 10, 10.0] for x, _, _ in rows]).reshape(-1, 4),
        scores=torch.tensor([score for _, score, _ in rows]),
        labels=torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def compared(one: Detections, other: Detections, most: int = 100) -> dict[str, float]:
    checks = compare_detections([one], [other], threshold=0.05, most=most, name="onnx", of="detector.onnx")
    return {check.of: check.difference for check in checks}


def test_the_same_objects_in_another_order_are_the_same() -> None:
    one, other = found((0, 0.9, 1), (50, 0.8, 0)), found((50.005, 0.80005, 0), (0, 0.9, 1))
    assert compared(one, other) == {
        "boxes": pytest.approx(0.005, abs=1e-4),
        "scores": pytest.approx(5e-5, abs=1e-6),
    }
    assert compared(found(), found()) == {"boxes": 0.0, "scores": 0.0}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (found((0.02, 0.9, 1)), "a box"),
        (found((0, 0.9002, 1)), "a score"),
        (found((0, 0.9, 0)), "a label"),
        (found(), "none"),
        (found((0, 0.9, 1), (0, 0.9, 1)), "one twice"),
        (found((float("nan"), 0.9, 1)), "no number"),
    ],
)
def test_other_objects_are_refused(other: Detections, what: str) -> None:
    with pytest.raises(RunError, match=r"onnx: detector.onnx finds \d objects in image 0 and PyTorch 1"):
        compared(found((0, 0.9, 1)), other)


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_other_masks_are_refused(value: float) -> None:
    one = found((0, 0.9, 1), (50, 0.8, 0)) | {"masks": torch.zeros(2, 28, 28)}
    other = found((0, 0.9, 1), (50, 0.8, 0)) | {"masks": torch.zeros(2, 28, 28)}
    assert compared(one, other)["masks"] == 0.0
    other["masks"][0, 3, 4] = value
    with pytest.raises(RunError, match=rf"onnx: detector.onnx: masks are {value:g} off, allowed is"):
        compared(one, other)


def test_next_to_the_end_of_a_list_one_may_be_missing() -> None:
    compared(found((0, 0.9, 1), (30, 0.05004, 1)), found((0, 0.9, 1)))
    compared(found((0, 0.9, 1), (30, 0.5, 1)), found((0, 0.9, 1), (60, 0.50003, 1)), most=2)
    with pytest.raises(RunError):
        compared(found((0, 0.9, 1), (30, 0.0502, 1)), found((0, 0.9, 1)))
