"""A feature pyramid over any backbone that declares its levels (Lin et al. 2017; Liu et al. 2018)."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, Protocol

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from search_spaces.errors import ConfigError, InvalidArchitecture
from trainers.recipes import Pyramid


class Backbone(Protocol):
    """What a detector needs of a backbone.

    ``levels`` declares (channels, stride) of every map before it runs; ``forward`` of images (N, 3, H, W)
    returns one map a level, (N, channels, H / stride, W / stride).
    """

    levels: Mapping[str, tuple[int, int]]

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]: ...


class ExtraConvs(ExtraFPNBlock):  # type: ignore[misc]  # torchvision ships no types
    """Coarser maps by 3x3 convolutions of stride 2, the first on the last pyramid map, a ReLU between them.

    P6 and P7 of FCOS (Tian et al. 2019, section 3.2) and RetinaNet (Lin et al. 2017, section 4).
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1) for _ in range(count)
        )
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Append the maps; ``x`` (the backbone's maps) is part of torchvision's interface."""
        del x
        made = [self.convs[0](self._wide(results[-1]))]
        for conv in self.convs[1:]:
            made.append(conv(self._wide(nn.functional.relu(made[-1]))))
        return [*results, *made], [*names, *extra_names(len(made))]

    def _wide(self, one: Tensor) -> Tensor:
        """A map of one column with a column of zeros beside it, which changes no output.

        In bfloat16 on a CPU the weights' gradient of a convolution of stride 2 on a single column is partly
        uninitialised memory (torch 2.14.1 with oneDNN on AVX-512 or AMX).
        """
        return nn.functional.pad(one, (0, 1)) if self.training and one.shape[-1] == 1 else one


class ExtraPools(ExtraFPNBlock):  # type: ignore[misc]
    """Coarser maps by taking every second cell, without weights (P6 of Lin et al. 2017, FPN, section 4.1)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Append the maps; ``x`` (the backbone's maps) is part of torchvision's interface."""
        del x
        made = [nn.functional.max_pool2d(results[-1], 1, 2)]
        for _ in range(1, self.count):
            made.append(nn.functional.max_pool2d(made[-1], 1, 2))
        return [*results, *made], [*names, *extra_names(len(made))]


class PAFPN(FeaturePyramidNetwork):  # type: ignore[misc]
    """An FPN and after it a path from fine to coarse (Liu et al. 2018, section 3.1).

    N2 is P2; N(i+1) is a 3x3 convolution of the sum of P(i+1) and of a 3x3 convolution of N(i) with stride 2, a ReLU
    behind every convolution.

    Args:
        inputs: channels of the backbone's maps, fine to coarse; each of half the size of the one before.
        channels: of the maps that come out.
        extra: coarser maps after them.
    """

    def __init__(self, inputs: Sequence[int], channels: int, extra: ExtraFPNBlock | None) -> None:
        super().__init__(list(inputs), channels)
        steps = range(len(inputs) - 1)
        self.down = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in steps)
        self.merged = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in steps)
        self.extra = extra
        for conv in (*self.down, *self.merged):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps fine to coarse, (N, inputs, H, W) -> (N, channels, H, W) each, and the coarser ones."""
        merged: dict[str, Tensor] = super().forward(OrderedDict(maps))
        found: list[Tensor] = []
        for index, one in enumerate(merged.values()):
            if index:
                below = nn.functional.relu(self.down[index - 1](found[-1]))
                one = nn.functional.relu(self.merged[index - 1](one + below))
            found.append(one)
        names = list(merged)
        if self.extra is not None:
            found, names = self.extra(found, list(maps.values()), names)
        return dict(zip(names, found, strict=True))


class AsTheyAre(nn.Module):
    """In the place of an FPN: the maps unchanged, and perhaps coarser ones after them."""

    def __init__(self, extra: ExtraFPNBlock | None) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps fine to coarse, (N, channels, H, W) each."""
        if self.extra is None:
            return dict(maps)
        found, names = self.extra(list(maps.values()), list(maps.values()), list(maps))
        return dict(zip(names, found, strict=True))


class BackboneWithPyramid(nn.Module):
    """Backbone and FPN; attribute names are those of torchvision's ``BackboneWithFPN``.

    A backbone that is a pyramid itself (SpineNet) goes without the FPN: its maps are taken as they are.

    Args:
        backbone: a module that keeps the contract of :class:`Backbone`.
        levels: which of its maps enter, fine to coarse.
        channels: width of every output map.
        pyramid: how maps are merged: ``fpn`` from coarse to fine, ``pafpn`` and back again, or ``none``, where the
            backbone's own are ``channels`` wide.
        extra: further maps, each half the size of the one before.
        extra_by: how they are made: stride-2 convolutions, or pooling.

    Attributes:
        levels: names of the backbone's maps.
        strides: px of the image per cell, one for every map, the further ones included.
        names: of every map; the further ones are ``extra1`` and so on.
        multiple: px that both sides of an image are multiples of: the largest stride that the backbone declares.

    Raises:
        ConfigError: a level that the backbone does not declare, levels not from fine to coarse, for ``pafpn`` strides
            that do not double, or without an FPN maps of another width.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        levels: Sequence[str],
        channels: int,
        pyramid: Pyramid = "fpn",
        extra: int = 0,
        extra_by: Literal["conv", "pool"] = "conv",
    ) -> None:
        super().__init__()
        declared = declared_levels(backbone)
        unknown = [name for name in levels if name not in declared]
        if unknown:
            raise ConfigError(
                f"detector.levels: the backbone has no level {unknown}; it declares {sorted(declared)}"
            )
        strides = [declared[name][1] for name in levels]
        if strides != sorted(set(strides)):
            raise ConfigError(
                f"detector.levels: needs strides that rise from fine to coarse; {list(levels)} have {strides}"
            )
        block: ExtraFPNBlock | None = None
        if extra:
            block = ExtraConvs(channels, extra) if extra_by == "conv" else ExtraPools(extra)
        self.body = backbone
        self.fpn: nn.Module
        inputs = {name: declared[name][0] for name in levels}
        if pyramid == "none":
            _require_width(inputs, channels)
            self.fpn = AsTheyAre(block)
        elif pyramid == "pafpn":
            _require_doubling(dict(zip(levels, strides, strict=True)))
            self.fpn = PAFPN(list(inputs.values()), channels, block)
        else:
            self.fpn = FeaturePyramidNetwork(list(inputs.values()), channels, extra_blocks=block)
        self.out_channels = channels
        self.multiple = max(stride for _, stride in declared.values())
        self.strides: tuple[int, ...] = (*strides, *(2**step * strides[-1] for step in range(1, extra + 1)))
        self.levels = tuple(levels)
        self.names = (*levels, *extra_names(extra))

    def grids(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """(height, width) in cells of every map of images of this (height, width) in px.

        Only the further maps may be of a stride that does not divide the image; their cells are rounded up.
        """
        return [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in self.strides]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps fine to coarse, all ``out_channels`` wide.

        Args:
            images: normalised, (N, 3, H, W).

        Raises:
            InvalidArchitecture: the backbone does not give what it declared.
        """
        maps = self.body(images)
        missing = [name for name in self.levels if name not in maps]
        if missing:
            raise InvalidArchitecture(f"the backbone declared levels {missing} but returned {sorted(maps)}")
        for name, stride in zip(self.levels, self.strides, strict=False):
            expected = (images.shape[-2] // stride, images.shape[-1] // stride)
            if tuple(maps[name].shape[-2:]) != expected:
                raise InvalidArchitecture(
                    f"the backbone declared stride {stride} for {name}, so a map of {expected} px from "
                    f"images of {tuple(images.shape[-2:])} px; it returned {tuple(maps[name].shape[-2:])}"
                )
        merged: dict[str, Tensor] = self.fpn(OrderedDict((name, maps[name]) for name in self.levels))
        return merged


def extra_names(count: int) -> tuple[str, ...]:
    """Names of the maps that are coarser than the backbone's own."""
    return tuple(f"extra{number}" for number in range(1, count + 1))


def _require_width(found: Mapping[str, int], channels: int) -> None:
    odd = {name: width for name, width in found.items() if width != channels}
    if odd:
        raise ConfigError(
            f"detector.fpn_channels: found {channels}, but without an FPN the maps enter as they are and "
            f"{', '.join(f'{name} has {width} channels' for name, width in odd.items())}; set it to the backbone's "
            "width, or detector.pyramid to fpn"
        )


def _require_doubling(strides: Mapping[str, int]) -> None:
    steps = list(strides.values())
    if any(coarse != 2 * fine for fine, coarse in pairwise(steps)):
        raise ConfigError(
            f"detector.levels: found {list(strides)} of strides {steps}, but the path of pafpn goes up by convolutions "
            "of stride 2; take levels whose strides double, or set detector.pyramid to fpn"
        )


def declared_levels(backbone: nn.Module) -> dict[str, tuple[int, int]]:
    """``levels`` of a backbone as plain integers.

    Raises:
        ConfigError: it declares none.
    """
    levels = getattr(backbone, "levels", None)
    if not isinstance(levels, Mapping) or not levels:
        raise ConfigError(
            f"{type(backbone).__name__} cannot carry a detector: it needs an attribute `levels`, "
            "a dict of name -> (channels, stride)"
        )
    return {str(name): (int(channels), int(stride)) for name, (channels, stride) in levels.items()}
