"""The contracts for families and detectors: what the catalogs list keeps them, and what breaks them is caught."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.testing import check_detector, check_family
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import FAMILIES, ZOO
from search_spaces.crnas.families import RESNET
from search_spaces.family import Family, Level
from search_spaces.layer import Cost
from trainers.detectors.catalog import DETECTORS
from trainers.detectors.detector import Detections
from trainers.detectors.fcos import FCOS
from trainers.recipes import DetectorRecipe

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "crnas.resnet": ("resnet18", {"widths": (8, 8, 16, 16)}),
    "crnas.mobilenetv2": ("mobilenetv2", {"width_multiplier": 0.25}),
    "spinenet": ("spinenet49s", {"filter_size_scale": 0.125, "endpoint": 16}),
    "spinenet.mobile": ("spinenet49xs_mobile", {}),
}


def small(family: str) -> Architecture:
    name, changes = SMALL[family]
    found = ZOO[name]
    return replace(found, settings=Genes({**found.settings, **changes}))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_keep_their_contract(name: str) -> None:
    # Chained resampling needs sides that the coarsest stride divides.
    check_family([small(name)], input_size=(128, 256))


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("cost_by_stage", lambda found: {**found, "c3": found["c3"] + Cost(macs=1)}, "the family says Cost"),
        ("levels", lambda found: {**found, "c2": Level(9, 4)}, "the family says .* the network declares"),
        ("fields", lambda found: {"c2": found["c2"]}, r"fields\(\) must name the levels"),
        ("arguments", lambda found: {**found, "widths": {8}}, "not JSON serializable"),
    ],
)
def test_a_family_that_says_another_thing_than_its_network_is_caught(
    method: str, change: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(type(RESNET), method)
    monkeypatch.setattr(type(RESNET), method, lambda self, *rest: change(right(self, *rest)))
    with pytest.raises((AssertionError, TypeError), match=words):
        check_family([small("crnas.resnet")])


def test_weights_that_no_seed_decides_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Family.build
    monkeypatch.setattr(Family, "build", lambda self, architecture, seed=None: build(self, architecture))
    with pytest.raises(AssertionError, match="one seed gave two sets of weights"):
        check_family([small("crnas.resnet")])


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_keep_their_contract(name: Any) -> None:
    check_detector(DetectorRecipe(name=name, fpn_channels=16, score_threshold=0.0))


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


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Deaf, "no gradient reaches"),
        (Restless, "one seed gave two sets of weights"),
        (Upside, "scores must fall"),
        (Lavish, "labels go from 0"),
    ],
)
def test_detectors_that_break_the_contract_are_caught(
    kind: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DETECTORS, "fcos", kind)
    with pytest.raises(AssertionError, match=words):
        check_detector(DetectorRecipe(fpn_channels=16, score_threshold=0.0))
