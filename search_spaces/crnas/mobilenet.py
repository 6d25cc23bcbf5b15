"""MobileNetV2 backbones with free block counts per stride and a dilation per block.

Imports only torch: an exported network carries this file's text. Attribute names are torchvision's, so its
weights load with strict keys (all but ``classifier``). Sandler et al. 2018. The counts searched are those at
strides 4, 8, 16 and 32 (widths 24, 32, 64 then 96, and 160); the 16-, 320- and 1280-wide layers stay. The
depthwise 3x3 convolution is the dilated one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDES = (2, 2, 2, 2)
"""Stride of the first block of each stage; the stem has stride 2."""


def scaled(width: int, multiplier: float) -> int:
    """A width times the multiplier, as a multiple of 8 that loses no more than a tenth."""
    wanted = width * multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def stage_widths(stage: int, count: int, multiplier: float) -> list[int]:
    """Output width of each block of a stage; at stride 16, round(4/7 count) blocks are narrower.

    Args:
        stage: 0 to 3, for strides 4, 8, 16 and 32.
        count: blocks in it.
        multiplier: of all widths.
    """
    narrow, wide = ((24, 24), (32, 32), (64, 96), (160, 160))[stage]
    first = round(4 * count / 7)
    return [scaled(narrow if index < first else wide, multiplier) for index in range(count)]


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs,
                outputs,
                kernel,
                stride,
                padding=kernel // 2 * dilation,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; with a shortcut where sizes and channels stay."""

    dilated = ("conv.1.0", "conv.1.1")

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1, expand: int = 6
    ) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = [] if expand == 1 else [ConvNorm(inputs, hidden, 1)]
        layers += [
            ConvNorm(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


def stem_layers(multiplier: float) -> list[nn.Module]:
    """The layers before the first stage: 3x3 convolution with stride 2 and the 16-wide block."""
    channels = scaled(32, multiplier)
    return [
        ConvNorm(3, channels, 3, stride=2),
        InvertedResidual(channels, scaled(16, multiplier), expand=1),
    ]


def stage_blocks(
    inputs: int, widths: Sequence[int], *, stride: int, dilations: Sequence[int]
) -> list[InvertedResidual]:
    """The blocks of one stage; the first reads ``inputs`` and has the stride."""
    return [
        InvertedResidual(
            inputs if index == 0 else widths[index - 1],
            width,
            stride=stride if index == 0 else 1,
            dilation=dilation,
        )
        for index, (width, dilation) in enumerate(zip(widths, dilations, strict=True))
    ]


def tail_layers(multiplier: float) -> list[nn.Module]:
    """The layers after the last stage: the 320-wide block and the 1280-wide 1x1 convolution."""
    width = scaled(320, multiplier)
    return [
        InvertedResidual(scaled(160, multiplier), width),
        ConvNorm(width, scaled(1280, max(1.0, multiplier)), 1),
    ]


def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew: He normal (fan out) for convolutions, one and zero for normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class MobileNetV2(nn.Module):
    """A backbone of four stages at strides 4, 8, 16 and 32.

    Args:
        blocks: number of blocks in each of the four stages; at least two in the third.
        dilations: one for each of these blocks, stage after stage.
        stem: ``"imagenet"``, the only one.
        width_multiplier: of all widths (the 1280-wide layer is never narrowed).

    Attributes:
        levels: name -> (channels, stride) of what ``forward`` returns.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        dilations: Sequence[int],
        stem: str = "imagenet",
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(dilations) != sum(blocks):
            raise ValueError(
                f"a MobileNetV2 needs four block counts and a dilation for each block; "
                f"found blocks={list(blocks)} and {len(dilations)} dilations"
            )
        if stem != "imagenet":
            raise ValueError(f"unknown stem {stem!r}; allowed is 'imagenet'")
        features = stem_layers(width_multiplier)
        channels, total_stride, start = scaled(16, width_multiplier), 2, 0
        self.levels: dict[str, tuple[int, int]] = {}
        self.ends: dict[int, str] = {}
        for stage, (count, stride) in enumerate(zip(blocks, STRIDES, strict=True)):
            widths = stage_widths(stage, count, width_multiplier)
            features += stage_blocks(
                channels, widths, stride=stride, dilations=dilations[start : start + count]
            )
            channels, total_stride, start = widths[-1], total_stride * stride, start + count
            # c5 is the map that torchvision's detectors read too: the 1280-wide one, so no weight is idle.
            if stage == 3:
                features += tail_layers(width_multiplier)
                channels = scaled(1280, max(1.0, width_multiplier))
            self.levels[f"c{stage + 2}"] = (channels, total_stride)
            self.ends[len(features) - 1] = f"c{stage + 2}"
        self.features = nn.Sequential(*features)
        initialise(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> ``{"c2": (N, C, H/4, W/4), ..., "c5": (N, C, H/32, W/32)}``, rounded up."""
        maps = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                maps[self.ends[index]] = x
        return maps
