"""Mobile SpineNet: a scale-permuted backbone of inverted bottlenecks with squeeze and excitation.

Imports only torch: an exported network carries this file's text. Du et al. 2020 (arXiv 1912.05027), appendix A,
in the details as the authors' released code, but for widths, which are cut off and not rounded to eights.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {0: 8, 1: 16, 2: 24, 3: 40, 4: 80, 5: 112, 6: 112, 7: 112}
"""Of a block by level, before scaling; 0 is the first convolution."""
STEM = (1, 2)
"""Levels of the two stem blocks."""
OUTPUTS = 5
"""Blocks that make P3 to P7; they come last."""
EXPANSION, SE_RATIO = 6, 0.2
"""Of a block: width inside by width read, and width of the gate by width read."""

Block = tuple[int, Sequence[int], Sequence[int]]
"""Level, places that are resampled, places that are added as they are."""


class MBConv(nn.Module):
    """1x1 expansion, depthwise 3x3, gate, 1x1 projection without activation; a shortcut where it fits."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, activation: str, gate: str) -> None:
        super().__init__()
        inner = inputs * EXPANSION
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = norm(inner)
        self.se = SqueezeExcitation(inner, max(1, int(SE_RATIO * inputs)), activation, gate)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.act = layer(ACTIVATIONS, activation)
        self.shortcut = stride == 1 and inputs == outputs
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        out = self.act(self.bn1(self.conv1(x)))
        out = self.se(self.act(self.bn2(self.conv2(out))))
        out = self.bn3(self.conv3(out))
        if not self.shortcut:
            return out  # type: ignore[no-any-return]
        return x + drop_branch(out, self.drop_path if self.training else 0.0)


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from the means of all (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: str, gate: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, squeezed, 1)
        self.act = layer(ACTIVATIONS, activation)
        self.conv2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = layer(GATES, gate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.conv2(self.act(self.conv1(mean))))  # type: ignore[no-any-return]


class Resample(nn.Module):
    """Brings a map to the level and width of the block that reads it; the sum's activation is not its own.

    Args:
        inputs: channels read.
        outputs: channels written.
        down: levels downwards in resolution, a depthwise convolution each; negative: upwards.
        activation: name of the activation.
    """

    def __init__(self, inputs: int, outputs: int, *, down: int, activation: str) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for _ in range(down):
            depthwise = nn.Conv2d(inputs, inputs, 3, 2, padding=1, groups=inputs, bias=False)
            steps += [depthwise, norm(inputs), layer(ACTIVATIONS, activation)]
        self.down = nn.Sequential(*steps)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1 = norm(outputs)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, *size)."""
        return self.bn1(self.conv1(resized(self.down(x), size)))  # type: ignore[no-any-return]


class Inputs(nn.ModuleList):
    """The resamplings of one block's parents, and the sum of all that the block reads.

    Args:
        resamples: one for each parent.
        level: of the block.
        parents: places that are resampled.
        merged: places that are added as they are.
    """

    def __init__(
        self,
        resamples: Sequence[Resample],
        *,
        level: int,
        parents: Sequence[int],
        merged: Sequence[int],
    ) -> None:
        super().__init__(resamples)
        self.level, self.parents, self.merged = level, tuple(parents), tuple(merged)

    def forward(self, maps: Sequence[Tensor], image: tuple[int, int]) -> Tensor:
        """Maps of all earlier places and the image's (height, width) -> the block's input, not yet activated."""
        size = (-(-image[0] // 2**self.level), -(-image[1] // 2**self.level))
        found: list[Tensor] = [
            resample(maps[place], size) for place, resample in zip(self.parents, self, strict=True)
        ]
        found += [maps[place] for place in self.merged]
        out = found[0]
        for other in found[1:]:
            out = out + other
        return out


class MobileSpineNet(nn.Module):
    """A stem of two blocks, blocks in an order of any scales, and 1x1 convolutions that make P3 to P7.

    Args:
        blocks: the permuted blocks in order, the last five being those of P3 to P7; parents count places from
            0, the stem's two blocks being 0 and 1.
        filter_size_scale: times the widths of all blocks; halves are cut off.
        repeats: copies of each block in sequence, stem included.
        endpoint: channels of P3 to P7.
        activation: ``"swish"`` or ``"hswish"``.
        gate: ``"sigmoid"`` or ``"hard_sigmoid"``.
        drop_path: see :meth:`set_drop_path`.

    Attributes:
        levels: name -> (channels, stride) of what ``forward`` returns.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[Block],
        filter_size_scale: float = 1.0,
        repeats: int = 1,
        endpoint: int = 48,
        activation: str = "swish",
        gate: str = "sigmoid",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = {level: int(base * filter_size_scale) for level, base in WIDTHS.items()}
        self.conv1 = nn.Conv2d(3, width[0], 3, 2, padding=1, bias=False)
        self.bn1 = norm(width[0])
        self.act = layer(ACTIVATIONS, activation)

        def group(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            first = MBConv(inputs, outputs, stride=stride, activation=activation, gate=gate)
            rest = (MBConv(outputs, outputs, activation=activation, gate=gate) for _ in range(repeats - 1))
            return nn.Sequential(first, *rest)

        self.stem = nn.ModuleList([group(width[0], width[1], 1), group(width[1], width[2], 2)])
        levels = [*STEM, *(level for level, _, _ in blocks)]
        resamples = []
        for level, parents, merged in blocks:
            made = [
                Resample(
                    width[levels[parent]], width[level], down=level - levels[parent], activation=activation
                )
                for parent in parents
            ]
            resamples.append(Inputs(made, level=level, parents=parents, merged=merged))
        self.resamples = nn.ModuleList(resamples)
        self.blocks = nn.ModuleList(group(width[level], width[level], 1) for level, _, _ in blocks)
        ends = {f"p{levels[place]}": place for place in range(len(levels) - OUTPUTS, len(levels))}
        self.ends = dict(sorted(ends.items()))
        self.endpoints = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(width[levels[place]], endpoint, 1, bias=False),
                    norm(endpoint),
                    layer(ACTIVATIONS, activation),
                )
                for name, place in self.ends.items()
            }
        )
        self.levels = {name: (endpoint, 2 ** levels[place]) for name, place in self.ends.items()}
        self.set_drop_path(drop_path)
        initialise(self)

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth: in training, the last permuted block drops its branch for this share of images.

        The rate of earlier ones falls linearly with their position; stem blocks drop nothing. No part of the
        architecture: a network of any rate has the same weights and outputs in evaluation.
        """
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path: found {rate}; allowed are rates from 0 to below 1")
        for index, copies in enumerate(self.blocks):
            for block in copies.children():
                assert isinstance(block, MBConv)
                block.drop_path = rate * (index + 1) / len(self.blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> ``{"p3": (N, C, H/8, W/8), ..., "p7": (N, C, H/128, W/128)}``, rounded up."""
        image = (x.shape[-2], x.shape[-1])
        x = self.act(self.bn1(self.conv1(x)))
        maps = []
        for block in self.stem:
            x = block(x)
            maps.append(x)
        for inputs, block in zip(self.resamples, self.blocks, strict=True):
            maps.append(block(self.act(inputs(maps, image))))
        return {name: layers(maps[self.ends[name]]) for name, layers in self.endpoints.items()}


ACTIVATIONS: dict[str, type[nn.Module]] = {"swish": nn.SiLU, "hswish": nn.Hardswish}
GATES: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}


def layer(table: dict[str, type[nn.Module]], name: str) -> nn.Module:
    """The layer of this name."""
    if name not in table:
        raise ValueError(f"unknown {name!r}; allowed are {sorted(table)}")
    return table[name]()


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the authors' epsilon and decay 0.99."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The map at this size, by nearest neighbour; where sides do not divide, some cells are repeated less."""
    return x if x.shape[-2:] == size else functional.interpolate(x, size=size, mode="nearest")


def drop_branch(x: Tensor, rate: float) -> Tensor:
    """Zero for each image with this probability, else divided by the rest of it: the mean stays."""
    if rate == 0.0:
        return x
    keep = 1.0 - rate
    kept = torch.rand((x.shape[0], 1, 1, 1), device=x.device) < keep
    return x * (kept.to(x.dtype) / keep)


def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew: He normal (fan out of one group) for convolutions, one and zero for the rest."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * module.kernel_size[0] ** 2
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
