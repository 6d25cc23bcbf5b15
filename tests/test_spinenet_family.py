"""What the families of scale-permuted networks refuse, with one clear sentence, and what they know by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from nas.show import description
from search_spaces.architecture import Architecture
from search_spaces.catalog import get_architecture
from search_spaces.cost import cost, trf
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.spinenet.family import MOBILE_SPINENET, SPINENET
from search_spaces.spinenet.network import SpineNet
from search_spaces.spinenet.zoo import NOT_FOUND, ZOO, proxy

SMALL = proxy(ZOO["spinenet49"], width=0.0625, alpha=0.5, endpoint=8)


def changed(name: str, part: str, values: Mapping[str, object]) -> Architecture:
    data = ZOO[name].to_dict()
    data[part] = {**data[part], **values}
    return Architecture.from_dict(data)


def parents_with(place: int, pair: list[Any]) -> dict[str, object]:
    parents = ZOO["spinenet49"].to_dict()["genes"]["parents"]
    parents[place - 2] = pair
    return {"parents": parents}


@pytest.mark.parametrize(
    ("name", "part", "values", "message"),
    [
        (
            "spinenet49",
            "settings",
            {"stem": [3, 3]},
            r"settings.stem: found \(3, 3\); allowed .* begin with 2",
        ),
        ("spinenet49", "settings", {"stem": [2, 4]}, "settings.stem: .*rise by one"),
        ("spinenet49", "settings", {"stem": [2, 3, 2]}, "settings.stem"),
        ("spinenet49", "settings", {"stem": [2, 3, 4, 5, 6]}, "settings.stem: .*from 2 to 5"),
        ("spinenet49", "settings", {"stem": []}, "settings.stem"),
        ("spinenet49", "settings", {"stem": ["2", "2"]}, "settings.stem"),
        ("spinenet49", "settings", {"filter_size_scale": 1}, "filter_size_scale: found 1; .*as 1.0"),
        ("spinenet49", "settings", {"filter_size_scale": -1.0}, "filter_size_scale: found -1.0"),
        ("spinenet49", "settings", {"filter_size_scale": 0.02}, "found 0.02; .*narrowest map a channel"),
        ("spinenet49", "settings", {"alpha": 0.01}, "settings.alpha: found 0.01; .*a channel"),
        ("spinenet49", "settings", {"repeats": 0}, "settings.repeats: found 0; allowed are integers from 1"),
        ("spinenet49", "settings", {"endpoint": 2.0}, "settings.endpoint: found 2.0"),
        (
            "spinenet49",
            "settings",
            {"activation": "gelu"},
            "activation: found 'gelu'; allowed are relu, swish",
        ),
        (
            "spinenet49",
            "settings",
            {"pool": "mean"},
            "settings.pool: found 'mean'; allowed are single, chain",
        ),
        ("spinenet49", "settings", {"unconnected": "limit"}, "found 'limit'; allowed are published, connect"),
        ("spinenet49", "settings", {"gate": "sigmoid"}, "settings: found .*needed are exactly"),
        ("spinenet49", "genes", {"blocks": [1]}, "genes: found .*needed are exactly"),
        (
            "spinenet49",
            "genes",
            {"levels": [3, 4, 5, 6]},
            "levels: found 4 blocks; needed are at least the 5",
        ),
        ("spinenet49", "genes", {"levels": ["3"] * 15}, "levels: found .*list of integers"),
        ("spinenet49", "genes", {"levels": [3, 4, 5, 6, 7]}, "types: found 15 for 5 levels"),
        (
            "spinenet49",
            "genes",
            {"levels": [8] + [3] * 9 + [3, 4, 5, 6, 7]},
            "block 2: found level 8; .*1 to 7",
        ),
        (
            "spinenet49",
            "genes",
            {"levels": [2] * 10 + [3, 4, 5, 6, 6]},
            "block 16: found a second output at level 6",
        ),
        (
            "spinenet49",
            "genes",
            {"levels": [2] * 10 + [3, 4, 5, 6, 2]},
            "block 16: found an output at level 2",
        ),
        (
            "spinenet49",
            "genes",
            {"types": ["mbconv"] * 15},
            "types: found .*allowed is a list of bottleneck and",
        ),
        ("spinenet49", "genes", {"parents": [[0, 1]]}, "parents: found 1 for 15 levels"),
        ("spinenet49", "genes", {"parents": 3}, "parents: found 3; allowed is a list of pairs"),
        (
            "spinenet49",
            "genes",
            parents_with(4, [3, 2]),
            r"parents: found \[3, 2\]; allowed is the smaller first",
        ),
        (
            "spinenet49",
            "genes",
            parents_with(4, [2, 2]),
            "block 4: found parents .*two different earlier blocks",
        ),
        ("spinenet49", "genes", parents_with(4, [2, 4]), "block 4: found parent 4; allowed are the earlier"),
        ("spinenet49", "genes", parents_with(4, [-1, 2]), "block 4: found parent -1"),
        ("spinenet49", "genes", parents_with(4, [1, 2, 3]), "parents: found .*two earlier blocks"),
        ("spinenet49", "genes", parents_with(4, [7]), "block 4: found parent 7"),
        ("spinenet49_mobile", "settings", {"activation": "relu"}, "found 'relu'; allowed are swish, hswish"),
        (
            "spinenet49_mobile",
            "settings",
            {"gate": "tanh"},
            "found 'tanh'; allowed are sigmoid, hard_sigmoid",
        ),
        ("spinenet49_mobile", "settings", {"alpha": 0.5}, "settings: found .*needed are exactly"),
        ("spinenet49_mobile", "genes", {"types": ["mbconv"] * 16}, "genes: found .*needed are exactly"),
        ("spinenet49_mobile", "genes", {"levels": [3] * 11 + [3, 4, 5, 6, 6]}, "second output at level 6"),
    ],
)
def test_bad_architectures_are_named(name: str, part: str, values: dict[str, object], message: str) -> None:
    architecture = changed(name, part, values)
    family = family_of(architecture)
    for ask in (family.validate, family.build, family.levels, cost, trf):
        with pytest.raises(InvalidArchitecture, match=message):
            ask(architecture)


def test_a_window_is_checked_on_request() -> None:
    far = changed("spinenet49", "genes", parents_with(11, [0, 10]))
    SPINENET.validate(far)
    with pytest.raises(
        InvalidArchitecture, match="block 11: found parent 0; with a window of 5, allowed are 6"
    ):
        SPINENET.graph(far, window=5)
    MOBILE_SPINENET.graph(ZOO["spinenet49_mobile"], window=5)


def test_another_version_or_family_is_named() -> None:
    with pytest.raises(InvalidArchitecture, match="version 2"):
        cost(replace(ZOO["spinenet49"], version=2))
    with pytest.raises(InvalidArchitecture, match=r"cannot read an architecture of spinenet\.mobile"):
        SPINENET.validate(ZOO["spinenet49_mobile"])


def test_networks_without_a_family_name_their_mistakes() -> None:
    good = SPINENET.arguments(SMALL)
    for name, value in (("activation", "gelu"), ("pool", "mean"), ("drop_path", -0.1)):
        with pytest.raises(ValueError, match=r"allowed are"):
            SpineNet(**{**good, name: value})


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_survives_a_round_trip(name: str) -> None:
    assert get_architecture(name) is ZOO[name]
    assert Architecture.from_dict(ZOO[name].to_dict()) == ZOO[name]
    assert len({architecture.digest for architecture in ZOO.values()}) == len(ZOO)


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_was_not_found_says_so(name: str) -> None:
    with pytest.raises(InvalidArchitecture, match="block list was not found"):
        get_architecture(name)


def test_describe() -> None:
    found = description("spinenet49", "640x640")
    assert (found["params"], found["macs"]) == (21_831_488, 28_261_990_400)
    assert found["levels"]["p7"]["stride"] == 128
    assert found["levels"]["p3"]["channels"] == 256
