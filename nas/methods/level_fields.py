"""Levels against objects: which sizes each level of a detector answers for, and whether it sees as far."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from nas.proxies.erf import erf_at_random_init
from nas.report.data_facts import LevelFacts, Pyramid, percentile
from search_spaces.architecture import Architecture
from search_spaces.cost import trf
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from trainers.data.detection_set import Target
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.detectors.pyramid import ExtraConvs
from trainers.recipes import DetectorRecipe

MOST_OBJECTS = 3000
"""More are sampled, for each is given to the detector alone."""

CANVAS = 512
"""Side in px of the noise image on which effective fields are measured, as ``nas erf`` does."""


class Resized(NamedTuple):
    """A box in resized px."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def length(self) -> float:
        """Its longer side."""
        return max(self.x2 - self.x1, self.y2 - self.y1)


def pyramid_of(
    boxes: Sequence[Resized],
    *,
    recipe: DetectorRecipe,
    architecture: Architecture,
    backbone: str,
    canvas: tuple[int, int],
    num_classes: int,
    effective: bool,
    seed: int,
) -> Pyramid:
    """What every level looks for, sees and gets.

    Args:
        boxes: objects in resized px.
        recipe: the detector.
        architecture: its backbone.
        backbone: what a person calls that.
        canvas: (height, width) in px of the padded images.
        num_classes: categories.
        effective: measure effective fields too, at random weights; takes seconds.
        seed: of weights, noise and sample.

    Raises:
        ConfigError: a detector that cannot be built over this backbone and canvas.
    """
    network = family_of(architecture).build(architecture, seed=0)
    detector = build_detector(recipe, network, num_classes, canvas, seed=0)
    chosen = list(boxes)
    if len(chosen) > MOST_OBJECTS:
        chosen = rng_for(seed, "objects").sample(chosen, MOST_OBJECTS)
    strides = dict(zip(detector.backbone.names, detector.backbone.strides, strict=True))
    looks_for = {name: recipe.object_side(stride) for name, stride in strides.items()}
    taken, unassigned = _given_by_detector(detector, chosen, canvas)
    how = f"as {recipe.kind} does when it trains; an object may belong to several levels"
    if taken is None:
        taken, unassigned = _given_by_size(looks_for, chosen), 0
        how = f"to the level that looks for the nearest size, for {recipe.kind} does not say which levels it gives"
    measured = erf_at_random_init(architecture, seed=seed, input_size=(CANVAS, CANVAS)) if effective else {}
    seen = theoretical_fields(detector, trf(architecture))
    return Pyramid(
        detector=recipe.kind,
        backbone=backbone,
        levels=tuple(
            _facts(
                name,
                stride=stride,
                looks_for=looks_for[name],
                theoretical=seen[name],
                # Of a map that the detector makes itself nothing is measured.
                effective=measured[name].radius if name in measured else None,
                lengths=sorted(taken[name]),
            )
            for name, stride in strides.items()
        ),
        assigned_by=how,
        seen=len(chosen),
        unassigned=unassigned,
    )


def theoretical_fields(detector: Detector, fields: Mapping[str, int]) -> dict[str, int]:
    """Side in px of the theoretical field of every map of the pyramid.

    A further map sees what the coarsest level of the backbone sees; each of the 3x3 convolutions that make it adds two
    steps of the map before. What an FPN adds from coarse to fine is left out.

    Args:
        detector: with its pyramid.
        fields: of the backbone's levels.
    """
    pyramid = detector.backbone
    by_convs = any(isinstance(module, ExtraConvs) for module in pyramid.modules())
    found: dict[str, int] = {}
    side = before = 0
    for name, stride in zip(pyramid.names, pyramid.strides, strict=True):
        side = fields[name] if name in fields else side + 2 * before * by_convs
        found[name], before = side, stride
    return found


def _facts(
    name: str,
    *,
    stride: int,
    looks_for: float,
    theoretical: int,
    effective: float | None,
    lengths: list[float],
) -> LevelFacts:
    low, median, high = (percentile(lengths, share) if lengths else None for share in (0.1, 0.5, 0.9))
    beyond = sum(length > theoretical for length in lengths) / len(lengths) if lengths else 0.0
    return LevelFacts(
        level=name,
        stride=stride,
        looks_for=looks_for,
        theoretical=theoretical,
        effective=effective,
        objects=len(lengths),
        low=low,
        median=median,
        high=high,
        beyond=beyond,
    )


def _given_by_detector(
    detector: Detector, boxes: Sequence[Resized], canvas: tuple[int, int]
) -> tuple[dict[str, list[float]] | None, int]:
    """Level -> lengths of the objects that the detector gives it, and objects that it gives to none.

    The first is None for a detector that does not assign objects to levels.
    """
    taken: dict[str, list[float]] = {name: [] for name in detector.backbone.names}
    unassigned = 0
    for box in boxes:
        target = Target(boxes=torch.tensor([box]), labels=torch.zeros(1, dtype=torch.int64), image_id=0)
        counts = detector.objects_by_level([target], canvas)
        if not counts:
            return None, 0
        unassigned += not any(counts.values())
        for name, count in counts.items():
            if count:
                taken[name].append(box.length)
    return taken, unassigned


def _given_by_size(looks_for: Mapping[str, float], boxes: Sequence[Resized]) -> dict[str, list[float]]:
    """Level -> lengths of the objects whose size, as a ratio, is nearest to what the level looks for."""
    taken: dict[str, list[float]] = {name: [] for name in looks_for}
    for box in boxes:
        side = math.sqrt((box.x2 - box.x1) * (box.y2 - box.y1))
        nearest = min(looks_for, key=lambda name: abs(math.log(looks_for[name] / side)))
        taken[nearest].append(box.length)
    return taken
