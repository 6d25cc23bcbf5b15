"""Graphs of scale-permuted networks: every bad-input rule speaks, and links are counted as published."""

from dataclasses import replace

import pytest

from search_spaces.errors import InvalidArchitecture
from search_spaces.spinenet.graph import Graph, Kind, Node, check

# SpineNet-49 (figure 4 of the paper and the authors' code): level, kind, parents.
BLOCKS: tuple[tuple[int, Kind, tuple[int, int]], ...] = (
    (2, "bottleneck", (0, 1)),
    (4, "residual", (0, 1)),
    (3, "bottleneck", (2, 3)),
    (4, "bottleneck", (2, 4)),
    (6, "residual", (3, 5)),
    (4, "bottleneck", (3, 5)),
    (5, "residual", (6, 7)),
    (7, "residual", (6, 8)),
    (5, "bottleneck", (8, 9)),
    (5, "bottleneck", (8, 10)),
    (4, "bottleneck", (5, 10)),
    (3, "bottleneck", (4, 10)),
    (5, "bottleneck", (7, 12)),
    (7, "bottleneck", (5, 14)),
    (6, "bottleneck", (12, 14)),
)
STEM = (Node(2, "bottleneck"), Node(2, "bottleneck"))
SPINENET49 = Graph(
    nodes=(*STEM, *(Node(*block, output=index >= 10) for index, block in enumerate(BLOCKS))), stem=2
)


def changed(place: int, **values: object) -> Graph:
    nodes = list(SPINENET49.nodes)
    nodes[place] = replace(nodes[place], **values)  # type: ignore[arg-type]
    return Graph(nodes=tuple(nodes), stem=2)


def test_the_published_graph_is_valid_with_a_window_of_five() -> None:
    assert check(SPINENET49, window=5) is SPINENET49
    assert SPINENET49.outputs == {4: 12, 3: 13, 5: 14, 7: 15, 6: 16}


def test_blocks_that_nothing_reads() -> None:
    assert [place for place, degree in enumerate(SPINENET49.out_degrees()) if degree == 0] == [11, 13, 15, 16]


def test_links_inside_the_stem_count() -> None:
    nodes = (*(Node(2, "bottleneck") for _ in range(4)), *SPINENET49.nodes[2:])
    assert Graph(nodes=nodes, stem=4).out_degrees()[:4] == [2 + 1, 2 + 1, 2 + 1, 3]


@pytest.mark.parametrize(
    ("place", "values", "words"),
    [
        (3, {"level": 0}, "block 3: found level 0; allowed are 1 to 7"),
        (3, {"level": 8}, "block 3: found level 8"),
        (5, {"parents": (2, 2)}, "block 5: found parents .2, 2.; allowed are two different earlier blocks"),
        (5, {"parents": (2,)}, "block 5: found parents .2.; allowed are two"),
        (5, {"parents": (2, 5)}, "block 5: found parent 5; allowed are the earlier blocks 0 to 4"),
        (5, {"parents": (-1, 2)}, "block 5: found parent -1"),
        (9, {"parents": (3, 8)}, "block 9: found parent 3; with a window of 5, allowed are 4 to 8"),
        (15, {"level": 6}, "block 16: found a second output at level 6, the first is block 15"),
        (15, {"level": 2}, "block 15: found an output at level 2; allowed are 3, 4, 5, 6, 7"),
        (
            14,
            {"output": False, "parents": (12, 13)},
            "block 14: found an intermediate block after output block 12",
        ),
        (12, {"output": False, "parents": (8, 10)}, "outputs: found none at level 4"),
    ],
)
def test_bad_graphs(place: int, values: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArchitecture, match=words):
        check(changed(place, **values), window=5)
