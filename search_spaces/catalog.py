"""Every space, family and named architecture, in plain dicts. Importing this does not import torch."""

import difflib
from collections.abc import Callable, Iterable
from functools import partial

from search_spaces.architecture import Architecture
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.stages import BRANCHES, StageSpace
from search_spaces.crnas.zoo import NOT_FOUND as CRNAS_NOT_FOUND
from search_spaces.crnas.zoo import ZOO as CRNAS_ZOO
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import FAMILIES, family_of
from search_spaces.space import SearchSpace
from search_spaces.spinenet.space import SpineNetSpace
from search_spaces.spinenet.zoo import NOT_FOUND as SPINENET_NOT_FOUND
from search_spaces.spinenet.zoo import ZOO as SPINENET_ZOO

__all__ = ["FAMILIES", "SPACES", "ZOO", "family_of", "get_architecture", "get_space"]

ZOO: dict[str, Architecture] = {**CRNAS_ZOO, **SPINENET_ZOO}
"""Name -> architecture: the baselines and what the papers published."""

NOT_FOUND: dict[str, str] = {**CRNAS_NOT_FOUND, **SPINENET_NOT_FOUND}
"""Name -> why an architecture that a paper reports on is left out of :data:`ZOO`."""


def _stages(network: str, budget: int | None) -> StageSpace:
    baseline = ZOO[network]
    return StageSpace(f"crnas.{network}.stages", baseline, BRANCHES[baseline.family], budget)


def _dilations(network: str) -> DilationSpace:
    return DilationSpace(f"crnas.{network}.dilations", ZOO[network])


def _spinenet(network: str, *, adjustments: bool) -> SpineNetSpace:
    name = f"spinenet.{network}"
    types = adjustments and "types" in ZOO[network].genes
    return SpineNetSpace(name, ZOO[network], levels=adjustments, types=types)


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "crnas.resnet18.stages": partial(_stages, "resnet18", 8),
    "crnas.resnet50.stages": partial(_stages, "resnet50", 16),
    "crnas.resnet101.stages": partial(_stages, "resnet101", 33),
    "crnas.resnext50.stages": partial(_stages, "resnext50", 16),
    "crnas.resnext101.stages": partial(_stages, "resnext101", 33),
    "crnas.mobilenetv2.stages": partial(_stages, "mobilenetv2", None),
    "crnas.resnet18.dilations": partial(_dilations, "resnet18"),
    "crnas.resnet50.dilations": partial(_dilations, "resnet50"),
    "crnas.resnet101.dilations": partial(_dilations, "resnet101"),
    "crnas.resnext50.dilations": partial(_dilations, "resnext50"),
    "crnas.resnext101.dilations": partial(_dilations, "resnext101"),
    "crnas.mobilenetv2.dilations": partial(_dilations, "mobilenetv2"),
    "spinenet.r23_sp30": partial(_spinenet, "r23_sp30", adjustments=False),
    "spinenet.r0_sp53": partial(_spinenet, "r0_sp53", adjustments=False),
    "spinenet.spinenet49": partial(_spinenet, "spinenet49", adjustments=True),
    "spinenet.spinenet49_mobile": partial(_spinenet, "spinenet49_mobile", adjustments=True),
}
"""Name -> what makes the space; a dilation space is that of the hand-made network's allocation, a SpineNet space
that of the published network's stem, blocks and decisions."""


def get_space(name: str) -> SearchSpace:
    """Make the space of this name.

    Raises:
        InvalidArchitecture: no such space; names the nearest.
    """
    if name not in SPACES:
        raise InvalidArchitecture(f"unknown space {name!r}; {_hint(name, SPACES)}")
    return SPACES[name]()


def get_architecture(name: str) -> Architecture:
    """The architecture of this name, hand-made or published.

    Raises:
        InvalidArchitecture: no such architecture; names the nearest.
    """
    if name in NOT_FOUND:
        raise InvalidArchitecture(f"architecture {name!r} is not in the zoo: {NOT_FOUND[name]}")
    if name not in ZOO:
        raise InvalidArchitecture(f"unknown architecture {name!r}; {_hint(name, ZOO)}")
    return ZOO[name]


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    nearest = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{nearest}Allowed are {', '.join(names)}"
