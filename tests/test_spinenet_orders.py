"""The canonical order: equal networks, and no others, share a digest, by rules written here a second time."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import ZOO, get_space
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.orders import Orders, Wires, merged_in, output_orders
from search_spaces.spinenet.space import SpineNetSpace
from search_spaces.spinenet.zoo import with_settings

Row = tuple[int, str, tuple[int, ...]]
STEM = 2


def rows_of(architecture: Architecture) -> list[Row]:
    genes = cast(dict[str, tuple[Any, ...]], architecture.genes)
    return list(zip(genes["levels"], genes["types"], genes["parents"], strict=True))


def with_rows(architecture: Architecture, rows: list[Row]) -> Architecture:
    levels, types, parents = zip(*rows, strict=True)
    return replace(architecture, genes=Genes({"levels": levels, "types": types, "parents": parents}))


def reordered(rows: list[Row], order: tuple[int, ...]) -> list[Row]:
    """The blocks in another order of their indices, wires and all; a parent may come to stand later."""
    place = {STEM + old: STEM + new for new, old in enumerate(order)} | {node: node for node in range(STEM)}
    return [
        (rows[old][0], rows[old][1], tuple(sorted(place[parent] for parent in rows[old][2]))) for old in order
    ]


def stands(rows: list[Row], window: int | None) -> bool:
    """Whether every block reads earlier ones, and an intermediate one none before its window."""
    for place, (_, _, parents) in enumerate(rows, STEM):
        oldest = 0 if window is None or place >= STEM + len(rows) - 5 else place - window
        if max(parents) >= place or min(parents) < oldest:
            return False
    return True


def all_orders(rows: list[Row], window: int | None) -> Iterator[list[Row]]:
    """Every list that describes these wires, whatever its outputs then sum."""
    inner = len(rows) - 5
    for first in itertools.permutations(range(inner)):
        for last in itertools.permutations(range(inner, len(rows))):
            found = reordered(rows, (*first, *last))
            if stands(found, window):
                yield found


def network(architecture: Architecture) -> object:
    """The wired network without an order: the smallest description over all names of intermediate blocks."""
    shape = SPINENET.shape(architecture)
    inner = len(shape.blocks) - 5
    levels = sorted(block.level for block in shape.blocks[inner:])
    descriptions = []
    for names in itertools.permutations(range(inner)):
        name = {place: ("stem", place) for place in range(STEM)}
        name |= {STEM + index: ("block", new) for index, new in enumerate(names)}
        for index, block in enumerate(shape.blocks[inner:], inner):
            name[STEM + index] = ("output", levels.index(block.level))
        descriptions.append(
            sorted(
                (
                    name[place],
                    block.level,
                    block.kind,
                    sorted(name[parent] for parent in block.parents),
                    sorted(name[other] for other in block.merged),
                )
                for place, block in enumerate(shape.blocks, STEM)
            )
        )
    return min(descriptions)


def drawn(rng: random.Random, intermediates: int, window: int | None) -> list[Row]:
    """Few levels and types, so that unread blocks find outputs, and twins are common."""
    rows: list[Row] = []
    outputs = rng.sample(range(3, 8), 5)
    for index in range(intermediates + 5):
        output = index >= intermediates
        level = outputs[index - intermediates] if output else rng.choice((3, 4))
        oldest = 0 if window is None or output else max(0, STEM + index - window)
        pair = tuple(sorted(rng.sample(range(oldest, STEM + index), 2)))
        rows.append((level, rng.choice(("bottleneck", "bottleneck", "residual")), pair))
    return rows


def space_of(baseline: Architecture, **options: Any) -> SpineNetSpace:
    base = sorted(level for level, _, _ in rows_of(baseline)[:-5])
    return SpineNetSpace("tiny", baseline, intermediates=base, **{"levels": False, **options})


@pytest.mark.parametrize(("window", "dead"), [(3, "allow"), (None, "connect")])
def test_lists_share_a_digest_if_and_only_if_they_describe_one_network(window: int | None, dead: str) -> None:
    rng = rng_for(0, "digests", dead)
    several = 0
    for _ in range(12):
        rows = drawn(rng, 3, window)
        space = space_of(with_rows(ZOO["spinenet49"], rows), window=window, dead=dead)
        by_network: dict[str, set[str]] = {}
        lists: dict[str, int] = {}
        orders = list(all_orders(rows, window))
        for found in rng.sample(orders, min(len(orders), 40)):
            member = with_rows(space.baseline, found)
            canonical = space.validate(member)
            assert rows_of(canonical) <= found and space.validate(canonical) == canonical
            assert space.values(member) == space.values(canonical)
            by_network.setdefault(str(network(member)), set()).add(canonical.digest)
            assert network(canonical) == network(member)
        for found in orders:
            described = str(network(with_rows(space.baseline, found))) if len(orders) <= 300 else ""
            lists[described] = lists.get(described, 0) + 1
        digests = [digest for found in by_network.values() for digest in found]
        assert len(digests) == len(set(digests)) == len(by_network)
        several += len(by_network) > 1
        if "" not in lists:
            ours = str(network(space.baseline))
            same = {
                tuple(found) for found in orders if str(network(with_rows(space.baseline, found))) == ours
            }
            assert space.orders(space.baseline) == len(same)
            assert rows_of(space.validate(space.baseline)) == list(min(same))
    assert several, "in some, the order of the outputs decides what they sum"


def test_the_smallest_list_and_the_count_with_twins() -> None:
    rng = rng_for(1, "twins")
    for _ in range(40):
        rows = drawn(rng, 4, 4)
        stem = ((2, "bottleneck"),) * STEM
        ends = range(STEM + 4, STEM + 9)
        merged = merged_in(stem, rows, ends)
        assert merged is not None
        inside = [reordered(rows, (*first, *range(4, 9))) for first in itertools.permutations(range(4))]
        held = tuple(level for level, _, _ in rows[4:])
        # The outputs in their order: what is left is the order of the intermediate blocks.
        orders = Orders(
            Wires(stem, tuple(rows), merged),
            4,
            lambda place, row: place < STEM + 4 or row[0] == held[place - STEM - 4],  # noqa: B023
        )
        expected = {tuple(found) for found in inside if stands(found, 4)}
        assert orders.count() == len(expected)
        assert orders.first() == min(expected)


def test_ten_twins_without_a_window_are_not_tried_in_all_their_orders() -> None:
    # No output is at level 2, so none takes an unread block in.
    twins: list[Row] = [(2, "bottleneck", (0, 1))] * 10
    outputs: list[Row] = [(level, "bottleneck", (2 * level - 4, 2 * level - 3)) for level in range(3, 8)]
    stem = ((2, "bottleneck"),) * STEM
    assert Orders(Wires(stem, (*twins, *outputs), frozenset()), None).first() == (*twins, *outputs)
    outputs = [*outputs[:3], (6, "bottleneck", (0, 1)), (7, "bottleneck", (0, 1))]
    wires = Wires(stem, (*twins[:6], *outputs), frozenset())
    # Three outputs in turn read any pair of those left, and the outputs may stand in any order.
    assert Orders(wires, None).count() == 120 * 15 * 6


def test_wires_without_an_order_within_the_window() -> None:
    rows: list[Row] = [(3, "bottleneck", (place - 2, place - 1)) for place in range(2, 9)]
    rows += [(level, "bottleneck", (7, 8)) for level in range(3, 8)]
    stem = ((2, "bottleneck"),) * STEM
    assert Orders(Wires(stem, tuple(rows), frozenset()), 2).first() == tuple(rows)
    far = [*rows[:4], (3, "bottleneck", (2, 5)), *rows[5:]]
    assert Orders(Wires(stem, tuple(far), frozenset()), 3).first() is None
    assert Orders(Wires(stem, tuple(far), frozenset()), 3).count() == 0
    assert Orders(Wires(stem, tuple(far), frozenset()), 4).first() == tuple(far)
    ring = [(3, "bottleneck", (0, 3)), (3, "bottleneck", (0, 2)), *rows[2:]]
    assert Orders(Wires(stem, tuple(ring), frozenset()), None).first() is None


@pytest.mark.parametrize("name", ["spinenet49", "r23_sp30"])
def test_what_outputs_sum_is_what_the_network_is_wired_to(name: str) -> None:
    space, rng = SpineNetSpace("allow", ZOO[name], levels=False, dead="allow"), rng_for(2, "merged")
    levels = cast(tuple[int, ...], ZOO[name].settings["stem"])
    stem = tuple((level, "bottleneck") for level in levels)
    found: set[int] = set()
    for _ in range(150):
        rows = rows_of(space.sample(rng))
        blocks = SPINENET.shape(with_rows(space.baseline, rows)).blocks
        wired = {(place, other) for place, block in enumerate(blocks, len(stem)) for other in block.merged}
        ends = range(len(stem) + len(rows) - 5, len(stem) + len(rows))
        merged = merged_in(stem, rows, ends)
        assert merged == wired
        assert tuple(ends) in output_orders(Wires(stem, tuple(rows), cast(Any, merged)))
        found |= {other for _, other in wired}
    # The last block of R23-SP30's stem may be unread too; the others feed the next one.
    assert found.intersection(range(len(stem))) == ({6} if name == "r23_sp30" else set())


@pytest.mark.parametrize("dead", ["connect", "allow"])
def test_two_orders_with_the_same_weights_compute_the_same_maps(dead: Any) -> None:
    small = with_settings(ZOO["spinenet49"], {"filter_size_scale": 0.0625, "endpoint": 8})
    space, rng = SpineNetSpace("narrow", small, dead=dead), rng_for(3, "maps", dead)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        listed = space._decisions.blocks({name: gene.sample(rng) for name, gene in space.genes.items()})
        member = space._with(listed)
        canonical = space.validate(member)
        theirs, ours = SPINENET.shape(canonical).blocks, SPINENET.shape(member).blocks
        assert member != canonical
        place = place_of(list(map(tuple, ours)), list(map(tuple, theirs)))
        one, other = (family_of(found).build(found, seed=0).eval() for found in (member, canonical))
        weights = other.state_dict()
        for name, value in one.state_dict().items():
            part, index, *rest = name.split(".")
            if part in ("blocks", "resamples"):
                now = place[STEM + int(index)] - STEM
                if part == "resamples":
                    parent = place[ours[int(index)].parents[int(rest[0])]]
                    rest = [str(theirs[now].parents.index(parent)), *rest[1:]]
                name = ".".join([part, str(now), *rest])
            assert weights[name].shape == value.shape
            weights[name] = value
        other.load_state_dict(weights)
        with torch.no_grad():
            for level, found in one(image).items():
                torch.testing.assert_close(other(image)[level], found, atol=1e-5, rtol=1e-4)


def place_of(ours: list[Any], theirs: list[Any]) -> dict[int, int]:
    """Node of one list -> node of another list of the same network, found by trying."""

    def tried(place: dict[int, int], node: int) -> dict[int, int] | None:
        if node == STEM + len(ours):
            return place
        level, kind, parents, merged, output = ours[node - STEM]
        for other, block in enumerate(theirs, STEM):
            fits = other not in place.values() and block[:2] == (level, kind) and block[4] == output
            if fits and all(
                sorted(place[one] for one in read) == sorted(block[at])
                for at, read in ((2, parents), (3, merged))
            ):
                found = tried({**place, node: other}, node + 1)
                if found is not None:
                    return found
        return None

    found = tried({node: node for node in range(STEM)}, STEM)
    assert found is not None
    return found


def test_published_lists_stay_and_a_reordered_twin_is_a_duplicate() -> None:
    space = cast(SpineNetSpace, get_space("spinenet.spinenet49"))
    rows = rows_of(ZOO["spinenet49"])
    assert rows_of(space.baseline) == rows
    # Blocks 6 and 7 do not read one another, so block 7 may come first.
    swapped = reordered(rows, (0, 1, 2, 3, 5, 4, *range(6, 15)))
    twin = with_rows(space.baseline, swapped)
    assert stands(swapped, 5) and swapped != rows and twin in space
    assert twin.digest != space.baseline.digest
    canonical = space.validate(space.baseline)
    assert space.validate(twin).digest == canonical.digest
    assert space.decode(space.encode(twin)) == space.decode(space.encode(space.baseline)) == canonical
    assert space.labellings(twin) == space.labellings(canonical)


@pytest.mark.parametrize("held", ["types", "connections", "permutation"])
def test_what_is_held_belongs_to_the_place(held: str) -> None:
    space = SpineNetSpace("held", ZOO["spinenet49"], **cast(dict[str, Any], {held: False}))
    rng = rng_for(4, held)
    for _ in range(30):
        member = space.mutate(space.sample(rng), rng)
        for gene in {"types": ["types"], "connections": ["parents"], "permutation": []}[held]:
            assert member.genes[gene] == space.baseline.genes[gene]
        assert space.validate(member) == member and space.orders(member) >= 1
