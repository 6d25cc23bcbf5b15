"""Hand-made detectors beside the winner: another backbone with a pyramid and head of its own.

Du et al. 2020 (arXiv 1912.05027, section 5.3) compare SpineNet, which is a pyramid itself, with ResNet and an FPN.
Equal backbones would not be equal cost there, so widths are scaled until the whole detectors cost the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.config import check, to_data
from nas.initial_weights import InitialWeights, initial_weights
from nas.methods.catalog import baseline_of
from nas.methods.spaces import baseline_architecture
from nas.recipes.search import HandMadeRecipe, SearchRecipe
from nas.run import Run
from nas.targets import anchor, portable
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import family_of
from search_spaces.cost import Cost, cost
from search_spaces.errors import ConfigError, InvalidArchitecture
from trainers.detectors.catalog import build_detector
from trainers.recipes import DetectorRecipe

FILE = "hand_made.json"
_STEP = 4
"""Channels by which a stage's width changes."""
_REACH = 16.0
"""Widths are scaled by this factor at most, up or down."""
_FINE = 1e-3
"""Relative difference of factors at which the search for the right one ends."""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A network of the final table with its own detector.

    Args:
        name: of its row and of its folder under ``retrain/``.
        architecture: the backbone.
        detector: around it.
        init: what the backbone begins with; see :class:`nas.recipes.search.HandMadeRecipe`.
    """

    name: str
    architecture: Architecture
    detector: DetectorRecipe
    init: str = "scratch"

    def weights(self) -> InitialWeights | None:
        """What each of its trainings begins with; None for fresh weights.

        Raises:
            VertebraError: see :func:`nas.initial_weights.initial_weights`.
        """
        return initial_weights(self.init, remap=False, bundle="", architecture=self.architecture)


def hand_made(run: Run) -> dict[str, Rival]:
    """The hand-made rivals of a run by name, worked out once and then read from the run.

    To be called when the run knows its images, that is, after the search's data was opened.
    """
    recipes = () if run.recipe.retrain is None else run.recipe.retrain.hand_made
    if not recipes:
        return {}
    written = run.read_json(FILE)
    if written is None:
        facts = run.read_json("data.json")
        assert facts is not None, "the data was opened"
        height, width = facts["image_size"]
        found = [rival(recipe, run.recipe, len(facts["categories"]), (height, width)) for recipe in recipes]
        run.write_json(
            FILE,
            {
                "rivals": [
                    {
                        "name": one.name,
                        "architecture": one.architecture.to_dict(),
                        "detector": portable(to_data(one.detector)),
                        "init": one.init,
                    }
                    for one in found
                ]
            },
        )
        return {one.name: one for one in found}
    return {
        one["name"]: Rival(
            name=one["name"],
            architecture=Architecture.from_dict(one["architecture"]),
            detector=check(
                DetectorRecipe, anchor(one["detector"], run.directory), source=str(run.directory / FILE)
            ),
            init=one.get("init", "scratch"),
        )
        for one in written["rivals"]
    }


def rival(
    recipe: HandMadeRecipe, search: SearchRecipe, num_classes: int, image_size: tuple[int, int]
) -> Rival:
    """One rival, its widths scaled where the recipe asks for equal cost.

    Args:
        recipe: of the rival.
        search: gives the baseline, whose detector is the measure.
        num_classes: categories.
        image_size: (height, width) px at which multiply-adds are counted.

    Raises:
        ConfigError: settings that give no network, a detector that does not fit it, or no widths of equal cost.
    """

    def macs(architecture: Architecture, detector: DetectorRecipe) -> int:
        return detector_cost(architecture, detector, num_classes, image_size).macs

    try:
        architecture = baseline_architecture(recipe.space)
    except InvalidArchitecture as error:
        raise ConfigError(f"space: {error}") from error
    if recipe.equal_macs:
        wanted = macs(baseline_of(search), search.detector)
        architecture = _of_cost(architecture, wanted, lambda one: macs(one, recipe.detector))
    return Rival(name=recipe.name, architecture=architecture, detector=recipe.detector, init=recipe.init)


def detector_cost(
    architecture: Architecture, recipe: DetectorRecipe, num_classes: int, image_size: tuple[int, int]
) -> Cost:
    """Parameters and multiply-adds of a whole detector for one image.

    Convolutions and linear layers count, of a two-stage detector for the regions that it proposes in an image of
    zeros. The backbone counts as it is published, layer by layer, whatever shortcuts its forward pass takes.

    Args:
        architecture: the backbone.
        recipe: of the detector around it.
        num_classes: categories.
        image_size: (height, width) px.
    """
    backbone = family_of(architecture).build(architecture, seed=0)
    detector = build_detector(recipe, backbone, num_classes, image_size, seed=0).eval()
    images = torch.zeros(1, 3, *image_size)
    around = _flops(detector, images) - _flops(backbone, images)
    params = sum(one.numel() for one in detector.parameters())
    return Cost(params=params, macs=cost(architecture, image_size).macs + around // 2)


def _flops(module: nn.Module, images: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(images)
    return int(counter.get_total_flops())


def _of_cost(named: Architecture, wanted: int, macs: Callable[[Architecture], int]) -> Architecture:
    """The network with widths scaled so that ``macs`` comes nearest to ``wanted``."""
    widths = named.settings.get("widths")
    if not isinstance(widths, tuple):
        raise ConfigError(
            f"equal_macs: {named.family} has no widths to scale; set it to false or take a ResNet"
        )
    tried: dict[tuple[int, ...], int] = {}

    def at(scale: float) -> tuple[int, ...]:
        found = tuple(max(_STEP, round(scale * int(str(one)) / _STEP) * _STEP) for one in widths)
        if found not in tried:
            tried[found] = macs(replace(named, settings=Genes({**named.settings, "widths": found})))
        return found

    low = high = 1.0
    while tried[at(high)] <= wanted and high < _REACH:
        low, high = high, 2 * high
    while tried[at(low)] > wanted and low > 1 / _REACH:
        low, high = low / 2, low
    if not tried[at(low)] <= wanted <= tried[at(high)]:
        raise ConfigError(
            f"equal_macs: between {1 / _REACH:g} and {_REACH:g} times {list(widths)} no widths cost the baseline's "
            f"{wanted:,} multiply-adds with this pyramid and head; change space.widths, or fpn_channels or "
            "head_convs of the detector, or set equal_macs to false"
        )
    while high - low > _FINE * low:
        middle = (low + high) / 2
        low, high = (middle, high) if tried[at(middle)] <= wanted else (low, middle)
    nearest = min(tried, key=lambda found: (abs(tried[found] - wanted), found))
    return replace(named, settings=Genes({**named.settings, "widths": nearest}))
