"""The head of RetinaNet (Lin et al. 2017) as Du et al. 2020 train SpineNet with it."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trainers.detectors.norm import Norm

# An anchor is an object once in a hundred times at the start (Lin et al. 2017, section 4.1).
_PRIOR = 0.01
# Of the outputs, in the authors' code; towers end in batch normalisation, so larger ones would begin with noise.
_OUTPUT_STD = 1e-5

Activation = Literal["relu", "swish"]


class RetinaNetHead(nn.Module):
    """Two towers of 3x3 convolutions with bias, shared over the levels; each level has normalisation of its own.

    Du et al. 2020, section 4.1, in the details as the authors' code (``tensorflow/tpu``,
    ``models/official/detection``).

    Args:
        channels: of the maps.
        levels: how many maps there are.
        num_classes: logits of an anchor.
        anchors: per cell.
        convs: in each tower.
        width: of the towers.
        activation: after each normalisation.
        norm: makes one of them.
        separable: 3x3 convolutions are depthwise without bias, followed by 1x1 with bias, as in the paper's
            networks for mobile devices (appendix A).
    """

    def __init__(
        self,
        channels: int,
        *,
        levels: int,
        num_classes: int,
        anchors: int,
        convs: int,
        width: int,
        activation: Activation,
        norm: Norm,
        separable: bool,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classes = Tower(
            channels,
            levels=levels,
            convs=convs,
            width=width,
            activation=activation,
            norm=norm,
            separable=separable,
        )
        self.boxes = Tower(
            channels,
            levels=levels,
            convs=convs,
            width=width,
            activation=activation,
            norm=norm,
            separable=separable,
        )
        inputs = width if convs else channels
        self.cls_logits = _conv(inputs, anchors * num_classes, separable=separable, std=_OUTPUT_STD)
        self.bbox_pred = _conv(inputs, anchors * 4, separable=separable, std=_OUTPUT_STD)
        nn.init.constant_(_bias(self.cls_logits), -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All levels in a row: float32 logits (N, L, C) and box codes (N, L, 4), cells row by row, then anchors.

        Args:
            maps: fine to coarse, (N, channels, H, W) each.
        """
        logits, codes = [], []
        for level, one in enumerate(maps):
            found = self.cls_logits(self.classes(one, level))
            # Free where maps lie in memory with channels last. len() would fix the batch of an exported graph.
            logits.append(found.permute(0, 2, 3, 1).reshape(one.shape[0], -1, self.num_classes))
            found = self.bbox_pred(self.boxes(one, level))
            codes.append(found.permute(0, 2, 3, 1).reshape(one.shape[0], -1, 4))
        return torch.cat(logits, dim=1).float(), torch.cat(codes, dim=1).float()


class Tower(nn.Module):
    """Convolutions that all levels share, with normalisation that they do not; arguments as for the head."""

    def __init__(
        self,
        channels: int,
        *,
        levels: int,
        convs: int,
        width: int,
        activation: Activation,
        norm: Norm,
        separable: bool,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            _conv(width if index else channels, width, separable=separable, std=0.01)
            for index in range(convs)
        )
        self.norms = nn.ModuleList(nn.ModuleList(norm(width) for _ in range(levels)) for _ in range(convs))
        self.act: nn.Module = nn.ReLU(inplace=True) if activation == "relu" else nn.SiLU()

    def forward(self, x: Tensor, level: int) -> Tensor:
        """(N, channels, H, W) of this level -> (N, width, H, W)."""
        for conv, norms in zip(self.convs, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            x = self.act(norms[level](conv(x)))
        return x


def _conv(inputs: int, outputs: int, *, separable: bool, std: float) -> nn.Module:
    """A 3x3 convolution with bias; the first of two where it is separable has none."""
    last = nn.Conv2d(inputs, outputs, 1 if separable else 3, padding=0 if separable else 1)
    nn.init.normal_(last.weight, std=std)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    if not separable:
        return last
    return nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), last)


def _bias(conv: nn.Module) -> Tensor:
    last = conv[-1] if isinstance(conv, nn.Sequential) else conv
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    return last.bias
