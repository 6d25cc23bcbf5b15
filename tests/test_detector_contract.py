"""One contract for all detectors, around a ResNet with either pyramid and a SpineNet; what breaks it is caught."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.testing import check_detector, check_detector_learns
from trainers.detectors.catalog import DETECTORS
from trainers.detectors.detector import Detections
from trainers.detectors.fcos import FCOS
from trainers.recipes import DetectorRecipe

REGIONS: dict[str, Any] = {"anchor_scale": 2.0, "box_head": 64, "candidates": 40, "roi_batch": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    "fcos": {},
    "retinanet": {"anchor_scale": 3.0},
    "faster_rcnn": REGIONS,
    "mask_rcnn": {**REGIONS, "mask_convs": 1},
    "cascade_rcnn": REGIONS,
}
BODIES: dict[str, dict[str, Any]] = {
    "fpn": {},
    "pafpn": {"pyramid": "pafpn"},
    "spinenet": {"pyramid": "none", "levels": ("p3", "p4", "p5", "p6", "p7"), "fpn_channels": 32},
}
# What else a detector can be told to be made of.
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fcos", {"extra_levels": 1, "head_convs": 2}),
    ("fcos", {"shared_tower": True}),
    ("fcos", {"head_convs": 0, "pyramid": "pafpn", "extra_levels": 2}),
    ("faster_rcnn", {"extra_levels": 1, "head_convs": 2, "pyramid": "pafpn"}),
    ("faster_rcnn", {"box_convs": 2, "roi_scale": 1.0}),
    ("mask_rcnn", {"mask_convs": 4, "mask_channels": 8}),
    ("mask_rcnn", {"mask_convs": 0, "extra_levels": 1}),
    ("mask_rcnn", {"box_convs": 1, "rcnn_norm": True, "head_channels": 8}),
    ("cascade_rcnn", {"box_convs": 1, "rcnn_norm": True, "extra_levels": 1}),
    ("retinanet", {"extra_levels": 1, "head_convs": 2, "head_activation": "swish"}),
    ("retinanet", {"head_channels": 8, "head_separable": True}),
    ("retinanet", {"head_convs": 0}),
)


def recipe(name: str, **changes: Any) -> DetectorRecipe:
    settings: dict[str, Any] = {"fpn_channels": 16, **SETTINGS[name], **changes}
    return DetectorRecipe(name=name, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("body", BODIES)
def test_detectors_keep_their_contract(name: str, body: str) -> None:
    check_detector(replace(recipe(name, **BODIES[body]), score_threshold=0.0))


@pytest.mark.parametrize(("name", "changes"), CHANGES)
def test_so_they_do_with_other_heads(name: str, changes: dict[str, Any]) -> None:
    check_detector(replace(recipe(name, **changes), score_threshold=0.0))


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("body", BODIES)
def test_one_batch_can_be_learned_by_heart(name: str, body: str) -> None:
    steps, reached = check_detector_learns(recipe(name, **BODIES[body]), least=0.9)
    assert steps <= 200 and reached > 0.9


class Deaf(FCOS):
    """Its centerness learns nothing."""

    def losses(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        terms = super().losses(images, targets)
        return {"classification": terms["classification"]}


class Restless(FCOS):
    """It draws its weights outside of torch's seed."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        with torch.no_grad():
            self.head.cls_logits.weight.normal_(generator=torch.Generator().manual_seed(id(self)))


class Upside(FCOS):
    """Its worst detection comes first."""

    def detections(self, images: Tensor) -> list[Detections]:
        return [
            Detections(boxes=one["boxes"].flip(0), scores=one["scores"].flip(0), labels=one["labels"].flip(0))
            for one in super().detections(images)
        ]


class Lavish(FCOS):
    """It counts labels from 1."""

    def detections(self, images: Tensor) -> list[Detections]:
        found = super().detections(images)
        return [
            Detections(boxes=one["boxes"], scores=one["scores"], labels=one["labels"] + 1) for one in found
        ]


class Picky(FCOS):
    """It divides by a number of objects that may be none."""

    def losses(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        count = sum(len(one["labels"]) for one in targets)
        return {
            name: term / torch.tensor(float(count)) for name, term in super().losses(images, targets).items()
        }


class Exact(FCOS):
    """It asks for float32 maps, which bf16 does not give."""

    def normalise(self, images: Tensor) -> Tensor:
        found = super().normalise(images)
        if torch.is_autocast_enabled("cpu"):
            raise AssertionError("no bf16 here")
        return found


class Learning(FCOS):
    """It counts what it has looked at, in evaluation too."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.register_buffer("looks", torch.zeros(1))

    def detections(self, images: Tensor) -> list[Detections]:
        self.get_buffer("looks").add_(1)
        return super().detections(images)


class Forgetful(FCOS):
    """What it multiplies its scores with is drawn, and in no file."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.register_buffer("factor", torch.rand(1), persistent=False)

    def detections(self, images: Tensor) -> list[Detections]:
        return [
            Detections(
                boxes=one["boxes"], scores=one["scores"] * self.get_buffer("factor"), labels=one["labels"]
            )
            for one in super().detections(images)
        ]


class Sociable(FCOS):
    """The more images, the less it believes each."""

    def detections(self, images: Tensor) -> list[Detections]:
        return [
            Detections(boxes=one["boxes"], scores=one["scores"] / len(images), labels=one["labels"])
            for one in super().detections(images)
        ]


class Blind(FCOS):
    """It sees nothing."""

    def normalise(self, images: Tensor) -> Tensor:
        return super().normalise(torch.zeros_like(images))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Deaf, "no gradient reaches"),
        (Restless, "one seed gave two sets of weights"),
        (Upside, "scores must fall"),
        (Lavish, "labels go from 0"),
        (Picky, "is inf with no object at all"),
        (Exact, "no bf16 here"),
        (Learning, r"detection in evaluation mode changed \['looks'\]"),
        (Forgetful, "keep what it needs in its state_dict"),
        (Sociable, "an image gave other detections beside other images"),
    ],
)
def test_detectors_that_break_the_contract_are_caught(
    kind: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DETECTORS, "fcos", kind)
    with pytest.raises(AssertionError, match=words):
        check_detector(DetectorRecipe(fpn_channels=16, score_threshold=0.0))


def test_a_detector_that_cannot_learn_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "fcos", Blind)
    with pytest.raises(AssertionError, match=r"after 20 steps on one batch of 2 images AP is 0\.\d\d"):
        check_detector_learns(DetectorRecipe(fpn_channels=16), steps=20)
