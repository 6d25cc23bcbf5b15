"""ResNet and ResNeXt backbones with free block counts per stage and a dilation per block.

Imports only torch: an exported network carries this file's text. Attribute names are torchvision's, so its
weights load with strict keys (all but ``fc``). He et al. 2016 and Xie et al. 2017, with the stride in the
3x3 convolution; dilations as in Liang et al. 2020 (section 3.2.2): the second 3x3 of a basic block, the
centre 3x3 of a bottleneck.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDES = (1, 2, 2, 2)
"""Stride of the first block of each stage; the stem has stride 4."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the second convolution is the dilated one."""

    expansion = 1
    dilated = ("conv2", "bn2")

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        if groups != 1 or width_per_group != 64:
            raise ValueError(
                f"a basic block has groups=1 and width_per_group=64; found {groups} and {width_per_group}"
            )
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 carries stride, groups and dilation."""

    expansion = 4
    dilated = ("conv2", "bn2")

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        inner = int(width * (width_per_group / 64.0)) * groups
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(
            inner, inner, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The shortcut's 1x1 convolution, where the block changes size or channels; else ``None``."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def stem_layers(stem: str, channels: int) -> dict[str, nn.Module]:
    """The layers before the first stage by attribute name, in order; stride 4 together.

    Args:
        stem: ``"imagenet"`` (7x7 and 3x3 max-pool), ``"ceil_pool"`` (7x7 and 2x2 max-pool with sizes rounded
            up, the variant of the released stage-reallocated models) or ``"small"`` (3x3 and 3x3 max-pool).
        channels: written by the convolution.
    """
    if stem not in ("imagenet", "ceil_pool", "small"):
        raise ValueError(f"unknown stem {stem!r}; allowed are 'imagenet', 'ceil_pool' and 'small'")
    kernel = 3 if stem == "small" else 7
    pool = nn.MaxPool2d(2, 2, ceil_mode=True) if stem == "ceil_pool" else nn.MaxPool2d(3, 2, padding=1)
    return {
        "conv1": nn.Conv2d(3, channels, kernel, 2, padding=kernel // 2, bias=False),
        "bn1": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(inplace=True),
        "maxpool": pool,
    }


def stage_blocks(
    block: str,
    inputs: int,
    width: int,
    *,
    stride: int,
    dilations: Sequence[int],
    groups: int = 1,
    width_per_group: int = 64,
) -> list[BasicBlock | Bottleneck]:
    """The blocks of one stage, one for each dilation; the first reads ``inputs`` and has the stride."""
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; allowed are {sorted(BLOCKS)}")
    made = BLOCKS[block]
    return [
        made(
            inputs if index == 0 else width * made.expansion,
            width,
            stride=stride if index == 0 else 1,
            dilation=dilation,
            groups=groups,
            width_per_group=width_per_group,
        )
        for index, dilation in enumerate(dilations)
    ]


def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew: He normal (fan out) for convolutions, one and zero for normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class ResNet(nn.Module):
    """A backbone of four stages at strides 4, 8, 16 and 32.

    Args:
        block: ``"basic"`` or ``"bottleneck"``.
        blocks: number of blocks in each of the four stages.
        dilations: one for each block, stage after stage.
        widths: base width of each stage; the stem writes the first.
        stem: see :func:`stem_layers`.
        groups: of the bottleneck's 3x3 convolution (32 for ResNeXt-32x4d).
        width_per_group: as torchvision counts it (4 for ResNeXt-32x4d).

    Attributes:
        levels: name -> (channels, stride) of what ``forward`` returns.
    """

    def __init__(
        self,
        *,
        block: str,
        blocks: Sequence[int],
        dilations: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: str = "imagenet",
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(widths) != 4 or len(dilations) != sum(blocks):
            raise ValueError(
                f"a ResNet needs four block counts, four widths and a dilation for each block; "
                f"found blocks={list(blocks)}, widths={list(widths)} and {len(dilations)} dilations"
            )
        first = stem_layers(stem, widths[0])
        self.conv1, self.bn1, self.relu, self.maxpool = first.values()
        stages = []
        self.levels: dict[str, tuple[int, int]] = {}
        channels, total_stride, start = widths[0], 4, 0
        for stage, (count, width, stride) in enumerate(zip(blocks, widths, STRIDES, strict=True)):
            chain = stage_blocks(
                block,
                channels,
                width,
                stride=stride,
                dilations=dilations[start : start + count],
                groups=groups,
                width_per_group=width_per_group,
            )
            stages.append(nn.Sequential(*chain))
            channels, total_stride, start = (
                width * BLOCKS[block].expansion,
                total_stride * stride,
                start + count,
            )
            self.levels[f"c{stage + 2}"] = (channels, total_stride)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        initialise(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> ``{"c2": (N, C, H/4, W/4), ..., "c5": (N, C, H/32, W/32)}``, rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = {}
        maps["c2"] = x = self.layer1(x)
        maps["c3"] = x = self.layer2(x)
        maps["c4"] = x = self.layer3(x)
        maps["c5"] = self.layer4(x)
        return maps
