"""What the parts of a detector around a backbone cost, in closed form and without torch.

Multiply-adds are those of convolutions and linear layers; biases, normalisation, activations, up-sampling and
RoIAlign count nothing. Parameters are all learnable numbers.
"""

from collections.abc import Mapping, Sequence

from search_spaces.family import Level
from search_spaces.layer import Cost, check_input_size

POSITIONS = 4
"""Numbers that say where a box is."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Sides in cells of what RoIAlign hands to a box head and to a mask head; a mask has twice as many."""


def cells_at(input_size: tuple[int, int], strides: Sequence[int]) -> tuple[int, ...]:
    """Cells of a map at each stride; sides are rounded up.

    Args:
        input_size: (height, width) in pixels.
        strides: pixels a cell.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    check_input_size(input_size)
    height, width = input_size
    return tuple(-(-height // stride) * -(-width // stride) for stride in strides)


def conv(inputs: int, outputs: int, cells: int, *, kernel: int = 3, bias: bool = True) -> Cost:
    """A convolution that writes ``cells`` places, on all maps that share it together."""
    weights = kernel**2 * inputs * outputs
    return Cost(params=weights + (outputs if bias else 0), macs=weights * cells, activations=outputs * cells)


def separable_conv(inputs: int, outputs: int, cells: int) -> Cost:
    """A depthwise 3x3 convolution without bias and a 1x1 convolution with one."""
    depthwise = Cost(params=9 * inputs, macs=9 * inputs * cells, activations=inputs * cells)
    return depthwise + conv(inputs, outputs, cells, kernel=1)


def linear(inputs: int, outputs: int, times: int) -> Cost:
    """A linear layer with bias, applied so many times."""
    return Cost(params=(inputs + 1) * outputs, macs=inputs * outputs * times, activations=outputs * times)


def norm(width: int, copies: int = 1) -> Cost:
    """Scale and shift of a normalisation, of so many copies of it."""
    return Cost(params=2 * width * copies)


def lateral(levels: Mapping[str, Level], cells: Sequence[int], channels: int) -> Cost:
    """The pyramid's 1x1 convolutions, one a level (Lin et al. 2017, FPN, section 3)."""
    found = Cost()
    for level, places in zip(levels.values(), cells, strict=True):
        found += conv(level.channels, channels, places, kernel=1)
    return found


def smoothing(cells: Sequence[int], channels: int) -> Cost:
    """The pyramid's 3x3 convolutions, one a level."""
    return sum((conv(channels, channels, places) for places in cells), Cost())


def towers(
    channels: int,
    cells: Sequence[int],
    outputs: Sequence[int],
    *,
    convs: int,
    width: int,
    norms: int,
    separable: bool = False,
) -> Cost:
    """Towers of 3x3 convolutions that all levels share, each with a 3x3 convolution to its outputs behind it.

    Args:
        channels: of the maps.
        cells: of each map.
        outputs: of each tower, in channels.
        convs: in each tower.
        width: of the towers.
        norms: copies of each convolution's normalisation: one, or one a level.
        separable: see :func:`separable_conv`.
    """
    layer = separable_conv if separable else conv
    places = sum(cells)
    found = Cost()
    for written in outputs:
        inputs = channels
        for _ in range(convs):
            found += layer(inputs, width, places) + norm(width, norms)
            inputs = width
        found += layer(inputs, written, places)
    return found


def proposals(
    channels: int,
    cells: Sequence[int],
    *,
    anchors: int = 3,
    convs: int = 1,
    width: int | None = None,
    normed: bool = False,
) -> Cost:
    """The head of region proposals: objectness and box of every anchor (Ren et al. 2015, section 3.1).

    Args:
        channels: of the maps.
        cells: of each map.
        anchors: per cell.
        convs: 3x3 convolutions, shared over the levels.
        width: of theirs; ``None``: that of the maps.
        normed: each level has normalisation of its own behind each of them.
    """
    width = channels if width is None else width
    places = sum(cells)
    found, inputs = Cost(), channels
    for _ in range(convs):
        found += conv(inputs, width, places) + norm(width, len(cells) if normed else 0)
        inputs = width
    return (
        found + conv(inputs, anchors, places, kernel=1) + conv(inputs, POSITIONS * anchors, places, kernel=1)
    )


def box_head(
    channels: int,
    rois: int,
    *,
    classes: int,
    hidden: int = 1024,
    convs: int = 0,
    width: int | None = None,
    normed: bool = False,
    boxes: int | None = None,
) -> Cost:
    """The head that says of each region what it is and where.

    Two linear layers (Lin et al. 2017, FPN, section 4.2), or 3x3 convolutions with normalisation and one linear layer
    (Du et al. 2020, section 4.1), then the two predictors.

    Args:
        channels: of the maps.
        rois: regions that go through it.
        classes: with background.
        hidden: width of the linear layers.
        convs: 3x3 convolutions, of 7x7 cells; 0 for a second linear layer in their place.
        width: of the convolutions; ``None``: that of the maps.
        normed: normalisation behind the linear layers.
        boxes: boxes that are regressed for a region; ``None``: one a class, background included.
    """
    width = channels if width is None else width
    cells = rois * BOX_SIDE**2
    found, inputs = Cost(), channels
    for _ in range(convs):
        found += conv(inputs, width, cells, bias=False) + norm(width)
        inputs = width
    found += linear(inputs * BOX_SIDE**2, hidden, rois) + norm(hidden, int(normed))
    if not convs:
        found += linear(hidden, hidden, rois) + norm(hidden, int(normed))
    boxes = classes if boxes is None else boxes
    return found + linear(hidden, classes, rois) + linear(hidden, POSITIONS * boxes, rois)


def mask_head(
    channels: int,
    rois: int,
    *,
    classes: int,
    convs: int = 4,
    width: int | None = None,
    normed: bool = True,
) -> Cost:
    """The head that draws a mask of each region: 3x3 convolutions, a 2x2 deconvolution, a mask for every class.

    He et al. 2017, section 3.

    Args:
        channels: of the maps.
        rois: regions that go through it.
        classes: with background.
        convs: 3x3 convolutions, of 14x14 cells.
        width: of them and of the deconvolution; ``None``: that of the maps.
        normed: normalisation in the place of the convolutions' biases.
    """
    width = channels if width is None else width
    cells = rois * MASK_SIDE**2
    found, inputs = Cost(), channels
    for _ in range(convs):
        found += conv(inputs, width, cells, bias=not normed) + norm(width, int(normed))
        inputs = width
    # Of a 2x2 kernel with stride 2 every written cell reads one tap.
    deconvolution = conv(inputs, width, 4 * cells, kernel=1)
    weights = 4 * inputs * width
    found += Cost(params=weights + width, macs=deconvolution.macs, activations=deconvolution.activations)
    return found + conv(width, classes, 4 * cells, kernel=1)
