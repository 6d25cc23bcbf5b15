"""Exact parameters, multiply-adds, activations and receptive fields, without building the network.

Multiply-adds (MACs) are those of convolutions and linear layers; parameters include batch normalisation's
scale and shift; activations are the elements written by convolutions and linear layers (Radosavovic et al.
2020, "Designing Network Design Spaces").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.family import Layer

SMALLEST_SIDE = 32
"""Input side in pixels below which the coarsest level would not have one full cell."""


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


def cost(architecture: Architecture, input_size: tuple[int, int] = (224, 224)) -> Cost:
    """Cost of a backbone for one image.

    Args:
        architecture: of any family.
        input_size: (height, width) in pixels, at least 32 each.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or a smaller input.
    """
    return sum(cost_by_stage(architecture, input_size).values(), Cost())


def cost_by_stage(architecture: Architecture, input_size: tuple[int, int] = (224, 224)) -> dict[str, Cost]:
    """As :func:`cost`, for the stem and each level's stage: ``{"stem": ..., "c2": ..., ...}``."""
    total: dict[str, Cost] = {}
    for layer, spent in layer_costs(family_of(architecture).layers(architecture), input_size):
        total[layer.stage] = total.get(layer.stage, Cost()) + spent
    return total


def layer_costs(layers: Iterable[Layer], input_size: tuple[int, int]) -> Iterator[tuple[Layer, Cost]]:
    """Cost of each layer, sizes followed from the input.

    Raises:
        InvalidArchitecture: an input side below 32 px.
    """
    if len(input_size) != 2 or min(input_size) < SMALLEST_SIDE:
        raise InvalidArchitecture(
            f"input size {'x'.join(map(str, input_size))}: allowed are height and width of at least "
            f"{SMALLEST_SIDE} px each"
        )
    height, width = input_size
    for layer in layers:
        out = (_output_side(height, layer), _output_side(width, layer))
        yield layer, _layer_cost(layer, out)
        if not layer.shortcut:
            height, width = out


def trf(architecture: Architecture) -> dict[str, int]:
    """Side in pixels of the theoretical receptive field of one cell of each level.

    A kernel of side k and dilation d adds (k - 1) d input steps of that layer; shortcuts add nothing.
    """
    family = family_of(architecture)
    levels = family.levels(architecture)
    fields: dict[str, int] = {}
    field, jump = 1, 1
    for layer in family.layers(architecture):
        if layer.shortcut:
            continue
        field += (layer.kernel - 1) * layer.dilation * jump
        jump *= layer.stride
        if layer.stage in levels:
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
