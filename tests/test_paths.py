"""Which path a supernet takes: by chance, fairly, or as a sandwich; always a function of seed and step."""

from collections import Counter
from pathlib import Path

import pytest

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.crnas_supernets import any_allocation
from nas.methods.spaces import allocation, crnas_recipe, stage_space
from nas.proxies.paths import Draw, Sampling, drawer
from search_spaces.randomness import rng_for

TINY = Path(__file__).parent / "recipes/tiny.yaml"
SPACE = stage_space(crnas_recipe(check_search(read_yaml(TINY), source="tiny")).space)
BRANCHES = ((1, 2), (1, 2, 3), (2, 5, 9), (1, 2, 3, 4, 5))


def draws(sampling: Sampling, seed: int = 7) -> Draw:
    return drawer(
        sampling,
        BRANCHES,
        lambda counts: allocation(SPACE.baseline, counts),
        lambda rng: allocation(SPACE.baseline, [rng.choice(counts) for counts in BRANCHES]),
        seed,
    )


def blocks(draw: Draw, steps: range) -> list[tuple[int, ...]]:
    return [draw(step).genes["blocks"] for step in steps]  # type: ignore[misc]


def test_uniform_is_what_it_was() -> None:
    draw = drawer(
        "uniform", SPACE.branches, lambda _: SPACE.baseline, lambda rng: any_allocation(SPACE, rng), 3
    )
    assert [draw(step) for step in range(20)] == [
        any_allocation(SPACE, rng_for(3, "path", step)) for step in range(20)
    ]


def test_fair_takes_each_branch_of_a_stage_once_a_round() -> None:
    draw = draws("fair")
    for stage, allowed in enumerate(BRANCHES):
        for first in range(0, 6 * len(allowed), len(allowed)):
            found = [one[stage] for one in blocks(draw, range(first, first + len(allowed)))]
            assert sorted(found) == list(allowed), "each of them once, in an order of its own"
    orders = {tuple(one[3] for one in blocks(draw, range(first, first + 5))) for first in range(0, 100, 5)}
    assert len(orders) > 10, "rounds have orders of their own"
    pairs = Counter(one[:2] for one in blocks(draw, range(3000)))
    assert len(pairs) == 6 and max(pairs.values()) < 1.3 * min(pairs.values()), "decisions do not go together"


def test_sandwich_has_both_ends_in_every_four_steps() -> None:
    found = blocks(draws("sandwich"), range(400))
    assert found[0::4] == [(2, 3, 9, 5)] * 100 and found[1::4] == [(1, 1, 2, 1)] * 100
    assert len(set(found[2::4])) > 30 and found[2::4] != found[3::4]


@pytest.mark.parametrize("sampling", ["uniform", "fair", "sandwich"])
def test_paths_depend_on_seed_and_step_alone(sampling: Sampling) -> None:
    first, again = draws(sampling), draws(sampling)
    assert blocks(first, range(50)) == list(
        reversed([again(step).genes["blocks"] for step in range(49, -1, -1)])
    )
    assert blocks(first, range(50)) != blocks(draws(sampling, 8), range(50))


def test_a_recipe_says_which() -> None:
    with pytest.raises(Exception, match=r"stages\.supernet\.sampling"):
        check_search(apply_overrides(read_yaml(TINY), ["stages.supernet.sampling=lucky"]), source="tiny")
