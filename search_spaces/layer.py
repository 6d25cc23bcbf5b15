"""One layer of a network, what it costs, and the arithmetic of layers that follow each other in a chain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import InvalidArchitecture

SMALLEST_SIDE = 32
"""Input side in pixels below which the coarsest level would not have one full cell."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer as the cost model sees it; layers follow each other in execution order.

    Args:
        name: of the module in the built network (``"layer1.0.conv1"``).
        stage: the part of the backbone it belongs to: ``"stem"``, then the level that it helps to make.
        kind: ``"conv"`` and ``"linear"`` multiply, ``"bn"`` has parameters only, ``"pool"`` neither.
        inputs: channels (or features) read.
        outputs: channels (or features) written.
        kernel: side of the square kernel.
        stride: of kernel placements.
        padding: on each side.
        dilation: distance between kernel taps.
        groups: of the convolution.
        bias: whether a convolution or linear layer adds one.
        ceil: whether the output size of a pooling is rounded up.
        shortcut: runs beside the trunk, from the block's input; listed before the block's other layers.
    """

    name: str
    stage: str
    kind: Literal["conv", "linear", "bn", "pool"]
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    ceil: bool = False
    shortcut: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one image costs.

    Args:
        params: learnable numbers.
        macs: multiply-adds of convolutions and linear layers.
        activations: elements written by convolutions and linear layers.
    """

    params: int = 0
    macs: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            params=self.params + other.params,
            macs=self.macs + other.macs,
            activations=self.activations + other.activations,
        )


def check_input_size(input_size: tuple[int, int]) -> None:
    """Refuse an input that is no (height, width) of at least 32 px each.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    if len(input_size) != 2 or min(input_size) < SMALLEST_SIDE:
        raise InvalidArchitecture(
            f"input size {'x'.join(map(str, input_size))}: allowed are height and width of at least "
            f"{SMALLEST_SIDE} px each"
        )


def layer_costs(layers: Iterable[Layer], input_size: tuple[int, int]) -> Iterator[tuple[Layer, Cost]]:
    """Cost of each layer of a chain, sizes followed from the input.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    check_input_size(input_size)
    height, width = input_size
    for layer in layers:
        out = (_output_side(height, layer), _output_side(width, layer))
        yield layer, _layer_cost(layer, out)
        if not layer.shortcut:
            height, width = out


def layer_fields(layers: Iterable[Layer]) -> dict[str, int]:
    """Stage -> side in pixels of what one cell at its end sees; shortcuts add nothing.

    A kernel of side k and dilation d adds (k - 1) d input steps of that layer.
    """
    fields: dict[str, int] = {}
    field, jump = 1, 1
    for layer in layers:
        if layer.shortcut:
            continue
        field += (layer.kernel - 1) * layer.dilation * jump
        jump *= layer.stride
        fields[layer.stage] = field
    return fields


def _layer_cost(layer: Layer, out: tuple[int, int]) -> Cost:
    if layer.kind == "pool":
        return Cost()
    if layer.kind == "bn":
        return Cost(params=2 * layer.outputs)
    cells = out[0] * out[1] if layer.kind == "conv" else 1
    weights = layer.outputs * (layer.inputs // layer.groups) * layer.kernel**2
    return Cost(
        params=weights + (layer.outputs if layer.bias else 0),
        macs=weights * cells,
        activations=layer.outputs * cells,
    )


def _output_side(side: int, layer: Layer) -> int:
    span = side + 2 * layer.padding - layer.dilation * (layer.kernel - 1) - 1
    if not layer.ceil:
        return span // layer.stride + 1
    out = -(-span // layer.stride) + 1
    # A window that would start in the padding after the input is dropped, as torch does.
    return out - 1 if (out - 1) * layer.stride >= side + layer.padding else out
