"""Which block of a network gives its weights to which block of another allocation of it. Torch-free.

Depth-wise parameter remapping as in FNA (Fang et al. 2020, "Fast Neural Network Adaptation via Parameter Remapping and
Architecture Search", arXiv 2001.02525, "depth-level"): a block takes the weights of the block at its place in the same
stage, and those beyond the source's depth take them of the nearest that is left, its last. Three things are said here:

- Places are counted among neighbours of one output width, so that the two widths of MobileNetV2's third stage are two
  stages here.
- The first of them changes channels or size, so it gives to firsts. Where the source has no other, later blocks take
  the first if both have the same tensors (stage 1 of a basic ResNet); whoever loads the weights sees whether they do.
- A dilation is no part of a kernel's shape: weights are copied as they are, whatever the dilations of the two blocks.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

from search_spaces.architecture import Architecture
from search_spaces.crnas.layers import (
    mobilenet_block_names,
    mobilenet_widths,
    resnet_block_names,
)
from search_spaces.errors import ConfigError
from search_spaces.families import family_of

Run = tuple[tuple[int, int], list[str]]
"""Stage and place of the width in it, and the names of the blocks."""


def block_sources(source: Architecture, target: Architecture) -> dict[str, str]:
    """Block of ``target`` -> block of ``source`` whose weights it takes; both as the built networks name them.

    Whether the tensors of the two have equal shapes is for the caller to see: widths may differ.

    Raises:
        ConfigError: networks of different families, or of one whose blocks are not allocated to stages.
    """
    if source.family != target.family or target.family not in _RUNS:
        raise ConfigError(
            f"weights of a network of {source.family} cannot be mapped block by block into one of {target.family}; "
            f"allowed are two networks of one family, {' or '.join(_RUNS)}"
        )
    for one in (source, target):
        family_of(one).validate(one)
    given = dict(_RUNS[source.family](source))
    found: dict[str, str] = {}
    for place, names in _RUNS[target.family](target):
        for index, name in enumerate(names):
            if place in given:
                found[name] = given[place][min(index, len(given[place]) - 1)]
    return found


def _resnet_runs(architecture: Architecture) -> list[Run]:
    stages = resnet_block_names(_blocks(architecture))
    return [((stage, 0), names) for stage, names in enumerate(stages) if names]


def _mobilenet_runs(architecture: Architecture) -> list[Run]:
    blocks, multiplier = _blocks(architecture), architecture.settings["width_multiplier"]
    assert isinstance(multiplier, float)
    *stages, tail = mobilenet_block_names(blocks)
    found: list[Run] = []
    for stage, (names, widths) in enumerate(zip(stages, mobilenet_widths(blocks, multiplier), strict=True)):
        pairs = groupby(zip(names, widths, strict=True), key=lambda pair: pair[1])
        found += [((stage, place), [name for name, _ in run]) for place, (_, run) in enumerate(pairs)]
    return [*found, *(((len(stages), place), [name]) for place, name in enumerate(tail))]


def _blocks(architecture: Architecture) -> Sequence[int]:
    blocks = architecture.genes["blocks"]
    assert isinstance(blocks, tuple)
    return [int(str(count)) for count in blocks]


_RUNS: dict[str, Callable[[Architecture], list[Run]]] = {
    "crnas.resnet": _resnet_runs,
    "crnas.mobilenetv2": _mobilenet_runs,
}
