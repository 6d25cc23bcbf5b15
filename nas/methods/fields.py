"""``nas erf``: effective receptive fields of any architectures, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.proxies.erf import EffectiveField, erf_at_random_init
from nas.report.data import ErfLevel
from nas.report.erf_page import render_fields
from nas.report.pictures import erf_png
from nas.resolve import read_architecture
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.cost import trf
from search_spaces.errors import ConfigError
from search_spaces.files import write_atomic

SMALLEST_CANVAS = 64


def erf_levels(
    architecture: Architecture, fields: Mapping[str, EffectiveField], anchors: Mapping[str, float]
) -> tuple[ErfLevel, ...]:
    """Measured fields with what belongs beside them.

    Args:
        architecture: gives the theoretical receptive fields.
        fields: level -> measured field.
        anchors: level -> side of its anchor in px; levels without one may be left out.
    """
    reach = trf(architecture)
    return tuple(
        ErfLevel(
            level=name,
            std_px=field.std,
            area_px=field.radius,
            box_px=field.box,
            trf_px=reach[name],
            anchor_px=anchors.get(name),
            png=erf_png(field.map),
        )
        for name, field in fields.items()
    )


def measured_fields(
    sources: Sequence[str], *, canvas: int, anchor_scale: float, seed: int = 0
) -> dict[str, tuple[ErfLevel, ...]]:
    """Fields at random weights, BN calibrated on noise (Luo et al. 2016), of each architecture named.

    Args:
        sources: as ``nas.resolve.read_architecture`` takes them.
        canvas: side of the square noise image in px.
        anchor_scale: anchor side over stride; 8 gives the paper's 64, 128 and 256 px on C3 to C5.
        seed: of weights and noise.

    Raises:
        ConfigError: a canvas or scale that is too small.
    """
    if canvas < SMALLEST_CANVAS or anchor_scale <= 0:
        raise ConfigError(
            f"found canvas {canvas} px and anchor scale {anchor_scale:g}; "
            f"allowed are {SMALLEST_CANVAS} px and more, and a positive scale"
        )
    found = {}
    for source in sources:
        architecture = read_architecture(source)
        fields = erf_at_random_init(architecture, seed=seed, input_size=(canvas, canvas))
        levels = family_of(architecture).levels(architecture)
        anchors = {name: level.stride * anchor_scale for name, level in levels.items()}
        found[source] = erf_levels(architecture, fields, anchors)
    return found


def write_maps(found: Mapping[str, Sequence[ErfLevel]], path: Path, *, canvas: int) -> Path:
    """Write the maps as one self-contained page."""
    write_atomic(path, render_fields(found, canvas=canvas).encode())
    return path
