"""A feature pyramid over any backbone that declares its levels (Lin et al. 2017)."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
)

from search_spaces.errors import ConfigError, InvalidArchitecture


class Backbone(Protocol):
    """What a detector needs of a backbone.

    ``levels`` declares (channels, stride) of every map before it runs; ``forward`` of images (N, 3, H, W)
    returns one map a level, (N, channels, H / stride, W / stride).
    """

    levels: Mapping[str, tuple[int, int]]

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]: ...


class LastLevelConv(ExtraFPNBlock):  # type: ignore[misc]  # torchvision ships no types
    """One more, coarser map: a 3x3 convolution of stride 2 on the last pyramid map (P6 of FCOS)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Append the map; ``x`` (the backbone's maps) is part of torchvision's interface."""
        del x
        return [*results, self.conv(results[-1])], [*names, "extra"]


class AsTheyAre(nn.Module):
    """In the place of an FPN: the maps unchanged, and perhaps one more, coarser one."""

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
        fpn: whether maps are merged from coarse to fine; without it the backbone's own are ``channels`` wide.
        extra: how one more, coarser map is made, or None.

    Raises:
        ConfigError: a level that the backbone does not declare, levels not from fine to coarse, or without an
            FPN maps of another width.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        levels: Sequence[str],
        channels: int,
        fpn: bool = True,
        extra: Literal["conv", "pool"] | None = None,
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
        block = {"conv": LastLevelConv(channels), "pool": LastLevelMaxPool(), None: None}[extra]
        self.body = backbone
        self.fpn: nn.Module
        if fpn:
            self.fpn = FeaturePyramidNetwork(
                [declared[name][0] for name in levels], channels, extra_blocks=block
            )
        else:
            _require_width({name: declared[name][0] for name in levels}, channels)
            self.fpn = AsTheyAre(block)
        self.out_channels = channels
        self.strides: tuple[int, ...] = (*strides, 2 * strides[-1]) if extra else tuple(strides)
        self.names = tuple(levels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps fine to coarse, all ``out_channels`` wide.

        Args:
            images: normalised, (N, 3, H, W).

        Raises:
            InvalidArchitecture: the backbone does not give what it declared.
        """
        maps = self.body(images)
        missing = [name for name in self.names if name not in maps]
        if missing:
            raise InvalidArchitecture(f"the backbone declared levels {missing} but returned {sorted(maps)}")
        for name, stride in zip(self.names, self.strides, strict=False):
            expected = (images.shape[-2] // stride, images.shape[-1] // stride)
            if tuple(maps[name].shape[-2:]) != expected:
                raise InvalidArchitecture(
                    f"the backbone declared stride {stride} for {name}, so a map of {expected} px from "
                    f"images of {tuple(images.shape[-2:])} px; it returned {tuple(maps[name].shape[-2:])}"
                )
        merged: dict[str, Tensor] = self.fpn(OrderedDict((name, maps[name]) for name in self.names))
        return merged


def _require_width(found: Mapping[str, int], channels: int) -> None:
    odd = {name: width for name, width in found.items() if width != channels}
    if odd:
        raise ConfigError(
            f"detector.fpn_channels: found {channels}, but without an FPN the maps enter as they are and "
            f"{', '.join(f'{name} has {width} channels' for name, width in odd.items())}; set it to the backbone's "
            "width, or detector.pyramid to fpn"
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
