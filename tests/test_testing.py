"""The contract for families: what the catalog lists keeps it, and what breaks it is caught."""

from dataclasses import replace
from typing import Any

import pytest

from nas.testing import check_family
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import FAMILIES, ZOO
from search_spaces.crnas.families import RESNET
from search_spaces.family import Family, Level
from search_spaces.layer import Cost

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
