"""Which feature maps each block of a scale-permuted network sums: its parents, and blocks that nothing read.

Du et al. 2020 (arXiv 1912.05027), section 3.3, as the authors' released code does it. The network and its cost
read the result of :func:`wire`, so that the rule stands once. Without torch.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from search_spaces.spinenet.graph import Graph, Kind

Unconnected = Literal["published", "connect"]
UNCONNECTED: tuple[Unconnected, ...] = ("published", "connect")


class Wired(NamedTuple):
    """A permuted block and all that it sums.

    Args:
        level: of its feature map.
        kind: of its block.
        parents: places that are resampled to the block's size and width, and summed.
        merged: places whose maps fit and are summed as they are.
        output: whether it makes one of P3 to P7.
    """

    level: int
    kind: Kind
    parents: tuple[int, ...]
    merged: tuple[int, ...] = ()
    output: bool = False


def wire(graph: Graph, widths: Sequence[int], unconnected: Unconnected) -> tuple[Wired, ...]:
    """The permuted blocks of a graph with the unconnected-block rule carried out.

    ``"published"``: each output block in turn also sums every earlier place of its level and width that no block
    up to it has read, so one that only a later block reads is summed too; one of another width stays dead.
    ``"connect"``: then every intermediate block that still nothing reads, and the last stem block likewise, is
    resampled into the output block nearest in level (ties, which five outputs at levels 3 to 7 cannot have,
    would go to the finer one).

    Args:
        graph: a valid one.
        widths: channels of each place's map.
        unconnected: the rule.

    Returns:
        One entry for each permuted place, in order.
    """
    degrees = [int(place < graph.stem - 1) for place in range(len(graph.nodes))]
    blocks = []
    for place in graph.permuted:
        node = graph.nodes[place]
        for parent in node.parents:
            degrees[parent] += 1
        merged: tuple[int, ...] = ()
        if node.output:
            unread = [earlier for earlier, degree in enumerate(degrees[:place]) if degree == 0]
            merged = tuple(
                earlier
                for earlier in unread
                if graph.nodes[earlier].level == node.level and widths[earlier] == widths[place]
            )
            for earlier in merged:
                degrees[earlier] += 1
        blocks.append(Wired(node.level, node.kind, node.parents, merged, node.output))
    if unconnected == "connect":
        outputs = graph.outputs
        for place, node in enumerate(graph.nodes):
            if degrees[place] == 0 and not node.output:
                nearest = min(outputs, key=lambda level: (abs(level - node.level), level))
                index = outputs[nearest] - graph.stem
                blocks[index] = blocks[index]._replace(parents=(*blocks[index].parents, place))
    return tuple(blocks)


def dead_places(blocks: Sequence[Wired], stem: int) -> tuple[int, ...]:
    """Places from which no output block can be reached, ascending: they cost and learn nothing.

    Args:
        blocks: what :func:`wire` returned.
        stem: how many stem blocks stand before them.
    """
    alive = set()
    for place in range(stem + len(blocks) - 1, -1, -1):
        if place < stem:
            # A stem block also feeds the next one.
            if place + 1 < stem and place + 1 in alive:
                alive.add(place)
            continue
        block = blocks[place - stem]
        if block.output:
            alive.add(place)
        if place in alive:
            alive.update(block.parents, block.merged)
    return tuple(place for place in range(stem + len(blocks)) if place not in alive)
