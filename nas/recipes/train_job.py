"""What ``nas train`` reads."""

from dataclasses import dataclass, field
from typing import Literal

from nas.recipes.loggers import LoggerName, require_each_once
from search_spaces.recipe import Recipe
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe, require_masks


@dataclass(frozen=True, kw_only=True)
class TrainJobRecipe(Recipe):
    """What ``nas train BUNDLE RECIPE`` reads: one training of one backbone to completion.

    Args:
        name: shown in results.
        seed: of initial weights, order and augmentation.
        threads: torch threads; part of the record, because sums depend on it.
        device: ``auto`` takes a GPU where there is one.
        loggers: as of a search; no part of the training's record.
        data: the images.
        detector: built around the backbone.
        init: ``scratch``, as the paper's table compares networks, or ``bundle``: the backbone begins with the
            bundle's weights, for other images or another detector.
        activation: trains the network with this activation in place of its own (SpineNet's protocol C retrains
            with swish what was found with ReLU); a network whose family has no such setting is refused.
        train: length, optimiser, schedule.
    """

    name: str
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    loggers: tuple[LoggerName, ...] = ()
    data: DataRecipe = field(default_factory=DataRecipe)
    detector: DetectorRecipe = field(default_factory=DetectorRecipe)
    init: Literal["scratch", "bundle"] = "scratch"
    activation: Literal["relu", "swish", "hswish"] | None = None
    train: TrainRecipe

    def __post_init__(self) -> None:
        require_each_once(self, self.loggers)
        require_masks(self.data, self.detector)
