"""The two families that CR-NAS reallocates: ResNet (with ResNeXt) and MobileNetV2.

Liang et al. 2020, "Computation Reallocation for Object Detection" (arXiv 1912.11234). Importing this file
does not import torch.
"""

from dataclasses import asdict
from typing import Any

from search_spaces.architecture import Architecture, Value
from search_spaces.crnas.costs import mobilenet_costs, resnet_costs
from search_spaces.crnas.layers import (
    EXPANSION,
    MobileNetV2Shape,
    ResNetShape,
    mobilenet_layers,
    mobilenet_levels,
    resnet_layers,
    resnet_levels,
)
from search_spaces.errors import InvalidArchitecture
from search_spaces.family import ChainFamily, Cost, Layer, Level, check_identity, check_keys

STEMS = ("imagenet", "ceil_pool", "small")
DILATIONS = (1, 2, 3)
GENES = ("blocks", "dilations")


class ReallocatedFamily(ChainFamily):
    """What both families share: genes ``blocks``, one count a stage, and ``dilations``, one a block."""

    def text(self, architecture: Architecture) -> str:
        """The block counts, and the dilations where any is not 1: ``1,2,2,3 d=11212233``."""
        blocks, dilations = architecture.genes["blocks"], architecture.genes["dilations"]
        assert isinstance(blocks, tuple) and isinstance(dilations, tuple)
        text = ",".join(map(str, blocks))
        return text if set(dilations) == {1} else f"{text} d={''.join(map(str, dilations))}"


class ResNetFamily(ReallocatedFamily):
    """ResNet and ResNeXt: ``settings`` block, widths, stem, groups, width_per_group."""

    name = "crnas.resnet"
    module = "search_spaces.crnas.resnet"
    network = "ResNet"

    def validate(self, architecture: Architecture) -> None:
        """Check every setting and gene; see :meth:`Family.validate`."""
        self._shape(architecture)

    def layers(self, architecture: Architecture) -> tuple[Layer, ...]:
        """Every layer in execution order."""
        return tuple(resnet_layers(self._shape(architecture)))

    def cost_by_stage(self, architecture: Architecture, input_size: tuple[int, int]) -> dict[str, Cost]:
        """In closed form; see :meth:`Family.cost_by_stage`."""
        return resnet_costs(self._shape(architecture), input_size)

    def levels(self, architecture: Architecture) -> dict[str, Level]:
        """Channels and stride of c2 to c5."""
        return resnet_levels(self._shape(architecture))

    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments of :class:`search_spaces.crnas.resnet.ResNet`."""
        return asdict(self._shape(architecture))

    def _shape(self, architecture: Architecture) -> ResNetShape:
        check_identity(self, architecture)
        settings = architecture.settings
        check_keys("settings", settings, ("block", "widths", "stem", "groups", "width_per_group"))
        block = _one_of("settings.block", settings["block"], tuple(EXPANSION))
        groups = _positive("settings.groups", settings["groups"])
        width_per_group = _positive("settings.width_per_group", settings["width_per_group"])
        if block == "basic" and (groups, width_per_group) != (1, 64):
            raise InvalidArchitecture(
                f"a basic block has groups=1 and width_per_group=64; found groups={groups} and "
                f"width_per_group={width_per_group}; use block 'bottleneck' for grouped convolutions"
            )
        widths = _positives("settings.widths", settings["widths"])
        if len(widths) != 4:
            raise InvalidArchitecture(
                f"settings.widths: found {list(widths)}; allowed are four widths, one a stage"
            )
        if int(min(widths) * width_per_group / 64) < 1:
            raise InvalidArchitecture(
                f"settings.widths: {min(widths)} at width_per_group={width_per_group} leaves no channel "
                f"in a group; widths must be at least {-(-64 // width_per_group)}"
            )
        blocks, dilations = _genes(architecture)
        return ResNetShape(
            block=block,
            blocks=blocks,
            dilations=dilations,
            widths=widths,
            stem=_one_of("settings.stem", settings["stem"], STEMS),
            groups=groups,
            width_per_group=width_per_group,
        )


class MobileNetV2Family(ReallocatedFamily):
    """MobileNetV2: ``settings`` stem, width_multiplier."""

    name = "crnas.mobilenetv2"
    module = "search_spaces.crnas.mobilenet"
    network = "MobileNetV2"

    def validate(self, architecture: Architecture) -> None:
        """Check every setting and gene; see :meth:`Family.validate`."""
        self._shape(architecture)

    def layers(self, architecture: Architecture) -> tuple[Layer, ...]:
        """Every layer in execution order."""
        return tuple(mobilenet_layers(self._shape(architecture)))

    def cost_by_stage(self, architecture: Architecture, input_size: tuple[int, int]) -> dict[str, Cost]:
        """In closed form; see :meth:`Family.cost_by_stage`."""
        return mobilenet_costs(self._shape(architecture), input_size)

    def levels(self, architecture: Architecture) -> dict[str, Level]:
        """Channels and stride of c2 to c5; c5 is the 1280-wide map."""
        return mobilenet_levels(self._shape(architecture))

    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments of :class:`search_spaces.crnas.mobilenet.MobileNetV2`."""
        return asdict(self._shape(architecture))

    def _shape(self, architecture: Architecture) -> MobileNetV2Shape:
        check_identity(self, architecture)
        settings = architecture.settings
        check_keys("settings", settings, ("stem", "width_multiplier"))
        multiplier = settings["width_multiplier"]
        # 1 and 1.0 would be one network with two digests.
        if not isinstance(multiplier, float) or not multiplier > 0:
            raise InvalidArchitecture(
                f"settings.width_multiplier: found {multiplier!r}; allowed are positive numbers written "
                f"with a point, as 1.0"
            )
        blocks, dilations = _genes(architecture)
        if blocks[2] < 2:
            raise InvalidArchitecture(
                f"blocks: found {list(blocks)}; the third stage of MobileNetV2 has two widths and needs "
                f"at least 2 blocks"
            )
        return MobileNetV2Shape(
            blocks=blocks,
            dilations=dilations,
            stem=_one_of("settings.stem", settings["stem"], ("imagenet",)),
            width_multiplier=multiplier,
        )


RESNET = ResNetFamily()
MOBILENETV2 = MobileNetV2Family()


def _one_of(where: str, value: Value, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidArchitecture(f"{where}: found {value!r}; allowed are {', '.join(allowed)}")
    return value


def _positive(where: str, value: Value) -> int:
    if not isinstance(value, int) or value < 1:
        raise InvalidArchitecture(f"{where}: found {value!r}; allowed are integers from 1")
    return value


def _positives(where: str, value: Value) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise InvalidArchitecture(f"{where}: found {value!r}; allowed are lists of integers from 1")
    found = tuple(part for part in value if isinstance(part, int) and part >= 1)
    # A search asks for tens of thousands of these: the place of a value is written only where one is wrong.
    if len(found) != len(value):
        for index, part in enumerate(value):
            _positive(f"{where}[{index}]", part)
    return found


def _genes(architecture: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    check_keys("genes", architecture.genes, GENES)
    blocks = _positives("blocks", architecture.genes["blocks"])
    if len(blocks) != 4:
        raise InvalidArchitecture(f"blocks: found {list(blocks)}; allowed are four block counts, one a stage")
    dilations = _positives("dilations", architecture.genes["dilations"])
    if len(dilations) != sum(blocks):
        raise InvalidArchitecture(
            f"dilations: found {len(dilations)} for blocks {list(blocks)}; needed is one for each of the "
            f"{sum(blocks)} blocks"
        )
    if not set(dilations) <= set(DILATIONS):
        raise InvalidArchitecture(f"dilations: found {list(dilations)}; allowed are {list(DILATIONS)}")
    return blocks, dilations
