"""The space of SpineNet: published sizes, one network with many labels, steps between networks, dead blocks."""

import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from search_spaces.architecture import Architecture, Genes, Scalar
from search_spaces.catalog import ZOO, get_space
from search_spaces.errors import InvalidArchitecture
from search_spaces.genes import Categorical, Integer
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from search_spaces.spinenet.dead import dead_blocks, dead_share, why_dead
from search_spaces.spinenet.decisions import INTERMEDIATES
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.labels import DELTAS, labelling, labellings, sequences
from search_spaces.spinenet.orders import output_orders
from search_spaces.spinenet.space import SpineNetSpace

SPINENET49, R0_SP53, R23_SP30 = ZOO["spinenet49"], ZOO["r0_sp53"], ZOO["r23_sp30"]


def changed(base: Architecture, setting: dict[str, Any] | None = None, **genes: Any) -> Architecture:
    return replace(
        base, settings=Genes({**base.settings, **(setting or {})}), genes=Genes({**base.genes, **genes})
    )


def at(base: Architecture, gene: str, place: int, value: object) -> Architecture:
    """The same network with another level, type or parents at one place."""
    values = list(cast(tuple[Any, ...], base.genes[gene]))
    values[place - len(cast(tuple[int, ...], base.settings["stem"]))] = value
    return changed(base, **{gene: tuple(values)})


def chain(*intermediates: int, stem: tuple[int, ...] = (2, 2)) -> Architecture:
    """Every block reads the two before it; outputs from fine to coarse."""
    levels = (*intermediates, 3, 4, 5, 6, 7)
    places = range(len(stem), len(stem) + len(levels))
    return changed(
        SPINENET49,
        {"stem": stem},
        levels=levels,
        types=("bottleneck",) * len(levels),
        parents=tuple((place - 2, place - 1) for place in places),
    )


FROZEN = {"permutation": False, "connections": False, "levels": False, "types": False}


def small(*intermediates: int, **free: Any) -> SpineNetSpace:
    """A space of a chain in which only what is named is free."""
    return SpineNetSpace("small", chain(*intermediates), intermediates=intermediates, **{**FROZEN, **free})


SMALL = {
    "orders": small(2, 3, 3, permutation=True),
    "levels": small(2, 4, levels=True),
    "orders and levels": small(3, 5, permutation=True, levels=True),
    "parents": small(connections=True),
    "types": small(3, types=True),
    "levels and types": small(2, 5, levels=True, types=True),
}
MEMBERS = {name: list(space.enumerate()) for name, space in SMALL.items()}
LARGE = {name: get_space(f"spinenet.{name}") for name in ("r0_sp53", "r23_sp30", "spinenet49")} | {
    "no window": SpineNetSpace("unrestricted", SPINENET49, window=None),
    "allow": SpineNetSpace("allow", SPINENET49, dead="allow"),
    "held order": SpineNetSpace("held", R0_SP53, permutation=False, dead="limit"),
}
EVERY = {**SMALL, **LARGE}


def uniform_parameters(space: SearchSpace, rng: random.Random) -> dict[str, Scalar]:
    drawn: dict[str, Scalar] = {}
    for name, parameter in space.parameters.items():
        match parameter:
            case Categorical(options):
                drawn[name] = rng.choice(options)
            case Integer(low, high):
                drawn[name] = rng.randint(low, high)
            case _:
                raise AssertionError(parameter)
    return drawn


def key(architecture: Architecture) -> tuple[Any, ...]:
    """The genes: as good as the digest where settings are the same, and much faster to hash."""
    return tuple(architecture.genes[name] for name in ("levels", "types", "parents"))


def levels_of(architecture: Architecture) -> tuple[int, ...]:
    return cast(tuple[int, ...], architecture.genes["levels"])


# Sizes: the paper's factors, multiplied out.

R14 = chain(2, 2, 3, 3, 4, 4, 4, 4, stem=(2, 3, 4, 5))
R35 = chain(2, stem=(2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 5))


@pytest.mark.parametrize(
    ("baseline", "permutations", "connections"),
    [
        (R0_SP53, 435_456_000, 834_966_920_275_488_000_000),
        (SPINENET49, 435_456_000, 834_966_920_275_488_000_000),
        (R23_SP30, 14_400, math.prod(math.comb(i, 2) for i in range(7, 17))),
        (R14, 4_838_400, math.prod(math.comb(i, 2) for i in range(4, 17))),
        (R35, 120, math.prod(math.comb(i, 2) for i in range(11, 17))),
    ],
)
def test_sizes_of_the_decisions(baseline: Architecture, permutations: int, connections: int) -> None:
    free = {**FROZEN, "permutation": True}
    assert SpineNetSpace("p", baseline, window=None, **free).size == permutations
    free = {**FROZEN, "connections": True}
    assert SpineNetSpace("c", baseline, window=None, **free).size == connections


def test_unrestricted_connections_of_the_family_have_the_published_magnitude() -> None:
    free = {**FROZEN, "connections": True}
    found = [SpineNetSpace("c", base, window=None, **free).size for base in (R23_SP30, R14, R35)]
    assert [f"{size:.4e}" for size in found] == ["3.0925e+17", "2.7832e+20", "3.2465e+11"]


def test_a_window_of_five_restricts_intermediate_blocks_only() -> None:
    space = SpineNetSpace("c", R0_SP53, **{**FROZEN, "connections": True})
    sizes = [gene.size for gene in space.genes.values()]
    assert sizes == [1, 3, 6, *[10] * 7, 66, 78, 91, 105, 120]
    assert math.prod(sizes[:10]) == 180_000_000
    assert math.prod(sizes[10:]) == 5_902_696_800
    assert space.size == 1_062_485_424_000_000_000


@pytest.mark.parametrize(
    ("options", "size", "magnitude"),
    [
        ({"window": None}, 435_456_000 * 834_966_920_275_488_000_000 * 4**10 * 2**15, "1.249e+40"),
        ({}, 435_456_000 * 1_062_485_424_000_000_000 * 4**10 * 2**15, "1.590e+37"),
        (
            {"window": None, "levels": False, "types": False},
            435_456_000 * 834_966_920_275_488_000_000,
            "3.636e+29",
        ),
        ({"levels": False, "types": False}, 435_456_000 * 1_062_485_424_000_000_000, "4.627e+26"),
    ],
)
def test_sizes_of_whole_spaces(options: dict[str, Any], size: int, magnitude: str) -> None:
    space = SpineNetSpace("whole", R0_SP53, **options)
    assert space.size == size
    assert f"{size:.3e}" == magnitude


def test_spaces_of_the_catalog() -> None:
    r0, r23, full = (LARGE[name] for name in ("r0_sp53", "r23_sp30", "spinenet49"))
    assert r0.size == 435_456_000 * 1_062_485_424_000_000_000
    assert r23.size == 14_400 * 10**5 * math.prod(math.comb(i, 2) for i in range(12, 17))
    assert full.size == r0.size * 4**10 * 2**15
    assert list(r0.genes) == ["order", "outputs", *(f"parents{place}" for place in range(2, 17))]
    assert list(full.genes)[17:] == [
        *(f"delta{place}" for place in range(2, 12)),
        *(f"type{place}" for place in range(2, 17)),
    ]
    assert r23.base == (2, 3, 4, 4, 4)
    assert r0.base == full.base == INTERMEDIATES
    # R23-SP30's stem feeds blocks 7 and on.
    assert next(name for name in r23.genes if name.startswith("parents")) == "parents7"
    assert all(space.baseline.settings["unconnected"] == "connect" for space in (r0, r23, full))


def test_spinenet49_is_reached_from_the_blocks_of_r0_sp53() -> None:
    full = SpineNetSpace("full", R0_SP53)
    assert changed(SPINENET49, {"unconnected": "connect"}) in full
    assert changed(R0_SP53, {"unconnected": "connect"}) in full
    assert full.baseline in SpineNetSpace("full", SPINENET49)


# Many labels, one network.


def labelled(base: tuple[int, ...], deltas: tuple[int, ...]) -> Counter[tuple[int, ...]]:
    """Levels -> number of orders and adjustments that give them, by listing all."""
    return Counter(
        tuple(base[label] + delta for label, delta in zip(order, moved, strict=True))
        for order in itertools.permutations(range(len(base)))
        for moved in itertools.product(deltas, repeat=len(base))
    )


bases = st.lists(st.integers(2, 5), max_size=4).map(sorted).map(tuple)


@settings(max_examples=40, deadline=None)
@given(bases, st.sampled_from([(0,), (0, 1), DELTAS]))
def test_labels_agree_with_listing_them_all(base: tuple[int, ...], deltas: tuple[int, ...]) -> None:
    found = labelled(base, deltas)
    assert sequences(base, deltas) == len(found)
    for levels in itertools.product(range(1, 8), repeat=len(base)):
        labels = labelling(levels, base, deltas)
        assert (labels is not None) == (levels in found)
        assert labellings(levels, base, deltas) == found[levels]
        if labels is not None:
            moves = [level - base[label] for level, label in zip(levels, labels, strict=True)]
            assert sorted(labels) == list(range(len(base))) and set(moves) <= set(deltas)
            orders = itertools.permutations(base)
            assert sum(map(abs, moves)) == min(
                sum(abs(level - before) for level, before in zip(levels, order, strict=True))
                for order in orders
                if all(level - before in deltas for level, before in zip(levels, order, strict=True))
            )


def test_permutations_are_redundant_as_published() -> None:
    assert sequences(INTERMEDIATES, (0,)) == math.factorial(10) // (6 * 120) == 5040
    r0, full = cast(SpineNetSpace, LARGE["r0_sp53"]), cast(SpineNetSpace, LARGE["spinenet49"])
    assert r0.redundancy == 720
    for network in (r0.baseline, r0.sample(rng_for(1))):
        assert r0.labellings(network) == 720 * r0.orders(network)
    assert cast(SpineNetSpace, LARGE["r23_sp30"]).redundancy == 6
    # With adjustments 3.8e12 orders and moves of the intermediates give 8.0e7 sequences of levels.
    assert sequences(INTERMEDIATES) == 79_506_231
    assert full.lists == full.size // (math.factorial(10) * 4**10) * 79_506_231
    assert full.distinct is r0.distinct is None
    assert full.redundancy == pytest.approx(47_858.8, rel=1e-5)
    assert full.labellings(full.baseline) == 68_400 * full.orders(full.baseline)


def test_redundancy_of_a_small_space_by_listing_every_encoding() -> None:
    space = SMALL["orders and levels"]
    found = Counter(key(space.architecture(values)) for values in space._enumerated(list(space.genes)))
    assert found.total() == space.size == 2 * 16 * 120
    assert len(found) == space.distinct == 28 * 120
    assert {key(member): space.labellings(member) for member in MEMBERS["orders and levels"]} == found
    assert space.redundancy == found.total() / len(found)


@pytest.mark.parametrize("name", SMALL)
def test_enumeration_has_every_network_once(name: str) -> None:
    space, members = SMALL[name], MEMBERS[name]
    assert len(members) == len({member.digest for member in members}) == space.distinct
    assert sum(map(space.labellings, members)) == space.size
    for member in members:
        assert space.architecture(space.values(member)) == member


@pytest.mark.parametrize("name", ["r0_sp53", "spinenet49", "no window"])
def test_other_labels_describe_the_same_network(name: str) -> None:
    space, rng = LARGE[name], rng_for(2, name)
    for _ in range(50):
        network = space.sample(rng)
        values = space.values(network)
        order, base = list(cast(tuple[int, ...], values["order"])), cast(SpineNetSpace, space).base
        # Blocks of one base level exchange their labels.
        for level in set(base):
            places = [place for place, label in enumerate(order) if base[label] == level]
            labels = [order[place] for place in places]
            rng.shuffle(labels)
            for place, label in zip(places, labels, strict=True):
                order[place] = label
        parents = {key: tuple(reversed(cast(tuple[int, ...], values[key]))) for key in values if "par" in key}
        again = space.architecture({**values, "order": order, **parents})
        assert again == network and again.digest == network.digest
        assert space.values(again) == values


def test_different_orders_and_adjustments_meet_in_one_network() -> None:
    space = SMALL["orders and levels"]
    held = {"outputs": (0, 1, 2, 3, 4)}
    first = space.architecture({**held, "order": (0, 1), "delta2": 1, "delta3": -1})
    second = space.architecture({**held, "order": (1, 0), "delta2": -1, "delta3": 1})
    assert first == second and first.digest == second.digest
    assert levels_of(first)[:2] == (4, 4)
    assert space.values(second)["order"] == (0, 1)


# Laws of encodings and draws.


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_encodings_operators_and_canonical_values(name: str, seed: int) -> None:
    space, rng = EVERY[name], random.Random(seed)
    a, b = space.sample(rng), space.decode(uniform_parameters(space, rng))
    for member in (a, b, space.crossover(a, b, rng), space.mutate(a, rng), space.mutate(b, rng, 0.3)):
        SPINENET.validate(member)
        assert member in space and space.validate(member) == member
        values, params = space.values(member), space.encode(member)
        assert space.check_values(values) == values
        assert space.architecture(values) == member
        assert list(params) == list(space.parameters)
        assert space.decode(params) == member
        assert space.encode(space.decode(params)) == params
        assert Architecture.from_dict(member.to_dict()) == member
    assert space.crossover(a, a, rng) == a
    assert space.mutate(a, rng) != a and space.mutate(a, rng, 0.2) != a


@pytest.mark.parametrize(("name", "draws"), [("spinenet49", 4000), ("r0_sp53", 3000), ("r23_sp30", 3000)])
def test_ten_thousand_random_encodings_are_networks(name: str, draws: int) -> None:
    space, rng = LARGE[name], rng_for(3, name)
    for _ in range(draws):
        network = space.decode(uniform_parameters(space, rng))
        SPINENET.graph(network, window=5)


def draws_of(space: SearchSpace, through: str) -> Callable[[], Architecture]:
    rng = rng_for(4, through, space.name)
    if through == "sample":
        return lambda: space.sample(rng)
    return lambda: space.decode(uniform_parameters(space, rng))


def fits(found: Counter[Any], expected: dict[Any, float]) -> bool:
    """Chi-square: whether what was found fits the shares expected, which add up to 1."""
    assert set(found) <= set(expected)
    total = found.total()
    counts = [found[key] for key in expected]
    return bool(chisquare(counts, [share * total for share in expected.values()]).pvalue > 0.001)


@pytest.mark.parametrize("through", ["sample", "decode"])
def test_draws_are_uniform_over_labelled_encodings(through: str) -> None:
    space = SMALL["orders and levels"]
    draw = draws_of(space, through)
    drawn = Counter(levels_of(draw()) for _ in range(4000))
    both, outputs = Counter[Any](), Counter[Any]()
    for levels, count in drawn.items():
        both[levels[:2]] += count
        outputs[levels[2:]] += count
    assert fits(both, {levels: count / 32 for levels, count in labelled((3, 5), DELTAS).items()})
    assert fits(outputs, dict.fromkeys(itertools.permutations((3, 4, 5, 6, 7)), 1 / 120))
    # A chance of 1/32 or 2/32 each, as labellings say.
    assert {space.labellings(member) for member in MEMBERS["orders and levels"]} == {1, 2}


@pytest.mark.parametrize("through", ["sample", "decode"])
@pytest.mark.parametrize("name", ["parents", "types", "orders", "levels and types"])
def test_draws_are_uniform(name: str, through: str) -> None:
    space, members = SMALL[name], MEMBERS[name]
    draw = draws_of(space, through)
    drawn = Counter(key(draw()) for _ in range(2 * len(members) + 1000))
    assert fits(drawn, {key(member): space.labellings(member) / space.size for member in members})


# Steps.


@pytest.mark.parametrize("name", ["orders", "levels", "types"])
def test_steps_are_symmetric_lead_elsewhere_and_connect_the_space(name: str) -> None:
    space = SMALL[name]
    near = {key(member): [key(other) for other in space.neighbours(member)] for member in MEMBERS[name]}
    for member, others in near.items():
        assert len(others) == len(set(others)) > 0
        assert member not in others
    pairs = {(member, other) for member, others in near.items() for other in others}
    assert all((other, member) in pairs for member, other in pairs)
    canonical = key(space.validate(space.baseline))
    reached, frontier = {canonical}, [canonical]
    while frontier:
        new = set(near[frontier.pop()]) - reached
        reached |= new
        frontier += new
    assert reached == near.keys()


@pytest.mark.parametrize("name", ["orders", "levels", "types"])
def test_steps_are_those_of_the_genes_from_any_labels(name: str) -> None:
    space = SMALL[name]
    found: dict[Any, set[Any]] = {key(member): set() for member in MEMBERS[name]}
    for values in space._enumerated(list(space.genes)):
        here = key(space.architecture(values))
        for gene, kind in space.genes.items():
            steps = ({**values, gene: value} for value in kind.neighbours(values[gene]))
            found[here] |= {key(space.architecture(step)) for step in steps}
    for member in MEMBERS[name]:
        assert {key(other) for other in space.neighbours(member)} == found[key(member)] - {key(member)}


@pytest.mark.parametrize("name", LARGE)
def test_steps_of_large_spaces(name: str) -> None:
    space, rng = LARGE[name], rng_for(5, name)
    member = space.sample(rng)
    others = list(space.neighbours(member))
    assert len({other.digest for other in (member, *others)}) == len(others) + 1
    for other in rng.sample(others, 2):
        assert other in space and other == space.validate(other)
        assert key(member) in {key(back) for back in space.neighbours(other)}


def test_the_four_mutations_come_equally_often() -> None:
    space, rng = cast(SpineNetSpace, LARGE["spinenet49"]), rng_for(6)
    start = space._canonical(space._decisions.checked(space.baseline))
    reached = {
        decision: {
            str(settled)
            for name in genes
            for moved in space._steps(start, name)
            for ends in output_orders(space._wires(start))
            if (settled := space._settled(moved, ends)) is not None
        }
        for decision, genes in space._decisions.genes.items()
    }
    assert not set.intersection(*reached.values())
    kinds: Counter[str] = Counter()
    for _ in range(600):
        genes = space.mutate(space.baseline, rng).genes
        moved = str({name: genes[name] for name in ("levels", "types", "parents")})
        kinds.update(decision for decision, found in reached.items() if moved in found)
    assert kinds.total() == 600
    assert fits(kinds, dict.fromkeys(("permutation", "connections", "levels", "types"), 1 / 4))


def test_exchanging_equal_levels_is_no_step() -> None:
    space = SMALL["orders"]
    near = [levels_of(other)[:3] for other in space.neighbours(space.baseline)]
    assert near[:2] == [(3, 2, 3), (3, 3, 2)]
    assert len(near) == 2 + 10


def test_a_rate_moves_about_so_many_genes() -> None:
    moved: Counter[str] = Counter()

    class Counting(SpineNetSpace):
        def _drawn(self, blocks: Any, name: str, *rest: Any, **named: Any) -> Any:
            found = super()._drawn(blocks, name, *rest, **named)
            moved[name] += found is not None
            return found

    space, rng = Counting("counting", R0_SP53, levels=False, types=False), rng_for(7)
    for _ in range(200):
        space.mutate(space.baseline, rng, 0.2)
    # Of the first block, which has no other parents in its window, there is no step but with other blocks.
    assert len(moved) == len(space.genes) == 17
    for name, count in moved.items():
        assert name == "parents2" or abs(count - 200 * 0.2) < 30, moved


def test_canonical_values_take_about_a_millisecond() -> None:
    space, rng = LARGE["spinenet49"], rng_for(8)
    members = [space.sample(rng) for _ in range(50)]
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for member in members:
            space.values(member)
        seconds.append((time.process_time() - start) / len(members))
    assert min(seconds) < 0.004, seconds


# Dead blocks.


def test_which_blocks_are_dead() -> None:
    # Block 11 is read by nobody; output 14 takes it in: same level, same type.
    assert dead_blocks(SPINENET49) == () and why_dead(SPINENET49) is None
    residual = at(SPINENET49, "types", 11, "residual")
    assert dead_blocks(residual) == (11,)
    assert dead_blocks(changed(residual, {"unconnected": "connect"})) == (11,)
    assert dead_blocks(at(residual, "types", 14, "residual")) == ()
    # Level 2 has no output.
    assert dead_blocks(at(SPINENET49, "levels", 11, 2)) == (11,)


def test_the_share_of_dead_blocks() -> None:
    """Ours, by drawing: the paper says nothing of it. 20 000 draws gave 12.2 % and 54.1 %."""
    r0, full = cast(SpineNetSpace, LARGE["r0_sp53"]), cast(SpineNetSpace, LARGE["spinenet49"])
    draws = 1500
    for space, share in ((r0, 0.122), (full, 0.541)):
        error = math.sqrt(share * (1 - share) / draws)
        assert abs(dead_share(space, draws, rng_for(9, space.name)) - share) < 4 * error


def test_what_becomes_of_dead_blocks() -> None:
    spaces = {rule: SpineNetSpace("s", SPINENET49, dead=rule) for rule in ("connect", "allow", "limit")}  # type: ignore[arg-type]
    rules = {name: space.baseline.settings["unconnected"] for name, space in spaces.items()}
    assert rules == {"connect": "connect", "allow": "published", "limit": "published"}
    residual = at(SPINENET49, "types", 11, "residual")
    for rule in ("allow", "limit"):
        assert residual in spaces[rule] and residual not in spaces["connect"]
    assert changed(residual, {"unconnected": "connect"}) in spaces["connect"]
    assert len({space.digest for space in spaces.values()}) == 3
    sentence = spaces["limit"].limit(residual)
    assert sentence is not None and "nothing reads block 11 (level 5, residual)" in sentence
    assert spaces["limit"].limit(SPINENET49) is None
    assert spaces["allow"].limit(residual) is None and spaces["connect"].limit(residual) is None


def test_two_dead_blocks_share_a_sentence() -> None:
    two = at(at(SPINENET49, "parents", 11, (7, 8)), "parents", 14, (7, 13))
    two = at(at(two, "parents", 12, (5, 8)), "parents", 13, (4, 8))
    two = at(at(two, "types", 10, "residual"), "types", 11, "residual")
    assert why_dead(two) == (
        "dead: nothing reads block 10 (level 5, residual), block 11 (level 5, residual), and no output block of "
        "that level and type takes them in; choose dead: connect or allow to score such networks"
    )


# Options and members.


def test_frozen_decisions_have_the_baselines_values() -> None:
    rng = rng_for(10)
    for decision, gene in (("connections", "parents"), ("types", "types")):
        space = SpineNetSpace("s", SPINENET49, **cast(dict[str, Any], {decision: False}))
        assert {space.sample(rng).genes[gene] for _ in range(20)} == {SPINENET49.genes[gene]}
    space = SpineNetSpace("s", SPINENET49, levels=False)
    assert space.base == tuple(sorted(levels_of(SPINENET49)[:10]))
    assert {tuple(sorted(levels_of(space.sample(rng))[:10])) for _ in range(20)} == {space.base}
    space = SpineNetSpace("s", SPINENET49, permutation=False)
    drawn = [levels_of(space.sample(rng)) for _ in range(200)]
    assert {levels[10:] for levels in drawn} == {levels_of(SPINENET49)[10:]}
    order = cast(tuple[int, ...], LARGE["spinenet49"].values(LARGE["spinenet49"].baseline)["order"])
    for place, label in enumerate(order):
        assert {levels[place] for levels in drawn} == {INTERMEDIATES[label] + delta for delta in DELTAS}


def test_base_blocks_and_window_are_options() -> None:
    wide = SpineNetSpace("s", chain(3, 4), intermediates=[4, 3], window=3)
    assert wide.base == (3, 4)
    assert wide.genes["parents3"].size == 3 and wide.genes["parents8"].size == math.comb(8, 2)
    assert (
        SpineNetSpace("s", chain(3, 3, 3, 3, 3), intermediates=[3] * 5, window=2).genes["parents6"].size == 1
    )
    assert len({space.digest for space in (wide, SpineNetSpace("s", chain(3, 4), intermediates=[4, 4]))}) == 2


def test_offsets_count_from_the_oldest_block_in_the_window() -> None:
    space = LARGE["r0_sp53"]
    values = space.values(space.baseline)
    # Block 11 reads 8 and 10 of the five before it, 6 to 10; output 12 reads 4 and 10 of all.
    assert values["parents11"] == (2, 4) and values["parents12"] == (4, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"window": 1},
            "s: window: found 1; allowed are integers from 2, as a block has two parents, or None",
        ),
        ({"window": 2.5}, "s: window: found 2.5; allowed are integers"),
        ({"dead": "keep"}, "s: dead: found 'keep'; allowed are connect, allow, limit"),
        (FROZEN, "s: nothing is free; free at least one of permutation, connections, levels, types"),
        (
            {"baseline": ZOO["resnet18"]},
            "s: baseline: found family 'crnas.resnet'; allowed are 'spinenet' and",
        ),
        ({"baseline": changed(SPINENET49, {"pool": "max"})}, "settings.pool: found 'max'"),
        (
            {"intermediates": (3, 4)},
            r"found 2 levels \[3, 4\]; needed is one for each of the 10 intermediate",
        ),
        ({"intermediates": "234"}, "s: intermediates: found '234'; allowed is a list of integers"),
        ({"intermediates": [2.0] * 10}, r"s: intermediates: found \[2.0, .*allowed is a list of integers"),
        (
            {"intermediates": [6] * 10},
            r"found level 6; allowed are 2 to 5, so that adjustments of \[-1, 0, 1, 2\]",
        ),
        ({"intermediates": [1] * 10}, "found level 1; allowed are 2 to 5"),
        ({"intermediates": [8] * 10, "levels": False}, "found level 8; allowed are 1 to 7"),
        (
            {"intermediates": [2] * 10},
            r"s: levels: found \[2, 4, 3, .*; allowed are intermediate blocks at \[2, 2, .*, in any order, each "
            r"moved by one of \[-1, 0, 1, 2\]. That is the baseline, which must be in the space",
        ),
        (
            {"intermediates": [2] * 10, "permutation": False, "levels": False},
            r"allowed are intermediate blocks at \[2, 2, .*, in this order; outputs at \[4, 3, 5, 7, 6\]",
        ),
        (
            {"window": 2},
            r"s: parents: found parent 0 of block 3; with a window of 2, allowed are 1 to 2. That is",
        ),
        ({"baseline": R23_SP30}, r"found 10 levels .* needed is one for each of the 5 intermediate"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    baseline = options.get("baseline", SPINENET49)
    rest = {key: value for key, value in options.items() if key != "baseline"}
    with pytest.raises(InvalidArchitecture, match=words):
        SpineNetSpace("s", baseline, **rest)


BASE = LARGE["r0_sp53"].baseline


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (ZOO["resnet18"], "spinenet.r0_sp53: found family 'crnas.resnet'; this space has 'spinenet' only"),
        (replace(BASE, version=2), "found version 2; this space has 1 only"),
        (R0_SP53, "settings.unconnected: found 'published'; this space has 'connect' only"),
        (changed(BASE, {"repeats": 2}), "settings.repeats: found 2; this space has 1 only"),
        (changed(BASE, {"filter_size_scale": 1}), "settings.filter_size_scale: found 1; this space has 1.0"),
        (changed(BASE, {"depth": 2}), "settings.depth: there is no such setting"),
        (
            replace(BASE, settings=Genes({k: v for k, v in BASE.settings.items() if k != "pool"})),
            "settings.pool is missing; this space has 'single' only",
        ),
        (at(BASE, "types", 4, "residual"), "types: found 'residual' at block 4; types are not free here"),
        (at(BASE, "types", 4, "conv"), "types: found"),
        (at(BASE, "levels", 4, 8), "block 4: found level 8; allowed are 1 to 7"),
        (
            at(BASE, "levels", 4, 4),
            r"allowed are intermediate blocks at \[2, 3, 3, 3, 4, .*5\], in any order$",
        ),
        (
            at(BASE, "parents", 9, (3, 8)),
            "parents: found parent 3 of block 9; with a window of 5, allowed are 4 to 8",
        ),
        (at(BASE, "parents", 9, (8,)), r"parents: found \[8\] at block 9; allowed are two earlier blocks"),
        (at(BASE, "parents", 9, (8, 9)), "block 9: found parent 9"),
        (at(BASE, "parents", 9, (8, 8)), "two different earlier blocks"),
        (changed(chain(3), {"unconnected": "connect"}), "found 6 permuted blocks; this space has 15"),
    ],
)
def test_bad_members(architecture: Architecture, words: str) -> None:
    assert architecture not in LARGE["r0_sp53"]
    with pytest.raises(InvalidArchitecture, match=words):
        LARGE["r0_sp53"].values(architecture)


def test_held_wires_are_checked() -> None:
    space = SpineNetSpace("s", R0_SP53, connections=False)
    with pytest.raises(InvalidArchitecture, match=r"parents: found .5, 8. at block 9; parents are not free"):
        space.values(at(space.baseline, "parents", 9, (5, 8)))


def test_bad_values_name_the_gene() -> None:
    space = LARGE["spinenet49"]
    values = space.values(space.baseline)
    for gene, value, words in (
        ("order", (0,) * 10, "order: found .* allowed is each of 0 to 9 exactly once"),
        ("parents9", (1, 5), "parents9: found .1, 5.; allowed are 2 distinct blocks of 0 to 4"),
        ("delta4", 3, "delta4: found 3; allowed are -1, 0, 1, 2"),
        ("type4", "mbconv", "type4: found 'mbconv'; allowed are 'bottleneck', 'residual'"),
    ):
        with pytest.raises(InvalidArchitecture, match=words):
            space.architecture({**values, gene: value})
