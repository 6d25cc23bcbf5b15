"""Closed-form costs of scale-permuted networks, without torch and without layers.

A second description of what ``network.py`` and ``mobile.py`` build, because a search asks for tens of thousands
of costs; the tests count the built networks with hooks and compare.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from search_spaces.layer import Cost, check_input_size
from search_spaces.spinenet.graph import HIGHEST, Kind
from search_spaces.spinenet.wiring import Wired

BASE_WIDTHS = (0, 32, 64, 128, 256, 256, 256, 256)
"""Of SpineNet by level, before scaling; a bottleneck block reads and writes four times as much."""
MOBILE_WIDTHS = (8, 16, 24, 40, 80, 112, 112, 112)
"""Of Mobile SpineNet by level, before scaling; the first is that of the stem's convolution."""
MOBILE_STEM = (1, 2)
"""Levels of Mobile SpineNet's stem blocks."""
STEM_WIDTH = 64
"""Of SpineNet's first convolution, whatever the scale."""
EXPANSION, SE_RATIO = 6, 0.2
"""Of mobile blocks: width inside by width outside, and squeezed by outside."""


class Spent(NamedTuple):
    """Parameters, multiply-adds and activations as a bare tuple; thousands are added per second."""

    params: int
    macs: int
    activations: int


class Window(NamedTuple):
    """A convolution or pooling as receptive fields see it."""

    kernel: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class Shape(ABC):
    """Everything that decides cost: stem levels, wired blocks, widths.

    Args:
        stem: level of each stem block.
        blocks: the permuted ones, the last five being the outputs.
        scale: of the widths.
        repeats: copies of each block in sequence, stem included.
        endpoint: width of P3 to P7.
    """

    stem: tuple[int, ...]
    blocks: tuple[Wired, ...]
    scale: float
    repeats: int
    endpoint: int

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of every place."""
        return (*self.stem, *(block.level for block in self.blocks))

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels of every place's map."""

    @abstractmethod
    def conv1(self, cells: Sequence[int]) -> Spent:
        """The first convolution; ``cells`` are those of a map at each level, here and below."""

    @abstractmethod
    def stem_block(self, place: int, cells: Sequence[int]) -> Spent:
        """A stem block with its repeats."""

    @abstractmethod
    def block(self, block: Wired, cells: Sequence[int]) -> Spent:
        """A permuted block with its repeats, resamplings left out."""

    @abstractmethod
    def resample(self, parent: int, block: Wired, cells: Sequence[int]) -> Spent:
        """What brings a parent's map to a block's level and width."""

    @abstractmethod
    def entrance(self) -> Sequence[Window]:
        """Layers before the first stem block."""

    @abstractmethod
    def inside(self, kind: Kind) -> Sequence[Window]:
        """Layers of one copy of a block at stride 1."""

    @abstractmethod
    def down(self, levels: int) -> Sequence[Window]:
        """Layers of a resampling that goes so many levels down in resolution."""


@dataclass(frozen=True, kw_only=True)
class SpineNetShape(Shape):
    """Of SpineNet; ``alpha`` is the width inside a resampling, ``pool`` how it pools."""

    alpha: float
    pool: Literal["single", "chain"]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every place's map."""
        stem = (spinenet_width(level, "bottleneck", self.scale) for level in self.stem)
        return (*stem, *(spinenet_width(block.level, block.kind, self.scale) for block in self.blocks))

    def conv1(self, cells: Sequence[int]) -> Spent:
        """7x7 at stride 2."""
        return _conv_bn(3 * 49, STEM_WIDTH, cells[1])

    def stem_block(self, place: int, cells: Sequence[int]) -> Spent:
        """The first copy may halve the size and then has a projection; so it has where it widens."""
        level = self.stem[place]
        before = self.stem[place - 1] if place else 2
        inner = int(BASE_WIDTHS[level] * self.scale)
        inputs = 4 * int(BASE_WIDTHS[before] * self.scale) if place else STEM_WIDTH
        parts = [
            _conv_bn(inputs, inner, cells[before]),
            _conv_bn(9 * inner, inner, cells[level]),
            _conv_bn(inner, 4 * inner, cells[level]),
        ]
        if level != before or inputs != 4 * inner:
            parts.append(_conv_bn(inputs, 4 * inner, cells[level]))
        parts += [_bottleneck(inner, cells[level])] * (self.repeats - 1)
        return _total(parts)

    def block(self, block: Wired, cells: Sequence[int]) -> Spent:
        """Bottleneck 1x1, 3x3, 1x1; residual 3x3, 3x3."""
        inner = int(BASE_WIDTHS[block.level] * self.scale)
        one = (_bottleneck if block.kind == "bottleneck" else _residual)(inner, cells[block.level])
        return Spent(one[0] * self.repeats, one[1] * self.repeats, one[2] * self.repeats)

    def resample(self, parent: int, block: Wired, cells: Sequence[int]) -> Spent:
        """1x1 to the reduced width, 3x3 at stride 2 on the way down, 1x1 to the block's width."""
        stem = len(self.stem)
        if parent < stem:
            level, bottleneck = self.stem[parent], True
        else:
            source = self.blocks[parent - stem]
            level, bottleneck = source.level, source.kind == "bottleneck"
        ends = (level, bottleneck, block.level, block.kind == "bottleneck")
        return _resample(self.scale, self.alpha, ends, tuple(cells))

    def entrance(self) -> Sequence[Window]:
        """7x7 convolution and 3x3 pooling."""
        return (Window(7, 2), Window(3, 2))

    def inside(self, kind: Kind) -> Sequence[Window]:
        """The 3x3 convolutions."""
        return (Window(3),) if kind == "bottleneck" else (Window(3), Window(3))

    def down(self, levels: int) -> Sequence[Window]:
        """A convolution, then one pooling or a chain of them."""
        if self.pool == "chain" or levels <= 2:
            return (Window(3, 2),) * levels
        return (Window(3, 2), Window(5, 2 ** (levels - 1)))


@dataclass(frozen=True, kw_only=True)
class MobileShape(Shape):
    """Of Mobile SpineNet."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every place's map."""
        return tuple(int(MOBILE_WIDTHS[level] * self.scale) for level in self.levels)

    def conv1(self, cells: Sequence[int]) -> Spent:
        """3x3 at stride 2."""
        return _conv_bn(27, int(MOBILE_WIDTHS[0] * self.scale), cells[1])

    def stem_block(self, place: int, cells: Sequence[int]) -> Spent:
        """The second one halves the size in its first copy."""
        level = self.stem[place]
        before = self.stem[place - 1] if place else 1
        inputs = int(MOBILE_WIDTHS[before if place else 0] * self.scale)
        outputs = int(MOBILE_WIDTHS[level] * self.scale)
        parts = [_mbconv(inputs, outputs, cells[before], cells[level])]
        parts += [_mbconv(outputs, outputs, cells[level], cells[level])] * (self.repeats - 1)
        return _total(parts)

    def block(self, block: Wired, cells: Sequence[int]) -> Spent:
        """Inverted bottleneck with squeeze and excitation."""
        width, here = int(MOBILE_WIDTHS[block.level] * self.scale), cells[block.level]
        one = _mbconv(width, width, here, here)
        return Spent(one[0] * self.repeats, one[1] * self.repeats, one[2] * self.repeats)

    def resample(self, parent: int, block: Wired, cells: Sequence[int]) -> Spent:
        """Depthwise 3x3 at stride 2 for each level down, then 1x1."""
        stem = len(self.stem)
        level = self.stem[parent] if parent < stem else self.blocks[parent - stem].level
        width = int(MOBILE_WIDTHS[level] * self.scale)
        outputs = int(MOBILE_WIDTHS[block.level] * self.scale)
        down = range(level + 1, block.level + 1)
        halved = sum(cells[step] for step in down)
        there = cells[block.level]
        return Spent(
            11 * width * len(down) + (width + 2) * outputs,
            9 * width * halved + width * outputs * there,
            width * halved + outputs * there,
        )

    def entrance(self) -> Sequence[Window]:
        """3x3 convolution."""
        return (Window(3, 2),)

    def inside(self, kind: Kind) -> Sequence[Window]:  # noqa: ARG002 - there is one kind
        """The depthwise convolution; the gate sees the whole map and is left out."""
        return (Window(3),)

    def down(self, levels: int) -> Sequence[Window]:
        """Depthwise convolutions."""
        return (Window(3, 2),) * levels


def spinenet_width(level: int, kind: Kind, scale: float) -> int:
    """Channels of a SpineNet block's map."""
    return int(BASE_WIDTHS[level] * scale) * (4 if kind == "bottleneck" else 1)


def costs_by_part(shape: Shape, input_size: tuple[int, int]) -> dict[str, Cost]:
    """Cost of conv1, stem, blocks, resamples and endpoints for one image.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    cells = cells_by_level(input_size)
    parts = {
        "conv1": [shape.conv1(cells)],
        "stem": [shape.stem_block(place, cells) for place in range(len(shape.stem))],
        "blocks": [shape.block(block, cells) for block in shape.blocks],
        "resamples": [
            shape.resample(parent, block, cells) for block in shape.blocks for parent in block.parents
        ],
        "endpoints": [
            _conv_bn(width, shape.endpoint, cells[block.level])
            for block, width in zip(shape.blocks[-5:], shape.widths[-5:], strict=True)
        ],
    }
    return {name: _cost(_total(spent)) for name, spent in parts.items()}


def block_costs(shape: Shape, input_size: tuple[int, int]) -> dict[int, Cost]:
    """Place -> cost of its block, repeats included, for every permuted place."""
    cells, stem = cells_by_level(input_size), len(shape.stem)
    return {place: _cost(shape.block(block, cells)) for place, block in enumerate(shape.blocks, stem)}


def resample_costs(shape: Shape, input_size: tuple[int, int]) -> dict[tuple[int, int], Cost]:
    """(parent, place) -> cost of the resampling between them."""
    cells, stem = cells_by_level(input_size), len(shape.stem)
    return {
        (parent, place): _cost(shape.resample(parent, block, cells))
        for place, block in enumerate(shape.blocks, stem)
        for parent in block.parents
    }


def cells_by_level(input_size: tuple[int, int]) -> tuple[int, ...]:
    """Cells of a map at each level from 0; sides are rounded up.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    check_input_size(input_size)
    height, width = input_size
    return tuple(-(-height // 2**level) * -(-width // 2**level) for level in range(HIGHEST + 1))


def _conv_bn(taps: int, outputs: int, cells: int) -> Spent:
    """A convolution without bias and its normalisation; ``taps`` are the numbers read for one written."""
    return Spent((taps + 2) * outputs, taps * outputs * cells, outputs * cells)


@lru_cache(maxsize=8192)
def _resample(scale: float, alpha: float, ends: tuple[int, bool, int, bool], cells: tuple[int, ...]) -> Spent:
    """Of one edge of SpineNet; ``ends`` are level and whether a bottleneck, first of the parent.

    Kept, because a search at one scale and input size meets few different edges.
    """
    level, bottleneck, target, to_bottleneck = ends
    inner = int(BASE_WIDTHS[level] * scale)
    reduced = int(inner * alpha)
    inputs = 4 * inner if bottleneck else inner
    outputs = int(BASE_WIDTHS[target] * scale) * (4 if to_bottleneck else 1)
    parts = [_conv_bn(inputs, reduced, cells[level]), _conv_bn(reduced, outputs, cells[target])]
    if level < target:
        parts.append(_conv_bn(9 * reduced, reduced, cells[level + 1]))
    return _total(parts)


def _bottleneck(inner: int, cells: int) -> Spent:
    """1x1, 3x3 and 1x1 at stride 1 with an identity shortcut."""
    return Spent(17 * inner * inner + 12 * inner, 17 * inner * inner * cells, 6 * inner * cells)


def _residual(inner: int, cells: int) -> Spent:
    """Two 3x3 with an identity shortcut."""
    return Spent(18 * inner * inner + 4 * inner, 18 * inner * inner * cells, 2 * inner * cells)


def _mbconv(inputs: int, outputs: int, before: int, cells: int) -> Spent:
    """1x1, depthwise 3x3, gate and 1x1; the gate's two convolutions have biases and one cell."""
    inner, squeezed = EXPANSION * inputs, max(1, int(SE_RATIO * inputs))
    weights = 2 * inner * squeezed
    return Spent(
        (inputs + 2) * inner + 11 * inner + weights + squeezed + inner + (inner + 2) * outputs,
        inputs * inner * before + 9 * inner * cells + weights + inner * outputs * cells,
        inner * before + inner * cells + squeezed + inner + outputs * cells,
    )


def _total(parts: Sequence[Spent]) -> Spent:
    return Spent(*map(sum, zip(*parts, strict=True)))


def _cost(spent: Spent) -> Cost:
    return Cost(params=spent.params, macs=spent.macs, activations=spent.activations)
