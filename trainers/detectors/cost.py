"""What a recipe's detector costs around a backbone, part by part, without building either and without torch.

The counting rule: multiply-adds of convolutions and linear layers for one image; no bias, normalisation, up-sampling
or RoIAlign. A two-stage detector sends so many regions through its heads as it is told to count. Parameters are those
of the detector as it is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.detector_parts import (
    POSITIONS,
    box_head,
    cells_at,
    conv,
    lateral,
    mask_head,
    proposals,
    smoothing,
    towers,
)
from search_spaces.errors import ConfigError
from search_spaces.families import family_of
from search_spaces.family import Level
from search_spaces.layer import Cost
from trainers.recipes import RETINANET_OCTAVES, DetectorRecipe

_ASPECTS = 3
CASCADED = 3
"""Box heads of Cascade R-CNN, all of which see every region (Cai and Vasconcelos 2018, section 4)."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Regions of an image that go through the heads of a two-stage detector.

    Args:
        boxes: through the box head, or each of several.
        masks: through the mask head.
    """

    boxes: int
    masks: int


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What a head reads.

    Args:
        channels: of every map.
        cells: of each map, fine to coarse.
    """

    channels: int
    cells: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DetectorCost:
    """Cost of one image, part by part.

    Args:
        parts: name -> cost: ``backbone``, what makes the pyramid, the heads.
        regions: that were counted; None for a detector of one stage.
    """

    parts: Mapping[str, Cost]
    regions: Regions | None = None

    @property
    def total(self) -> Cost:
        """Of the whole detector."""
        return sum(self.parts.values(), Cost())


Head = Callable[[Maps, DetectorRecipe, int, Regions], dict[str, Cost]]


def count_detector(
    architecture: Architecture,
    recipe: DetectorRecipe,
    num_classes: int,
    input_size: tuple[int, int],
    regions: Regions | None = None,
) -> DetectorCost:
    """Parameters and multiply-adds of a recipe's detector around a backbone.

    Args:
        architecture: of the backbone.
        recipe: of the detector.
        num_classes: categories, background not counted.
        input_size: (height, width) px of the image as it enters.
        regions: of a two-stage detector; those of the recipe at most, where left out.

    Raises:
        ConfigError: a detector of a person's own, or levels that the backbone does not have.
        InvalidArchitecture: an unknown or invalid architecture, or an input side below 32 px.
    """
    name = recipe.name
    if name not in HEADS:
        raise ConfigError(
            f"detector: {recipe.kind} is not in the catalog, so nobody knows what it costs; {', '.join(HEADS)} are"
        )
    declared = family_of(architecture).levels(architecture)
    unknown = [level for level in recipe.levels if level not in declared]
    if unknown:
        raise ConfigError(
            f"detector.levels: the backbone has no level {unknown}; it declares {sorted(declared)}"
        )
    read = {level: declared[level] for level in recipe.levels}
    strides = [level.stride for level in read.values()]
    further = [2**step * strides[-1] for step in range(1, recipe.extra_levels + 1)]
    cells = cells_at(input_size, [*strides, *further])
    channels = recipe.fpn_channels
    parts = {"backbone": cost(architecture, input_size)}
    parts |= PYRAMIDS[recipe.pyramid](read, cells[: len(read)], channels)
    if further and name not in POOLED:
        parts["extra levels"] = smoothing(cells[len(read) :], channels)
    if regions is None:
        regions = Regions(boxes=recipe.candidates, masks=recipe.detections)
    parts |= HEADS[name](Maps(channels=channels, cells=cells), recipe, num_classes, regions)
    return DetectorCost(parts=parts, regions=regions if name in TWO_STAGE else None)


def _fpn(levels: Mapping[str, Level], cells: tuple[int, ...], channels: int) -> dict[str, Cost]:
    return {"lateral": lateral(levels, cells, channels), "outputs": smoothing(cells, channels)}


def _pafpn(levels: Mapping[str, Level], cells: tuple[int, ...], channels: int) -> dict[str, Cost]:
    # Up to every level but the finest a strided convolution and, of the sum, another one.
    return _fpn(levels, cells, channels) | {"path": smoothing([*cells[1:], *cells[1:]], channels)}


def _as_they_are(levels: Mapping[str, Level], cells: tuple[int, ...], channels: int) -> dict[str, Cost]:
    del cells
    odd = {name: level.channels for name, level in levels.items() if level.channels != channels}
    if odd:
        raise ConfigError(
            f"detector.fpn_channels: found {channels}, but without an FPN the maps enter as they are and "
            f"{', '.join(f'{name} has {width} channels' for name, width in odd.items())}"
        )
    return {}


def _proposals(maps: Maps, recipe: DetectorRecipe) -> Cost:
    convs = max(1, recipe.head_convs)
    return proposals(
        maps.channels,
        maps.cells,
        anchors=_ASPECTS,
        convs=convs,
        width=recipe.head_channels,
        normed=recipe.rcnn_norm,
    )


def _faster_rcnn(maps: Maps, recipe: DetectorRecipe, num_classes: int, regions: Regions) -> dict[str, Cost]:
    return {
        "proposals": _proposals(maps, recipe),
        "box head": box_head(
            maps.channels,
            regions.boxes,
            classes=num_classes + 1,
            hidden=recipe.box_head,
            convs=recipe.box_convs,
            width=recipe.head_channels,
            normed=recipe.rcnn_norm,
        ),
    }


def _mask_rcnn(maps: Maps, recipe: DetectorRecipe, num_classes: int, regions: Regions) -> dict[str, Cost]:
    masks = mask_head(
        maps.channels,
        regions.masks,
        classes=num_classes + 1,
        convs=recipe.mask_convs,
        width=recipe.mask_channels,
    )
    return _faster_rcnn(maps, recipe, num_classes, regions) | {"mask head": masks}


def _cascade_rcnn(maps: Maps, recipe: DetectorRecipe, num_classes: int, regions: Regions) -> dict[str, Cost]:
    head = box_head(
        maps.channels,
        regions.boxes,
        classes=num_classes + 1,
        hidden=recipe.box_head,
        convs=recipe.box_convs,
        width=recipe.head_channels,
        normed=recipe.rcnn_norm,
        boxes=1,
    )
    heads = {f"box head {number}": head for number in range(1, CASCADED + 1)}
    return {"proposals": _proposals(maps, recipe)} | heads


def _retinanet(maps: Maps, recipe: DetectorRecipe, num_classes: int, regions: Regions) -> dict[str, Cost]:
    del regions
    anchors = _ASPECTS * len(RETINANET_OCTAVES)
    head = towers(
        maps.channels,
        maps.cells,
        (num_classes * anchors, POSITIONS * anchors),
        convs=recipe.head_convs,
        width=recipe.head_channels or maps.channels,
        norms=len(maps.cells),
        separable=recipe.head_separable,
    )
    return {"head": head}


def _fcos(maps: Maps, recipe: DetectorRecipe, num_classes: int, regions: Regions) -> dict[str, Cost]:
    del regions
    # Centerness beside the four distances.
    scores, boxes = num_classes, POSITIONS + 1
    outputs = (scores,) if recipe.shared_tower else (scores, boxes)
    head = towers(maps.channels, maps.cells, outputs, convs=recipe.head_convs, width=maps.channels, norms=1)
    if recipe.shared_tower:
        head += conv(maps.channels, boxes, sum(maps.cells))
    return {"head": head}


PYRAMIDS: dict[str, Callable[[Mapping[str, Level], tuple[int, ...], int], dict[str, Cost]]] = {
    "fpn": _fpn,
    "pafpn": _pafpn,
    "none": _as_they_are,
}
"""As ``DetectorRecipe.pyramid`` names them."""

HEADS: dict[str, Head] = {
    "fcos": _fcos,
    "faster_rcnn": _faster_rcnn,
    "retinanet": _retinanet,
    "mask_rcnn": _mask_rcnn,
    "cascade_rcnn": _cascade_rcnn,
}
"""As ``DetectorRecipe.name`` names them."""

TWO_STAGE = ("faster_rcnn", "mask_rcnn", "cascade_rcnn")
POOLED = TWO_STAGE
"""Detectors whose maps coarser than the backbone's are poolings, without weights."""
