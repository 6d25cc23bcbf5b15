"""Making controllers by name: every mistake is one readable line, all of them at once."""

import pytest

from nas.controllers.catalog import configure, make_controller
from nas.controllers.evolution import AgingEvolution
from nas.controllers.greedy import Greedy
from nas.testing import SeparableSpace, ToySpace
from search_spaces.errors import ConfigError


def test_options_reach_the_controller() -> None:
    controller = make_controller(
        "aging_evolution", space=ToySpace(), seed=3, budget=7, options={"population": 5, "sample": 2}
    )
    assert isinstance(controller, AgingEvolution)
    assert (controller.seed, controller.budget, controller.population, controller.sample) == (3, 7, 5, 2)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"found 'greeedy'; did you mean 'greedy'\? allowed are \["):
        make_controller("greeedy", space=ToySpace(), seed=0)


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_controller(
            "aging_evolution",
            space=ToySpace(),
            seed=0,
            options={"populaton": 5, "sample": "3", "mutation": 1},
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "did you mean 'population'" in lines[0]
    assert "options.sample: found '3'" in lines[1]
    assert "budget: aging_evolution needs the number of trials" in lines[2]


@pytest.mark.parametrize("name", ["greedy", "exhaustive"])
def test_a_budget_is_refused_by_controllers_that_know_their_own(name: str) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        make_controller(name, space=ToySpace(), seed=0, budget=5)


def test_an_endless_exhaustive_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="5559060566555523 candidates; the limit is 10000"):
        make_controller("exhaustive", space=SeparableSpace(33, 3), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "tpee"}, "allowed are"),
        ({"sampler": "tpe", "options": {"startup": 3}}, "startup"),
        ({"sampler": "tpe", "options": {"seed": 3}}, "leave it out"),
        ({"sampler": "brute_force"}, "cannot search toy"),
    ],
)
def test_samplers_are_checked_before_the_search(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_controller("optuna", space=ToySpace(), seed=0, budget=5, options=options)


def test_a_controller_of_ones_own_gets_the_same_checks() -> None:
    class Mine(Greedy):
        def __init__(self, space: SeparableSpace, *, seed: int, width: float = 1.0) -> None:
            super().__init__(space, beam=int(width))
            self.seed = seed

    made = configure(Mine, name="mine.py:Mine", space=SeparableSpace(), seed=4, options={"width": 2})
    assert isinstance(made, Mine)
    assert (made.beam, made.seed) == (2, 4)
    with pytest.raises(ConfigError, match=r"mine\.py:Mine has no such option; did you mean 'width'"):
        configure(Mine, name="mine.py:Mine", space=SeparableSpace(), seed=4, options={"widht": 2})


def test_a_samplers_name_is_short_for_optuna_with_it():
    space = SeparableSpace(genes=3)
    short = make_controller("tpe", space=space, seed=1, budget=5, options={"n_startup_trials": 2})
    long = make_controller(
        "optuna",
        space=space,
        seed=1,
        budget=5,
        options={"sampler": "tpe", "options": {"n_startup_trials": 2}},
    )
    assert short.ask(()) == long.ask(())
