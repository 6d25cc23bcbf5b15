"""Laws of spaces, over a toy space with every kind of gene and over the whole catalog."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from search_spaces.architecture import Architecture, Genes, Prefix, Scalar, Value
from search_spaces.catalog import SPACES, get_space
from search_spaces.errors import InvalidArchitecture
from search_spaces.genes import Categorical, Choice, Composition, Gene, Integer, Parents, Permutation, Real
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace


class Toy(SearchSpace):
    """3 * 3 * 2 * 3 * 1 = 54 architectures, one gene without a choice among them."""

    name = "toy"
    genes: Mapping[str, Gene] = {
        "kernel": Choice((3, 5, 7)),
        "blocks": Composition(((1, 2, 3), (1, 2, 3)), total=4),
        "order": Permutation(2),
        "parents": Parents(3, 2),
        "only": Permutation(1),
    }

    @property
    def baseline(self) -> Architecture:
        return next(self.enumerate())

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        return Architecture(family="toy", settings=Genes({}), genes=Genes(self.check_values(values)))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        return self.check_values(architecture.genes)


TOY = Toy()
MEMBERS = list(TOY.enumerate())
members = st.sampled_from(MEMBERS)
EVERY_SPACE = {"toy": TOY, **{name: get_space(name) for name in SPACES}}


def uniform_parameters(space: SearchSpace, rng: random.Random) -> dict[str, Scalar]:
    drawn: dict[str, Scalar] = {}
    for name, parameter in space.parameters.items():
        match parameter:
            case Categorical(options):
                drawn[name] = rng.choice(options)
            case Integer(low, high):
                drawn[name] = rng.randint(low, high)
            case Real(low, high):
                drawn[name] = rng.uniform(low, high)
    return drawn


def test_size_equals_enumeration_and_order_is_lexicographic() -> None:
    assert len(MEMBERS) == len({member.digest for member in MEMBERS}) == TOY.size == 54
    assert [tuple(member.genes.values()) for member in MEMBERS] == list(
        itertools.product(*(gene.enumerate() for gene in TOY.genes.values()))
    )


@pytest.mark.parametrize("name", EVERY_SPACE)
def test_laws_hold_for_every_space_of_the_catalog(name: str) -> None:
    space, rng = EVERY_SPACE[name], rng_for(1, name)
    assert space.baseline in space
    for _ in range(25):
        a, b = space.sample(rng), space.decode(uniform_parameters(space, rng))
        for member in (a, b, space.crossover(a, b, rng), space.mutate(a, rng), space.mutate(a, rng, 0.1)):
            assert member in space
            assert space.validate(member) == member
            assert space.architecture(space.values(member)) == member
            assert Architecture.from_dict(member.to_dict()) in space
            params = space.encode(member)
            assert list(params) == list(space.parameters)
            assert space.decode(params) == member
            assert space.encode(space.decode(params)) == params
        assert space.mutate(a, rng) != a
        assert space.mutate(a, rng, 0.0) != a


@pytest.mark.parametrize("name", [name for name, space in EVERY_SPACE.items() if space.size < 10_000])
def test_size_equals_enumeration_for_every_small_space(name: str) -> None:
    space = EVERY_SPACE[name]
    digests = [architecture.digest for architecture in space.enumerate()]
    assert len(digests) == len(set(digests)) == space.size


def test_neighbours_differ_in_one_gene_are_symmetric_and_connect_the_space() -> None:
    near = {member: list(TOY.neighbours(member)) for member in MEMBERS}
    for member, others in near.items():
        assert len(others) == len(set(others)) > 0
        for other in others:
            assert sum(member.genes[name] != other.genes[name] for name in TOY.genes) == 1
            assert member in near[other]
    reached, frontier = {MEMBERS[0]}, [MEMBERS[0]]
    while frontier:
        new = set(near[frontier.pop()]) - reached
        reached |= new
        frontier += new
    assert reached == set(MEMBERS)


@pytest.mark.parametrize("through", ["sample", "decode"])
def test_draws_are_uniform(through: str) -> None:
    rng = rng_for(3, through)
    drawn = Counter(
        TOY.sample(rng) if through == "sample" else TOY.decode(uniform_parameters(TOY, rng))
        for _ in range(2700)
    )
    assert chisquare([drawn[member] for member in MEMBERS]).pvalue > 0.001


@given(members, members, st.integers(0, 2**32))
def test_crossover_takes_scalars_from_one_parent(a: Architecture, b: Architecture, seed: int) -> None:
    child = TOY.crossover(a, b, random.Random(seed))
    assert child in TOY
    assert child.genes["kernel"] in (a.genes["kernel"], b.genes["kernel"])
    assert TOY.crossover(a, a, random.Random(seed)) == a


@given(members, st.integers(0, 2**32))
def test_mutation_without_a_rate_moves_exactly_one_gene(a: Architecture, seed: int) -> None:
    mutant = TOY.mutate(a, random.Random(seed))
    assert sum(a.genes[name] != mutant.genes[name] for name in TOY.genes) == 1
    everything = TOY.mutate(a, random.Random(seed), 1.0)
    assert sum(a.genes[name] != everything.genes[name] for name in TOY.genes) == 4


@given(members, st.integers(0, 5), st.integers(0, 2**32))
def test_prefixes_round_trip_and_completion_keeps_what_is_decided(
    member: Architecture, decided: int, seed: int
) -> None:
    values = list(member.genes.values())[:decided]
    candidate = TOY.candidate(values)
    params = TOY.encode_candidate(candidate)
    assert TOY.candidate_from(params) == candidate
    assert set(params) == {name for name in TOY.parameters if name.split(".")[0] in list(TOY.genes)[:decided]}
    assert list(TOY.decided(candidate).values()) == values
    if decided == len(TOY.genes):
        assert candidate == member
        return
    assert candidate == TOY.prefix(values)
    assert isinstance(candidate, Prefix)
    complete = TOY.complete(candidate, random.Random(seed))
    assert complete in TOY
    assert list(complete.genes.values())[:decided] == values


def test_completion_is_uniform_over_the_open_genes() -> None:
    prefix = TOY.prefix([5, (2, 2)])
    open_members = [m for m in MEMBERS if (m.genes["kernel"], m.genes["blocks"]) == (5, (2, 2))]
    rng = rng_for(4)
    drawn = Counter(TOY.complete(prefix, rng) for _ in range(600))
    assert set(drawn) == set(open_members)
    assert chisquare([drawn[member] for member in open_members]).pvalue > 0.001


def test_same_seed_same_draws() -> None:
    first, second = ([TOY.sample(rng) for _ in range(9)] for rng in (rng_for(1, "a"), rng_for(1, "a")))
    assert first == second


def test_parameters_are_named_after_genes() -> None:
    assert list(TOY.parameters) == ["kernel", "blocks.0", "order.0", "parents.0", "parents.1", "only.0"]


def test_digest_tells_spaces_apart_and_stays() -> None:
    digests = [space.digest for space in EVERY_SPACE.values()]
    assert len(set(digests)) == len(EVERY_SPACE)
    assert digests == [EVERY_SPACE[name].digest for name in EVERY_SPACE]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel": 3}, r"toy: .* missing are \['blocks', 'order', 'parents', 'only'\]"),
        ({**MEMBERS[0].genes, "kernal": 3}, r"unknown are \['kernal'\]"),
        ({**MEMBERS[0].genes, "kernel": 4}, "toy: kernel: found 4; allowed are 3, 5, 7"),
        ({**MEMBERS[0].genes, "blocks": [3, 3]}, "toy: blocks: .*with sum 6; allowed is sum 4"),
    ],
)
def test_wrong_values_name_space_and_gene(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        TOY.architecture(values)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel": 3}, r"toy: parameters \['blocks.0', .*'only.0'\] are missing"),
        ({"kernal": 3}, r"toy: parameters \['kernal'\] are unknown; allowed are \['kernel'"),
        ({**TOY.encode(MEMBERS[0]), "blocks.0": 2.0}, "toy: blocks: found parameter '0' = 2.0"),
        ({"blocks.0": 0.5}, "without a gap"),
        (
            {"kernel": 3, "blocks.0": 0.5, "order.0": 0, "parents.0": 0},
            "toy: parents: parameter '1' is missing",
        ),
    ],
)
def test_wrong_parameters_name_space_and_gene(params: dict[str, Scalar], message: str) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        TOY.decode(params)


def test_wrong_prefixes_are_refused() -> None:
    with pytest.raises(InvalidArchitecture, match=r"decides fewer than 5 genes; found 5 values"):
        TOY.prefix(list(MEMBERS[0].genes.values()))
    with pytest.raises(InvalidArchitecture, match="kernel: found 4"):
        TOY.prefix([4])
    for wrong in (
        Prefix(space="other", genes=Genes({"kernel": 3})),
        Prefix(space="toy", genes=Genes({"blocks": (2, 2)})),
    ):
        with pytest.raises(InvalidArchitecture, match=r"a prefix of this space decides \['kernel'\]"):
            TOY.complete(wrong, random.Random(0))


def test_only_members_are_in_a_space() -> None:
    assert "toy" not in TOY
    assert Architecture(family="toy", settings=Genes({}), genes=Genes({"kernel": 3})) not in TOY
