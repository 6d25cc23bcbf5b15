"""The head of FCOS (Tian et al. 2019), one set of weights for all levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Distances begin at about two anchors, inside every level's range.
_FIRST_DISTANCE = 2.0
# A location is an object once in a hundred times at the start (Lin et al. 2017, focal loss).
_PRIOR = 0.01
_CHANNELS_PER_GROUP = 8


class FCOSHead(nn.Module):
    """Towers of 3x3 convolutions, then class logits, distances and centerness.

    What torchvision's head computes, with two differences that make it cheaper on a CPU, distances and
    centerness leave one convolution and both outputs may share one tower, and one that keeps it alive:
    distances pass a softplus. Torchvision's ReLU can die: once all outputs are negative, every box is empty,
    GIoU loss is exactly 1 and has no gradient, and AP stays 0.

    Args:
        channels: width of the maps; 8 channels a group in GroupNorm, as the paper's 32 groups at 256.
        num_classes: logits of a location.
        convs: convolutions of a tower.
        shared: one tower for both outputs instead of one each.
    """

    def __init__(self, channels: int, num_classes: int, *, convs: int, shared: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.towers = nn.ModuleList(_tower(channels, convs) for _ in range(1 if shared else 2))
        self.cls_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.box = nn.Conv2d(channels, 5, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.cls_logits.bias is not None and self.box.bias is not None
        nn.init.constant_(self.box.bias[:4], _FIRST_DISTANCE)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """All levels in a row: logits (N, L, C), reaches (N, L, 4), of which :meth:`distances` are made, and centerness
        logits (N, L).

        Args:
            maps: fine to coarse, (N, channels, H, W) each.
        """
        logits, boxes = [], []
        for one in maps:
            classes = self.towers[0](one)
            # The last tower is the first one where both outputs share it.
            regression = classes if len(self.towers) == 1 else self.towers[1](one)
            logits.append(self.cls_logits(classes).flatten(2))
            boxes.append(self.box(regression).flatten(2))
        box = torch.cat(boxes, dim=2).transpose(1, 2).float()
        return (
            torch.cat(logits, dim=2).transpose(1, 2).float(),
            box[..., :4],
            box[..., 4],
        )

    @staticmethod
    def distances(reaches: Tensor) -> Tensor:
        """In anchors, above zero; of some places as well as of all, for few of these are ever asked for."""
        return nn.functional.softplus(reaches)


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(min(32, channels // _CHANNELS_PER_GROUP), channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
