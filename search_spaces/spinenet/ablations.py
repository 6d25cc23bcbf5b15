"""Changes to a scale-permuted network that the paper measures: damaged graphs and fixed orders of scales.

Du et al. 2020 (arXiv 1912.05027), section 5.5. Each function takes an architecture and gives another. Without
torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from search_spaces.architecture import Architecture, Genes
from search_spaces.families import family_of
from search_spaces.spinenet.family import GraphFamily

HOURGLASS = (2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 7, 6, 5, 4, 3)
"""Levels of the permuted blocks, down in resolution once and up again."""
FISH = (3, 3, 4, 4, 4, 5, 4, 4, 3, 2, 3, 4, 5, 6, 7)
"""Levels of the permuted blocks, down, up and down again."""


def drop_short_range(architecture: Architecture) -> Architecture:
    """Every permuted block reads only the parent that is farther back in the order.

    Raises:
        InvalidArchitecture: an invalid architecture.
    """
    return _damaged(architecture, lambda parents, _: parents[0])


def drop_long_range(architecture: Architecture) -> Architecture:
    """Every permuted block reads only the nearer parent.

    Raises:
        InvalidArchitecture: an invalid architecture.
    """
    return _damaged(architecture, lambda parents, _: parents[-1])


def chain(architecture: Architecture) -> Architecture:
    """Every permuted block reads only the block before it.

    Raises:
        InvalidArchitecture: an invalid architecture.
    """
    return _damaged(architecture, lambda _, place: place - 1)


DAMAGES: dict[str, Callable[[Architecture], Architecture]] = {
    "drop_short_range": drop_short_range,
    "drop_long_range": drop_long_range,
    "chain": chain,
}
"""The three damages of the paper, in its order."""


def hourglass(architecture: Architecture) -> Architecture:
    """The hourglass order with the settings of this SpineNet; see :func:`in_order`."""
    return in_order(architecture, HOURGLASS)


def fish(architecture: Architecture) -> Architecture:
    """The order of FishNet (Sun et al. 2018) with the settings of this SpineNet; see :func:`in_order`."""
    return in_order(architecture, FISH)


def in_order(architecture: Architecture, levels: Sequence[int]) -> Architecture:
    """Bottlenecks at these levels in this order, as R0-SP53 has them, each reading the two places before it.

    The paper searches the connections of such an order; these are where that search begins.

    Args:
        architecture: of the family ``spinenet``; gives the settings, stem included.
        levels: of the permuted blocks; the last five are the outputs.

    Raises:
        InvalidArchitecture: an invalid architecture or order, or a mobile one.
    """
    stem = _graph_family(architecture).graph(architecture).stem
    genes = {
        "levels": tuple(levels),
        "types": ("bottleneck",) * len(levels),
        "parents": tuple((place - 2, place - 1) for place in range(stem, stem + len(levels))),
    }
    found = replace(architecture, genes=Genes(genes))
    family_of(found).validate(found)
    return found


def _damaged(architecture: Architecture, keep: Callable[[tuple[int, ...], int], int]) -> Architecture:
    graph = _graph_family(architecture).graph(architecture)
    parents = tuple((keep(graph.nodes[place].parents, place),) for place in graph.permuted)
    return replace(architecture, genes=Genes({**architecture.genes, "parents": parents}))


def _graph_family(architecture: Architecture) -> GraphFamily:
    return cast(GraphFamily, family_of(architecture))
