"""What ``nas describe --detector`` says of a whole detector: the published forms, counted and not built. Torch-free."""

from dataclasses import asdict
from typing import Any

from nas.resolve import read_architecture
from nas.show import description
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.families import family_of
from search_spaces.family import Level
from search_spaces.layer import Cost
from search_spaces.spinenet.family import MOBILE_SPINENET
from trainers.detectors.cost import CASCADED, HEADS, TWO_STAGE, Regions, count_detector
from trainers.recipes import DetectorRecipe

FPN_CHANNELS = 256
COARSEST = 128
"""Pixels a cell of P7."""
FINEST = 8
"""Pixels a cell of the finest map that a detector of one stage reads."""
_FORM = ("pyramid", "fpn_channels", "levels", "extra_levels", "head_convs", "head_channels", "head_separable")


def description_with_detector(source: str, size: str, name: str, num_classes: int) -> dict[str, Any]:
    """What :func:`nas.show.description` says of a backbone, and under ``detector`` the same of a detector around it.

    Raises:
        VertebraError: see there, and :func:`detector_facts`.
    """
    found = description(source, size)
    height, width = found["input"]
    facts = detector_facts(name, read_architecture(source), (height, width), num_classes)
    return {**found, "detector": facts}


def detector_facts(
    name: str, architecture: Architecture, input_size: tuple[int, int], num_classes: int
) -> dict[str, Any]:
    """Parameters and multiply-adds of a detector in its published form around a backbone, part by part.

    A backbone whose levels differ in width gets the FPN, heads and numbers of regions with which Liang et al. 2020
    count (tables 1 and 3), for one stage those of Lin et al. 2017 and Tian et al. 2019; one that is a pyramid already
    those of Du et al. 2020 (section 4.1).

    Args:
        name: of the detector, as in a recipe.
        architecture: the backbone.
        input_size: (height, width) px.
        num_classes: categories, background not counted.

    Raises:
        ConfigError: no such detector, or no categories.
    """
    if name not in HEADS:
        raise ConfigError(f"--detector: found {name!r}; allowed are {', '.join(HEADS)}")
    if num_classes < 1:
        raise ConfigError(f"--classes: found {num_classes}; allowed is 1 or more")
    levels = family_of(architecture).levels(architecture)
    recipe, regions = published_form(name, architecture, levels)
    found = count_detector(architecture, recipe, num_classes, input_size, regions)
    return {
        "name": name,
        "classes": num_classes,
        **asdict(found.total),
        "parts": {part: asdict(spent) for part, spent in found.parts.items()},
        "regions": None if found.regions is None else asdict(found.regions),
        "rule": counting_rule(found.regions, name),
        "form": {field: getattr(recipe, field) for field in _FORM},
    }


def published_form(
    name: str, architecture: Architecture, levels: dict[str, Level]
) -> tuple[DetectorRecipe, Regions]:
    """The detector as the papers have it around a backbone of such levels, and the regions that they count."""
    widths = {level.channels for level in levels.values()}
    if len(levels) > 1 and len(widths) == 1:
        around = _of_du_et_al(name, architecture, widths.pop())
        recipe = DetectorRecipe(name=name, pyramid="none", levels=tuple(levels), **around)  # type: ignore[arg-type]
        return recipe, Regions(boxes=1000, masks=100)
    fields: dict[str, Any] = {"name": name, "fpn_channels": FPN_CHANNELS}
    if name in TWO_STAGE:
        fields |= {"levels": tuple(levels), "extra_levels": 1, "head_convs": 1, "box_head": 1024}
    else:
        read = {level: one for level, one in levels.items() if one.stride >= FINEST} or levels
        halvings = (COARSEST // max(one.stride for one in read.values())).bit_length() - 1
        fields |= {"levels": tuple(read), "extra_levels": min(2, max(0, halvings)), "head_convs": 4}
    return DetectorRecipe(**fields), Regions(boxes=2000, masks=128)


def _of_du_et_al(name: str, architecture: Architecture, width: int) -> dict[str, Any]:
    """Heads over maps of one width, by what the authors' configurations (``tensorflow/tpu``,
    ``models/official/detection/configs/spinenet``) give each size of SpineNet (Du et al. 2020, sections 4.1 and 5.1).

    SpineNet-190, whose maps are 512 wide, has deeper heads: seven convolutions in RetinaNet's towers, and seven of 384
    in the box and the mask head. Before its proposals the printed totals hold one of 384, and not the seven of its
    configuration. SpineNet-49S has towers of 128, whatever its maps, and half the hidden units. Mobile SpineNets have
    separable towers (appendix A).
    """
    fields: dict[str, Any] = {"fpn_channels": width}
    deep = width >= 512
    if name in TWO_STAGE:
        fields |= {"head_convs": 1, "box_convs": 7 if deep else 4, "rcnn_norm": True}
        fields |= {"box_head": 512 if width <= 128 else 1024, "head_channels": 384 if deep else None}
        if name == "mask_rcnn":
            fields |= {"mask_convs": fields["box_convs"], "mask_channels": fields["head_channels"]}
        return fields
    fields["head_convs"] = 7 if deep and name == "retinanet" else 4
    if name == "retinanet":
        scale = architecture.settings.get("filter_size_scale", 1.0)
        mobile = architecture.family == MOBILE_SPINENET.name
        narrow = isinstance(scale, float) and scale < 1 and width > 128 and not mobile
        fields |= {"head_channels": 128 if narrow else None, "head_separable": mobile}
    return fields


def counting_rule(regions: Regions | None, name: str) -> str:
    """What was counted, in a sentence."""
    rule = "multiply-adds of convolutions and linear layers for one image"
    if regions is None:
        return rule
    heads = f"each of {CASCADED} box heads" if name == "cascade_rcnn" else "the box head"
    through = f"{regions.boxes:,} regions through {heads}"
    if name == "mask_rcnn":
        through += f", {regions.masks:,} through the mask head"
    return f"{rule}, {through}, RoIAlign not counted"


def rows_of(parts: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    """The parts of a detector for a table."""
    found = [(name, Cost(**part)) for name, part in parts.items()]
    return [(f"  {name}", f"{part.params:>13,} params {part.macs / 1e9:>10.3f} GMAC") for name, part in found]
