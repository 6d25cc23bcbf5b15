"""Exact parameters, multiply-adds, activations and receptive fields, without building the network.

Multiply-adds (MACs) are those of convolutions and linear layers; parameters include batch normalisation's
scale and shift; activations are the elements written by convolutions and linear layers (Radosavovic et al.
2020, "Designing Network Design Spaces"). How they add up is each family's own knowledge.
"""

from search_spaces.architecture import Architecture
from search_spaces.families import family_of
from search_spaces.layer import SMALLEST_SIDE, Cost, layer_costs

__all__ = ["SMALLEST_SIDE", "Cost", "cost", "cost_by_stage", "layer_costs", "trf"]


def cost(architecture: Architecture, input_size: tuple[int, int] = (224, 224)) -> Cost:
    """Cost of a backbone for one image.

    Args:
        architecture: of any family.
        input_size: (height, width) in pixels, at least 32 each.

    Raises:
        InvalidArchitecture: an unknown or invalid architecture, or a smaller input.
    """
    parts = cost_by_stage(architecture, input_size).values()
    # Not a sum of costs, which would make one object a part: a search asks for tens of thousands.
    return Cost(
        params=sum([part.params for part in parts]),
        macs=sum([part.macs for part in parts]),
        activations=sum([part.activations for part in parts]),
    )


def cost_by_stage(architecture: Architecture, input_size: tuple[int, int] = (224, 224)) -> dict[str, Cost]:
    """As :func:`cost`, part by part: ``{"stem": ..., "c2": ..., ...}`` for a chain of stages.

    A scale-permuted network has the parts conv1, stem, blocks, resamples and endpoints.
    """
    return family_of(architecture).cost_by_stage(architecture, input_size)


def trf(architecture: Architecture) -> dict[str, int]:
    """Side in pixels of the theoretical receptive field of one cell of each level.

    A kernel of side k and dilation d adds (k - 1) d input steps of that layer; shortcuts add nothing. Where
    cells of one level differ, as behind an up-sampling, the largest field counts.
    """
    return family_of(architecture).fields(architecture)
