"""Evolution and random search: what they must not do, and that they find something."""

import pytest

from nas.controllers.evolution import AgingEvolution, GenerationalEvolution
from nas.controllers.random import RandomSearch
from nas.testing import SeparableSpace, ToySpace, extend, run_in_memory, toy_score
from search_spaces.errors import ConfigError


def controllers(space: ToySpace | SeparableSpace, budget: int) -> list[object]:
    return [
        RandomSearch(space, seed=1, budget=budget),
        AgingEvolution(space, seed=1, budget=budget, population=8, sample=3),
        GenerationalEvolution(
            space, seed=1, budget=budget, population=8, generations=100, keep=3, mutants=3, crossovers=3
        ),
    ]


@pytest.mark.parametrize("which", range(3))
def test_nothing_is_tried_twice_down_to_the_last_candidate(which: int) -> None:
    space = SeparableSpace(3, 3)
    history = run_in_memory(controllers(space, 100)[which], toy_score(space), max_trials=100)  # type: ignore[arg-type]
    assert len(history) == len({record.digest for record in history}) == space.size == 27


def test_evolution_beats_random_search_on_a_rugged_space() -> None:
    space = SeparableSpace(12, 3)
    found = []
    for which in range(3):
        best = []
        for seed in range(5):
            controller = controllers(space, 120)[which]
            controller.seed = seed  # type: ignore[attr-defined]
            history = run_in_memory(controller, toy_score(space, seed=7), max_trials=200)  # type: ignore[arg-type]
            best.append(max(record.value or 0.0 for record in history))
        found.append(sum(best) / len(best))
    assert found[1] > found[0]
    assert found[2] > found[0]


def test_a_generation_waits_for_the_one_before() -> None:
    space = ToySpace()
    controller = GenerationalEvolution(
        space, seed=0, population=4, generations=3, keep=2, mutants=2, crossovers=1
    )
    history = ()
    for _ in range(4):
        asked = controller.ask(history)
        assert asked is not None
        history = extend(history, asked, None)  # type: ignore[arg-type]
    assert controller.ask(history) is None


def test_the_settings_of_detnas_are_the_defaults() -> None:
    controller = GenerationalEvolution(ToySpace(), seed=0)
    assert controller.budget == 50 * 20
    assert (controller.population, controller.keep, controller.mutation) == (50, 10, 0.1)
    assert (controller.mutants, controller.crossovers) == (20, 20)


def test_the_oldest_die() -> None:
    """A good candidate that left the population is no parent any more."""
    space = SeparableSpace(10, 3)
    controller = AgingEvolution(space, seed=0, budget=100, population=3, sample=3, mutation=0.01)
    score = toy_score(space)
    history = run_in_memory(controller, score, max_trials=200)
    for place in range(3, 60):
        parents = [space.values(record.candidate) for record in history[place - 3 : place]]  # type: ignore[arg-type]
        child = space.values(history[place].candidate)  # type: ignore[arg-type]
        distances = [sum(child[name] != parent[name] for name in child) for parent in parents]
        assert min(distances) <= 2


@pytest.mark.parametrize(
    ("name", "value"), [("population", 0), ("sample", 0), ("sample", 51), ("mutation", 0.0), ("budget", 0)]
)
def test_settings_of_aging_evolution_are_checked(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        AgingEvolution(ToySpace(), **{"seed": 0, "budget": 10, name: value})  # type: ignore[arg-type]


def test_settings_of_generations_are_checked() -> None:
    with pytest.raises(ConfigError, match="mutants \\+ crossovers"):
        GenerationalEvolution(ToySpace(), seed=0, population=10)
