"""Laws of genes: exact sizes, uniform draws, encodings without holes, closed operators."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from search_spaces.architecture import Scalar, Value
from search_spaces.errors import InvalidArchitecture
from search_spaces.genes import Categorical, Choice, Composition, Gene, Integer, Parents, Permutation, Real
from search_spaces.randomness import rng_for, seed_for

TABLE = (
    tuple(range(1, 11)),
    tuple(range(1, 11)),
    (2, 3, 5, 6, 9, 11, 14, 17, 20, 23),
    (2, 3, 4, 6, 7, 9, 11, 13, 15, 17),
)

choices = st.lists(
    st.integers(0, 9) | st.text("abc", max_size=2) | st.tuples(st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=6,
    unique_by=repr,
).map(lambda options: Choice(tuple(options)))
permutations = st.integers(1, 5).map(Permutation)
parents = st.integers(1, 6).flatmap(lambda n: st.integers(1, n).map(lambda k: Parents(n, k)))


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    part = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True).map(sorted).map(tuple)
    parts = tuple(draw(st.lists(part, min_size=1, max_size=4)))
    if draw(st.booleans()):
        return Composition(parts, total=sum(draw(st.sampled_from(part)) for part in parts))
    costs = tuple(tuple(draw(st.integers(-5, 20)) for _ in part) for part in parts)
    spent = sum(draw(st.sampled_from(row)) for row in costs)
    window = (spent - draw(st.integers(0, 6)), spent + draw(st.integers(0, 6)))
    return Composition(parts, window=window, costs=costs)


genes = choices | permutations | parents | compositions()


def brute_force(gene: Composition) -> list[tuple[int, ...]]:
    low, high = gene.bounds
    return [value for value in itertools.product(*gene.parts) if low <= gene.cost(value) <= high]


def draw_parameters(gene: Gene, draw: Callable[[Any], Any]) -> dict[str, Scalar]:
    drawn: dict[str, Scalar] = {}
    for suffix, parameter in gene.parameters.items():
        match parameter:
            case Categorical(options):
                drawn[suffix] = draw(st.sampled_from(options))
            case Integer(low, high):
                drawn[suffix] = draw(st.integers(low, high))
            case Real(low, high):
                drawn[suffix] = draw(st.floats(low, high))
    return drawn


def uniform_parameters(gene: Gene, rng: random.Random) -> dict[str, Scalar]:
    drawn: dict[str, Scalar] = {}
    for suffix, parameter in gene.parameters.items():
        match parameter:
            case Categorical(options):
                drawn[suffix] = rng.choice(options)
            case Integer(low, high):
                drawn[suffix] = rng.randint(low, high)
            case Real(low, high):
                drawn[suffix] = rng.uniform(low, high)
    return drawn


@given(genes)
def test_size_equals_enumeration_and_every_value_is_its_own_canonical_form(gene: Gene) -> None:
    values = list(gene.enumerate())
    assert len(values) == len(set(values)) == gene.size
    for value in values:
        assert gene.validate(value) == value
        as_list = list(value) if isinstance(value, tuple) else value
        assert gene.validate(as_list) == value


@given(compositions())
def test_composition_enumerates_what_brute_force_finds_in_order(gene: Composition) -> None:
    assert list(gene.enumerate()) == sorted(brute_force(gene))


@given(permutations | parents)
def test_permutations_and_parents_enumerate_in_lexicographic_order(gene: Permutation | Parents) -> None:
    values = list(gene.enumerate())
    assert values == sorted(values)  # type: ignore[type-var]


@given(genes)
def test_decode_undoes_encode_for_every_value(gene: Gene) -> None:
    for value in gene.enumerate():
        params = gene.encode(value)
        assert list(params) == list(gene.parameters)
        assert gene.decode(params) == value


@given(genes, st.data())
def test_every_parameter_in_range_decodes_to_a_valid_value(gene: Gene, data: st.DataObject) -> None:
    params = draw_parameters(gene, data.draw)
    value = gene.decode(params)
    assert gene.validate(value) == value
    canonical = gene.encode(value)
    assert gene.decode(canonical) == value
    assert gene.encode(gene.decode(canonical)) == canonical


@given(genes)
def test_there_is_always_a_parameter_to_record(gene: Gene) -> None:
    assert gene.parameters


@given(genes, st.integers(0, 2**32), st.data())
def test_operators_are_closed(gene: Gene, seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    values = list(gene.enumerate())
    a, b = data.draw(st.sampled_from(values)), data.draw(st.sampled_from(values))
    assert gene.sample(rng) in values
    assert gene.crossover(a, b, rng) in values
    assert gene.crossover(a, a, rng) == a
    mutant = gene.mutate(a, rng)
    assert mutant in values
    assert (mutant != a) == (gene.size > 1)


@given(genes)
def test_neighbours_are_symmetric_and_connect_all_values(gene: Gene) -> None:
    near = {value: list(gene.neighbours(value)) for value in gene.enumerate()}
    for value, others in near.items():
        assert value not in others
        assert len(others) == len(set(others))
        assert all(value in near[other] for other in others)
    first = next(iter(near))
    reached, frontier = {first}, [first]
    while frontier:
        new = set(near[frontier.pop()]) - reached
        reached |= new
        frontier += new
    assert reached == set(near)


def in_between(gene: Composition, a: Sequence[int], b: Sequence[int]) -> list[tuple[int, ...]]:
    return [
        value
        for value in brute_force(gene)
        if value not in (tuple(a), tuple(b))
        and all(min(x, y) <= m <= max(x, y) for x, m, y in zip(a, value, b, strict=True))
    ]


@given(compositions(), st.data())
def test_neighbours_of_a_composition_are_those_with_nothing_in_between(
    gene: Composition, data: st.DataObject
) -> None:
    values = brute_force(gene)
    value = data.draw(st.sampled_from(values))
    expected = {other for other in values if other != value and not in_between(gene, value, other)}
    assert set(gene.neighbours(value)) == expected


def test_neighbours_move_one_block_where_all_counts_are_allowed() -> None:
    gene = Composition(((1, 2, 3, 4),) * 4, total=8)
    assert set(gene.neighbours((2, 2, 2, 2))) == {
        tuple(2 + (place == to) - (place == away) for place in range(4))
        for to in range(4)
        for away in range(4)
        if to != away
    }


def test_neighbours_take_in_a_third_part_only_where_gaps_demand_it() -> None:
    # No two parts can trade: 3 units leave the first and 1 and 2 arrive at the others.
    gene = Composition(((0, 3), (0, 1), (0, 2)), total=3)
    assert list(gene.neighbours((3, 0, 0))) == [(0, 1, 2)]


def test_crossover_inherits_whole_parts_where_a_mix_exists() -> None:
    gene = Composition(((1, 2, 3, 4),) * 4, total=8)
    rng = random.Random(0)
    children = {gene.crossover((1, 3, 2, 2), (3, 1, 1, 3), rng) for _ in range(200)}
    assert children == {(1, 3, 2, 2), (1, 3, 1, 3), (3, 1, 2, 2), (3, 1, 1, 3)}
    # 1124 and 2222 have no mix with sum 8: the child lies between them.
    assert {gene.crossover((1, 1, 2, 4), (2, 2, 2, 2), rng) for _ in range(200)} == {
        (1, 1, 2, 4),
        (1, 2, 2, 3),
        (2, 1, 2, 3),
        (2, 2, 2, 2),
    }


UNIFORM: Mapping[str, Gene] = {
    "choice": Choice(("a", "b", "c", (1, 2))),
    "permutation": Permutation(4),
    "parents": Parents(6, 3),
    "blocks8": Composition(TABLE, total=8),
    "blocks16": Composition(TABLE, total=16),
    "blocks33": Composition(TABLE, total=33),
    "small": Composition(((1, 2, 3, 4),) * 4, total=8),
    "window": Composition(
        ((1, 2, 3), (1, 2, 3), (1, 2)), window=(30, 45), costs=((3, 9, 17), (8, 11, 20), (13, 14))
    ),
}


@pytest.mark.parametrize("through", ["sample", "decode"])
@pytest.mark.parametrize("name", UNIFORM)
def test_draws_are_uniform(name: str, through: str) -> None:
    gene = UNIFORM[name]
    rng = rng_for(20, name, through)
    draws = 40 * gene.size
    drawn: Counter[Value] = Counter(
        gene.sample(rng) if through == "sample" else gene.decode(uniform_parameters(gene, rng))
        for _ in range(draws)
    )
    counts = [drawn[value] for value in gene.enumerate()]
    assert sum(counts) == draws
    assert chisquare(counts).pvalue > 0.001


def test_both_ends_of_a_share_are_valid() -> None:
    gene = Composition(TABLE, total=33)
    values = list(gene.enumerate())
    assert gene.decode(dict.fromkeys(gene.parameters, 0.0)) == values[0]
    assert gene.decode(dict.fromkeys(gene.parameters, 1.0)) == values[-1]
    assert gene.decode(dict.fromkeys(gene.parameters, 1)) == values[-1]


def test_a_part_that_follows_from_the_others_has_no_parameter() -> None:
    assert list(Composition(TABLE, total=8).parameters) == ["0", "1", "2"]
    assert list(Composition(((1, 2), (5,), (1, 2)), total=8).parameters) == ["0"]
    assert list(Composition(((2,), (3,)), total=5).parameters) == ["0"]


def test_large_genes_are_counted_without_enumeration() -> None:
    assert Permutation(30).size == math.factorial(30)
    assert Parents(60, 30).size == math.comb(60, 30)
    gene = Composition((tuple(range(1, 11)),) * 10, total=50)
    assert gene.size == 374894389
    rng = random.Random(3)
    value = gene.sample(rng)
    assert gene.decode(gene.encode(value)) == value
    assert gene.unrank(gene.size - 1) == (10, 10, 10, 10, 5, 1, 1, 1, 1, 1)
    assert len(list(gene.neighbours((5,) * 10))) == 90
    assert gene.validate(gene.mutate(value, rng)) != value


def test_mutation_reaches_every_neighbour_equally_often() -> None:
    gene = Composition(TABLE, total=16)
    rng = random.Random(5)
    near = list(gene.neighbours((3, 4, 6, 3)))
    counts = Counter(gene.mutate((3, 4, 6, 3), rng) for _ in range(20 * len(near)))
    assert chisquare([counts[value] for value in near]).pvalue > 0.001


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(()), "at least one option"),
        (lambda: Choice((1, 2, 1)), "must differ"),
        (lambda: Choice("abc"), "a list of at least one option"),
        (lambda: Permutation(0), "at least one thing"),
        (lambda: Parents(2, 3), "cannot choose 3 distinct parents among 2"),
        (lambda: Parents(2, 0), "cannot choose 0"),
        (lambda: Composition((), total=1), "at least one part"),
        (lambda: Composition(((1, 2), ()), total=1), r"part 2 allows \[\]"),
        (lambda: Composition(((2, 1),), total=1), r"part 1 allows \[2, 1\]; .* ascending"),
        (lambda: Composition(((1, 1),), total=1), "each once"),
        (lambda: Composition(((1, 2.0),), total=1), "list of integers"),
        (lambda: Composition((3,), total=1), "list of integers"),
        (lambda: Composition(3, total=1), "allowed is a list"),
        (lambda: Composition(((1,),)), "exactly one of total and window"),
        (lambda: Composition(((1,),), total=1, window=(1, 1)), "exactly one of total and window"),
        (lambda: Composition(((1, 2),), total=1.5), "are integers; found sum 1.5"),
        (lambda: Composition(((1, 2),), window=(0, 1.5)), "are integers; found sum from 0 to 1.5"),
        (lambda: Composition(((1, 2),), total=1, costs=((1,),)), "layout of parts"),
        (
            lambda: Composition(((1, 2), (1, 2)), total=7),
            r"no allocation with sum 7 exists; the parts allow \[1, 2\], \[1, 2\].*from 2 to 4",
        ),
        (lambda: Composition(((1, 2),), window=(5, 9)), "no allocation with sum from 5 to 9"),
        (
            lambda: Composition(((0, 60), *((0, 1),) * 60), window=(0, 60)),
            r"part 1 has a value with a share of less than 2\*\*-48",
        ),
    ],
)
def test_genes_that_cannot_be_say_why(make: Callable[[], Gene], message: str) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        make()


@pytest.mark.parametrize(
    ("gene", "value", "message"),
    [
        (Choice((1, 2, 3)), 4, "found 4; allowed are 1, 2, 3"),
        (Choice((1, 2, 3)), 2.0, "found 2.0; allowed are"),
        (Choice((1, 2, 3)), True, "found True"),
        (Choice((1, 2, 3)), None, "found None"),
        (Permutation(3), (0, 1, 1), "each of 0 to 2 exactly once"),
        (Permutation(3), (0, 1), "each of 0 to 2 exactly once"),
        (Permutation(3), "012", "list of integers"),
        (Parents(4, 2), (1, 1), "2 distinct blocks of 0 to 3"),
        (Parents(4, 2), (1, 4), "2 distinct blocks of 0 to 3"),
        (Parents(4, 2), (1,), "2 distinct blocks of 0 to 3"),
        (Composition(TABLE, total=8), (2, 2, 2), "with 3 parts; allowed are 4"),
        (Composition(TABLE, total=8), (2, 2, 4, 0), r"found 4 in part 3 of .*; allowed are 2, 3, 5"),
        (Composition(TABLE, total=8), (2, 2, 2, 3), "with sum 9; allowed is sum 8"),
        (Composition(TABLE, total=8), (2, 2, 2, 2.0), "list of integers"),
        (Composition(TABLE, total=8), 8, "list of integers"),
    ],
)
def test_values_that_are_not_allowed_say_what_is(gene: Gene, value: object, message: str) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        gene.validate(value)


@pytest.mark.parametrize(
    ("gene", "params", "message"),
    [
        (Choice((1, 2, 3)), {"": 4}, "found parameter 4; allowed are 1, 2, 3"),
        (Choice((1, 2, 3)), {}, "is missing"),
        (Choice((0, 1)), {"": False}, "found parameter False"),
        (Permutation(3), {"0": 3, "1": 0}, "'0' = 3; allowed is 0 to 2"),
        (Permutation(3), {"0": 0}, "'1' is missing"),
        (Parents(4, 2), {"0": 0, "1": 3}, "'1' = 3; allowed is 0 to 2"),
        (Parents(4, 2), {"0": 0.0, "1": 1}, "an integer"),
        (
            Composition(TABLE, total=8),
            {"0": 0.5, "1": 1.5, "2": 0.1},
            "'1' = 1.5; allowed is a number from 0 to 1",
        ),
        (Composition(TABLE, total=8), {"0": 0.5, "1": math.nan, "2": 0.1}, "allowed is a number from 0 to 1"),
        (Composition(TABLE, total=8), {"0": 0.5, "1": 0.5}, "'2' is missing"),
    ],
)
def test_parameters_out_of_range_say_what_is_allowed(
    gene: Gene, params: dict[str, Scalar], message: str
) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        gene.decode(params)


def paths(gene: Gene, picked: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """All whole sequences of allowed picks."""
    if len(picked) == len(gene.picks):
        yield picked
        return
    ways = gene.ways(picked)
    assert len(ways) == gene.picks[len(picked)]
    for option, count in enumerate(ways):
        if count:
            yield from paths(gene, (*picked, option))


@given(genes)
def test_picks_reach_every_value_equally_often_and_nothing_else(gene: Gene) -> None:
    orders = math.factorial(gene.count) if isinstance(gene, Parents) else 1
    counts = Counter(gene.from_picks(picked) for picked in paths(gene))
    assert counts == Counter(dict.fromkeys(gene.enumerate(), orders))


@given(genes)
def test_ways_count_the_picks_that_follow(gene: Gene) -> None:
    """So that drawing in proportion to them draws whole sequences, and with them values, uniformly."""
    below = Counter(picked[:length] for picked in paths(gene) for length in range(1, len(picked) + 1))
    starts = {picked[:length] for picked in paths(gene) for length in range(len(picked))}
    for start in starts:
        assert gene.ways(start) == tuple(below[(*start, option)] for option in range(gene.picks[len(start)]))


def test_picks_in_figures() -> None:
    assert Permutation(4).ways((2, 0)) == (0, 1, 0, 1)
    assert Permutation(4).ways(()) == (6, 6, 6, 6)
    assert Parents(5, 2).ways((3,)) == (1, 1, 1, 0, 1)
    assert Parents(5, 2).from_picks((3, 1)) == (1, 3)
    split = Composition(((1, 2, 3, 4),) * 3, total=7)
    assert split.ways(()) == (3, 4, 3, 2) and split.ways((0,)) == (0, 1, 1, 1)
    assert split.from_picks((0, 2, 2)) == (1, 3, 3)
    assert Choice(("a", "b")).ways(()) == (1, 1)


def test_options_that_are_lists_are_recorded_as_text() -> None:
    gene = Choice(((1, 3), (3, 3)))
    assert gene.parameters == {"": Categorical(("[1,3]", "[3,3]"))}
    assert gene.encode((3, 3)) == {"": "[3,3]"}
    assert gene.validate([1, 3]) == (1, 3)


def test_seeds_depend_on_the_path_alone() -> None:
    # The history of every stored search rests on these: they may never change.
    assert seed_for(7, "completion", 3, 0) == 466236091869186957
    assert 0 <= seed_for(0) < 2**63
    paths = [(), (1,), ("1",), (1, 1), ("11",), ("1", 1)]
    assert len({seed_for(7, *path) for path in paths} | {seed_for(8)}) == len(paths) + 1
    assert rng_for(7, "x").random() == rng_for(7, "x").random() != rng_for(7, "y").random()
