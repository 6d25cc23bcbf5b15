"""Faster R-CNN on the pyramid that a SpineNet is: all five levels, regions from the right ones, both box heads."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from search_spaces.families import family_of
from search_spaces.spinenet.zoo import ZOO, proxy
from trainers.data.detection_set import Target
from trainers.detectors.catalog import build_detector
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.recipes import DetectorRecipe

SIDE = 128
RECIPE = DetectorRecipe(
    name="faster_rcnn",
    pyramid="none",
    fpn_channels=16,
    levels=("p3", "p4", "p5", "p6", "p7"),
    anchor_scale=1.0,
    candidates=60,
    box_head=32,
    roi_batch=32,
    roi_scale=1.0,
    score_threshold=0.0,
)


def on_spinenet(recipe: DetectorRecipe = RECIPE) -> FasterRCNN:
    backbone = family_of(ZOO["spinenet49"]).build(proxy(ZOO["spinenet49"], width=0.125, endpoint=16), seed=0)
    detector = build_detector(recipe, backbone, 3, (SIDE, SIDE), seed=0)
    assert isinstance(detector, FasterRCNN)
    return detector


def square(side: float) -> tuple[float, float, float, float]:
    return (64 - side / 2, 64 - side / 2, 64 + side / 2, 64 + side / 2)


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def pooled_from(detector: FasterRCNN, side: float) -> str:
    """The level that a square region comes from, told by maps that hold the number of their level."""
    maps: Mapping[str, Tensor] = {
        name: torch.full((1, 16, SIDE // stride, SIDE // stride), float(stride))
        for name, stride in zip(detector.backbone.names, detector.backbone.strides, strict=True)
    }
    found = detector.roi_heads.box_roi_pool(maps, [torch.tensor([square(side)])], [(SIDE, SIDE)])
    values = set(found.flatten().tolist())
    assert len(values) == 1
    strides = dict(zip(detector.backbone.strides, detector.backbone.names, strict=True))
    return strides[int(values.pop())]


@pytest.mark.parametrize(("convs", "norm"), [(0, False), (4, True)])
def test_all_levels_of_a_spinenet_learn(convs: int, norm: bool) -> None:
    detector = on_spinenet(replace(RECIPE, box_convs=convs, rcnn_norm=norm)).train()
    # A side for every level's regions: p3 from 8 to below 16 px, p4 from 16 and so on.
    boxes = torch.tensor([square(side) for side in (12.0, 24.0, 48.0, 96.0, 128.0)])
    targets = [Target(boxes=boxes, labels=torch.tensor([0, 1, 2, 0, 1]), image_id=1)] * 2
    terms = detector.losses(images(), targets)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, one in detector.named_parameters():
        assert one.grad is not None and one.grad.isfinite().all(), name
    for level in RECIPE.levels:
        endpoint = detector.backbone.body.get_submodule(f"endpoints.{level}.0")
        assert isinstance(endpoint, nn.Conv2d) and endpoint.weight.grad is not None
        assert endpoint.weight.grad.abs().sum() > 0, level
    detector.eval()
    with torch.no_grad():
        assert [len(one["boxes"]) > 0 for one in detector.detections(images())] == [True, True]


def test_a_region_comes_from_the_level_of_its_size() -> None:
    detector = on_spinenet()
    expected = {
        4.0: "p3",
        9.0: "p3",
        15.0: "p3",
        17.0: "p4",
        33.0: "p5",
        65.0: "p6",
        127.9: "p6",
        128.0: "p7",
    }
    assert {side: pooled_from(detector, side) for side in expected} == expected
    published = on_spinenet(replace(RECIPE, roi_scale=14.0))
    assert {pooled_from(published, side) for side in (9.0, 64.0, 128.0)} == {"p3"}, "224 px at stride 16"


def test_coarser_extra_maps_serve_proposals_only() -> None:
    recipe = replace(RECIPE, levels=("p3", "p4", "p5"), extra_levels=2)
    detector = on_spinenet(recipe)
    assert detector.backbone.strides == (8, 16, 32, 64, 128)
    assert pooled_from(detector, 128.0) == "p5"
    boxes = torch.tensor([square(96.0)])
    targets = [Target(boxes=boxes, labels=torch.tensor([1]), image_id=1)] * 2
    terms = detector.losses(images(), targets)
    assert all(one.isfinite() for one in terms.values())


def test_the_box_head_with_convolutions() -> None:
    head = on_spinenet(replace(RECIPE, box_convs=4)).roi_heads.box_head
    kinds = [type(one) for one in head.modules() if isinstance(one, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    assert [kind.__name__ for kind in kinds] == ["Conv2d", "BatchNorm"] * 4 + ["Linear"]
    assert head(torch.zeros(2, 16, 7, 7)).shape == (2, 32)
    plain = on_spinenet().roi_heads.box_head
    assert [type(one).__name__ for one in plain.modules()][1:] == ["Linear", "Linear"]


def test_the_heads_with_normalisation() -> None:
    detector = on_spinenet(replace(RECIPE, box_convs=4, rcnn_norm=True, head_convs=2))
    box_head, head = detector.roi_heads.box_head, detector.rpn.head
    kinds = [
        type(one) for one in box_head.modules() if isinstance(one, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    assert [kind.__name__ for kind in kinds] == ["Conv2d", "BatchNorm"] * 4 + ["Linear", "BatchNorm"]
    mlp = on_spinenet(replace(RECIPE, rcnn_norm=True)).roi_heads.box_head
    assert [type(one).__name__ for one in mlp] == ["Flatten", *["Linear", "BatchNorm", "ReLU"] * 2]
    # Levels share the convolutions of the proposals, but not what normalises them.
    assert [len(norms) for norms in head.tower.norms] == [len(RECIPE.levels)] * 2
    assert sum(isinstance(one, nn.Conv2d) for one in head.modules()) == 4
    head.train()
    means = [norm.running_mean.clone() for norm in head.tower.norms[0]]
    logits, codes = head([torch.randn(2, 16, side, side) for side in (8, 4, 2, 1, 1)])
    assert [one.shape for one in logits] == [(2, 3, side, side) for side in (8, 4, 2, 1, 1)]
    assert [one.shape[1] for one in codes] == [12] * 5
    moved = [norm.running_mean for norm in head.tower.norms[0]]
    assert all(not torch.equal(*pair) for pair in zip(means, moved, strict=True))


def test_one_region_or_none_leaves_the_statistics_alone() -> None:
    head = on_spinenet(replace(RECIPE, rcnn_norm=True)).roi_heads.box_head.train()
    before = {name: one.clone() for name, one in head.state_dict().items()}
    for regions in (0, 1):
        assert head(torch.randn(regions, 16, 7, 7)).isfinite().all()
    assert all(torch.equal(one, before[name]) for name, one in head.state_dict().items())
