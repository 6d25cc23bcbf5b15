"""Where a family's blocks sit in its network: the one thing the supernets ask of a family."""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import nn

from search_spaces.architecture import Genes
from search_spaces.crnas import mobilenet, resnet
from search_spaces.crnas.layers import mobilenet_block_names, resnet_block_names


class Anatomy(Protocol):
    """Makes and names the pieces of one family's network."""

    strides: tuple[int, int, int, int]

    def stem(self) -> dict[str, nn.Module]:
        """Layers before the first stage by their name in the stand-alone network."""

    def tail(self) -> list[nn.Module]:
        """Layers after the last stage."""

    def stem_channels(self) -> int:
        """Channels that the first stage reads."""

    def widths(self, stage: int, count: int) -> list[int]:
        """Output channels of every block of a stage with ``count`` blocks."""

    def chain(self, inputs: int, widths: Sequence[int], stride: int) -> Sequence[nn.Module]:
        """New blocks with dilation 1."""

    def names(self, blocks: Sequence[int]) -> list[list[str]]:
        """Names of the blocks of each stage in the stand-alone network, then those of the tail."""

    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        """Draw all weights anew."""


class ResNetAnatomy:
    """Anatomy of :class:`resnet.ResNet` from the settings of its family."""

    strides = resnet.STRIDES

    def __init__(self, settings: Genes) -> None:
        self._block = cast(str, settings["block"])
        self._widths = cast(tuple[int, ...], settings["widths"])
        self._stem = cast(str, settings["stem"])
        self._groups = cast(int, settings["groups"])
        self._width_per_group = cast(int, settings["width_per_group"])

    def stem(self) -> dict[str, nn.Module]:
        """See :class:`Anatomy`."""
        return resnet.stem_layers(self._stem, self._widths[0])

    def tail(self) -> list[nn.Module]:
        """Nothing follows the last stage."""
        return []

    def stem_channels(self) -> int:
        """See :class:`Anatomy`."""
        return self._widths[0]

    def widths(self, stage: int, count: int) -> list[int]:
        """See :class:`Anatomy`."""
        return [self._widths[stage] * resnet.BLOCKS[self._block].expansion] * count

    def chain(self, inputs: int, widths: Sequence[int], stride: int) -> Sequence[nn.Module]:
        """See :class:`Anatomy`."""
        return resnet.stage_blocks(
            self._block,
            inputs,
            widths[0] // resnet.BLOCKS[self._block].expansion,
            stride=stride,
            dilations=[1] * len(widths),
            groups=self._groups,
            width_per_group=self._width_per_group,
        )

    def names(self, blocks: Sequence[int]) -> list[list[str]]:
        """See :class:`Anatomy`."""
        return resnet_block_names(blocks)

    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        """See :class:`Anatomy`."""
        resnet.initialise(network, generator)


class MobileNetV2Anatomy:
    """Anatomy of :class:`mobilenet.MobileNetV2` from the settings of its family."""

    strides = mobilenet.STRIDES

    def __init__(self, settings: Genes) -> None:
        self._multiplier = cast(float, settings["width_multiplier"])

    def stem(self) -> dict[str, nn.Module]:
        """See :class:`Anatomy`."""
        layers = mobilenet.stem_layers(self._multiplier)
        return {f"features.{index}": layer for index, layer in enumerate(layers)}

    def tail(self) -> list[nn.Module]:
        """The 320-wide block and the 1280-wide convolution."""
        return mobilenet.tail_layers(self._multiplier)

    def stem_channels(self) -> int:
        """See :class:`Anatomy`."""
        return mobilenet.scaled(16, self._multiplier)

    def widths(self, stage: int, count: int) -> list[int]:
        """See :class:`Anatomy`."""
        return mobilenet.stage_widths(stage, count, self._multiplier)

    def chain(self, inputs: int, widths: Sequence[int], stride: int) -> Sequence[nn.Module]:
        """See :class:`Anatomy`."""
        return mobilenet.stage_blocks(inputs, widths, stride=stride, dilations=[1] * len(widths))

    def names(self, blocks: Sequence[int]) -> list[list[str]]:
        """See :class:`Anatomy`."""
        return mobilenet_block_names(blocks)

    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        """See :class:`Anatomy`."""
        mobilenet.initialise(network, generator)


ANATOMIES: dict[str, Callable[[Genes], Anatomy]] = {
    "crnas.resnet": ResNetAnatomy,
    "crnas.mobilenetv2": MobileNetV2Anatomy,
}
