"""The graph of a scale-permuted network: which block sits at which level and reads which earlier ones.

Du et al. 2020, "SpineNet: Learning Scale-Permuted Backbone for Recognition and Localization"
(arXiv 1912.05027), sections 3 and 3.1, with the bad-input rules of the authors' released code and ours. Without
torch: search, costs and drawings read the same graph that the network is built from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import InvalidArchitecture

Kind = Literal["bottleneck", "residual", "mbconv"]

LOWEST, HIGHEST = 1, 7
"""Levels a block may sit at; level l has 1 / 2^l of the input's resolution."""
OUTPUT_LEVELS = (3, 4, 5, 6, 7)
"""One output block each."""


@dataclass(frozen=True)
class Node:
    """A place of the graph: a stem block or a permuted one.

    Args:
        level: of its feature map.
        kind: of its block.
        parents: places it reads; empty for stem blocks, which form a chain of their own.
        output: whether it makes one of P3 to P7.
    """

    level: int
    kind: Kind
    parents: tuple[int, ...] = ()
    output: bool = False


@dataclass(frozen=True)
class Graph:
    """Stem blocks first, then the permuted blocks in their order; parents count places from 0.

    Args:
        nodes: all of them.
        stem: how many of them are stem blocks.
    """

    nodes: tuple[Node, ...]
    stem: int

    @property
    def permuted(self) -> range:
        """Places of the permuted blocks."""
        return range(self.stem, len(self.nodes))

    @property
    def outputs(self) -> dict[int, int]:
        """Level -> place of its output block."""
        return {node.level: place for place, node in enumerate(self.nodes) if node.output}

    def out_degrees(self) -> list[int]:
        """How many blocks read each place, links inside the stem included."""
        # All stem blocks but the last feed the next one, which the authors' code does not count.
        degrees = [int(place < self.stem - 1) for place in range(len(self.nodes))]
        for node in self.nodes[self.stem :]:
            for parent in node.parents:
                degrees[parent] += 1
        return degrees


def check(graph: Graph, *, window: int | None = None) -> Graph:
    """The graph, if it is one that can be built.

    Args:
        graph: to check.
        window: an intermediate block may read only so many of the places before it; None: any.

    Raises:
        InvalidArchitecture: names the block, what was found and what is allowed.
    """
    seen: dict[int, int] = {}
    for place in graph.permuted:
        node = graph.nodes[place]
        where = f"block {place}"
        if not LOWEST <= node.level <= HIGHEST:
            raise InvalidArchitecture(f"{where}: found level {node.level}; allowed are {LOWEST} to {HIGHEST}")
        _check_parents(where, place, node, window)
        if node.output:
            if node.level not in OUTPUT_LEVELS:
                raise InvalidArchitecture(
                    f"{where}: found an output at level {node.level}; allowed are {_listed(OUTPUT_LEVELS)}"
                )
            if node.level in seen:
                raise InvalidArchitecture(
                    f"{where}: found a second output at level {node.level}, the first is block "
                    f"{seen[node.level]}; allowed is one a level"
                )
            seen[node.level] = place
        elif seen:
            raise InvalidArchitecture(
                f"{where}: found an intermediate block after output block {min(seen.values())}; "
                "intermediate blocks come first"
            )
    if missing := [level for level in OUTPUT_LEVELS if level not in seen]:
        raise InvalidArchitecture(
            f"outputs: found none at level {_listed(missing)}; needed is one at each of {_listed(OUTPUT_LEVELS)}"
        )
    return graph


def _check_parents(where: str, place: int, node: Node, window: int | None) -> None:
    first, second = (*node.parents, -1, -1)[:2]
    if len(node.parents) != 2 or first == second:
        raise InvalidArchitecture(
            f"{where}: found parents {list(node.parents)}; allowed are two different earlier blocks"
        )
    oldest = 0 if window is None or node.output else max(0, place - window)
    for parent in node.parents:
        if not 0 <= parent < place:
            raise InvalidArchitecture(
                f"{where}: found parent {parent}; allowed are the earlier blocks 0 to {place - 1}"
            )
        if parent < oldest:
            raise InvalidArchitecture(
                f"{where}: found parent {parent}; with a window of {window}, allowed are {oldest} to {place - 1}"
            )


def _listed(levels: Sequence[int]) -> str:
    return ", ".join(map(str, levels))
