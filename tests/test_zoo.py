"""The published architectures: complete, valid, and honest about what was not found."""

import pytest

from search_spaces.architecture import Architecture
from search_spaces.cost import trf
from search_spaces.crnas.zoo import NOT_FOUND, ZOO
from search_spaces.families import family_of

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnext50": (3, 4, 6, 3),
    "resnext101": (3, 4, 23, 3),
    "mobilenetv2": (2, 3, 7, 3),
    "scr_resnet18": (1, 1, 2, 4),
    "scr_resnet50": (1, 3, 5, 7),
    "scr_resnet101": (2, 3, 17, 11),
    "crnas_resnet18c": (1, 1, 2, 4),
    "crnas_resnet50c": (1, 3, 5, 7),
    "crnas_resnet101c": (2, 3, 17, 11),
}


def test_the_zoo_is_what_was_found() -> None:
    assert {name: architecture.genes["blocks"] for name, architecture in ZOO.items()} == BLOCKS
    assert not ZOO.keys() & NOT_FOUND.keys()
    assert len({architecture.digest for architecture in ZOO.values()}) == len(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_every_entry_is_valid_and_survives_a_round_trip(name: str) -> None:
    architecture = ZOO[name]
    family_of(architecture).validate(architecture)
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    assert Architecture.from_dict(architecture.to_dict()).digest == architecture.digest


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_reallocation_narrows_the_shallow_fields_and_widens_the_deepest(depth: int) -> None:
    before, after = trf(ZOO[f"resnet{depth}"]), trf(ZOO[f"scr_resnet{depth}"])
    assert after["c3"] < before["c3"]
    assert after["c4"] < before["c4"]
    assert after["c5"] > before["c5"]
