"""Closed-form costs of the CR-NAS families, without torch and without a list of layers.

A third description of what ``resnet.py`` and ``mobilenet.py`` build and ``layers.py`` lists, because a search asks
for tens of thousands of costs and equal blocks in a row need counting once; the tests compare all three.
"""

from collections.abc import Iterable
from itertools import groupby, pairwise

from search_spaces.crnas.layers import (
    EXPANSION,
    LEVELS,
    MobileNetV2Shape,
    ResNetShape,
    mobilenet_widths,
    scaled,
)
from search_spaces.layer import Cost, check_input_size

Convs = tuple[int, int, int, int]
"""Equal convolutions without bias, each with its normalisation: how many there are, weights of one output channel,
channels written, cells of the map written."""


def resnet_costs(shape: ResNetShape, input_size: tuple[int, int]) -> dict[str, Cost]:
    """Cost of the stem and of each level's stage.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    cells = _cells(input_size)
    channels = shape.widths[0]
    found = {"stem": _total([(1, 3 * (9 if shape.stem == "small" else 49), channels, cells[1])])}
    for index, (name, count, width) in enumerate(zip(LEVELS, shape.blocks, shape.widths, strict=True)):
        # The stem halves twice, and the first stage not at all.
        read, written = cells[index + 1 if index else 2], cells[index + 2]
        convs = _resnet_blocks(shape, 1, channels, width, read, written)
        if index or channels != width * EXPANSION[shape.block]:
            convs.append((1, channels, width * EXPANSION[shape.block], written))
        channels = width * EXPANSION[shape.block]
        convs += _resnet_blocks(shape, count - 1, channels, width, written, written)
        found[name] = _total(convs)
    return found


def _resnet_blocks(
    shape: ResNetShape, times: int, inputs: int, width: int, read: int, written: int
) -> list[Convs]:
    """Equal blocks without their shortcuts."""
    if shape.block == "basic":
        return [(times, 9 * inputs, width, written), (times, 9 * width, width, written)]
    in_group = int(width * (shape.width_per_group / 64.0))
    inner = in_group * shape.groups
    return [
        (times, inputs, inner, read),
        (times, 9 * in_group, inner, written),
        (times, inner, width * EXPANSION[shape.block], written),
    ]


def mobilenet_costs(shape: MobileNetV2Shape, input_size: tuple[int, int]) -> dict[str, Cost]:
    """Cost of the stem and of each level's stage, the 1280-wide convolution being the last one's.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    multiplier = shape.width_multiplier
    cells = _cells(input_size)
    first, channels, last = (scaled(width, multiplier) for width in (32, 16, 320))
    found = {
        "stem": _total(
            [
                (1, 27, first, cells[1]),
                (1, 9, first, cells[1]),
                (1, first, channels, cells[1]),
            ]
        )
    }
    for index, (name, widths) in enumerate(
        zip(LEVELS, mobilenet_widths(shape.blocks, multiplier), strict=True)
    ):
        read, written = cells[index + 1], cells[index + 2]
        convs = _inverted_residuals(1, channels, widths[0], read, written)
        for (inputs, outputs), run in groupby(pairwise(widths)):
            convs += _inverted_residuals(len(list(run)), inputs, outputs, written, written)
        channels = widths[-1]
        if name == LEVELS[-1]:
            convs += _inverted_residuals(1, channels, last, written, written)
            convs.append((1, last, scaled(1280, max(1.0, multiplier)), written))
        found[name] = _total(convs)
    return found


def _inverted_residuals(times: int, inputs: int, outputs: int, read: int, written: int) -> list[Convs]:
    """Equal blocks."""
    hidden = 6 * inputs
    return [
        (times, inputs, hidden, read),
        (times, 9, hidden, written),
        (times, hidden, outputs, written),
    ]


def _cells(input_size: tuple[int, int]) -> list[int]:
    """Of the image and of the maps after one to five halvings, each rounded up."""
    check_input_size(input_size)
    height, width = input_size
    return [-(-height // stride) * -(-width // stride) for stride in (1, 2, 4, 8, 16, 32)]


def _total(parts: Iterable[Convs]) -> Cost:
    params = macs = activations = 0
    for times, reads, outputs, cells in parts:
        weights = times * reads * outputs
        params += weights + 2 * times * outputs
        macs += weights * cells
        activations += times * outputs * cells
    return Cost(params=params, macs=macs, activations=activations)
