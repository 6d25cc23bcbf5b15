"""Which blocks CR-NAS shares out; a hand-made network is such a space that nobody searches."""

from dataclasses import dataclass
from typing import Literal

from search_spaces.recipe import Recipe

NetworkName = Literal["resnet18", "resnet50", "resnet101", "resnext50", "resnext101", "mobilenetv2"]


@dataclass(frozen=True, kw_only=True)
class SpaceRecipe(Recipe):
    """Which CR-NAS space is searched; what is left out is the published one of ``network``.

    Args:
        network: the hand-made network whose blocks are reallocated; it is the baseline too.
        branches: allowed block counts of each stage; the table of the paper when left out.
        budget: number of blocks in all; the baseline's when left out.
        widths: channels of the four stages (before a bottleneck's expansion); ResNets only.
        width_multiplier: of every width; MobileNetV2 only.
        stem: ``imagenet``, ``ceil_pool`` or ``small``; the network's own when left out.
    """

    network: NetworkName = "resnet18"
    branches: tuple[tuple[int, ...], ...] | None = None
    budget: int | None = None
    widths: tuple[int, ...] | None = None
    width_multiplier: float | None = None
    stem: Literal["imagenet", "ceil_pool", "small"] | None = None
