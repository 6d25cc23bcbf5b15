"""Optuna's own suites for samplers, over every controller that proposes whole candidates."""

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from nas.controllers.adapter import ControllerSampler
from nas.controllers.catalog import make_controller
from nas.controllers.random import RandomSearch
from nas.distributions import distributions_of
from nas.testing import ToySpace, run_in_memory, toy_score

WHOLE = [
    "aging_evolution",
    "detnas_evolution",
    "exhaustive",
    "local_search",
    "optuna",
    "policy_gradient",
    "predictor_guided",
    "random",
]


def sampler_of(name: str, seed: int = 0) -> BaseSampler:
    space = ToySpace()
    budget = 1000 if name != "exhaustive" else None
    controller = make_controller(name, space=space, seed=seed, budget=budget)
    return ControllerSampler(controller, space=space, seed=seed)


@pytest.mark.parametrize("controller", WHOLE)
class TestControllersAsSamplers(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self, controller: str) -> Callable[[], BaseSampler]:  # type: ignore[override]
        return lambda: sampler_of(controller)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_of_optuna_goes_where_our_search_goes(name: str, direction: str) -> None:
    space = ToySpace()
    score = toy_score(space)
    sign = 1.0 if direction == "maximize" else -1.0
    study = optuna.create_study(direction=direction, sampler=sampler_of(name, seed=5))
    distributions = distributions_of(space.parameters)
    tried = []
    for _ in range(20):
        trial = study.ask(distributions)
        architecture = space.decode(trial.params)
        tried.append(architecture.digest)
        study.tell(trial, sign * score(architecture).value)
    controller = make_controller(name, space=space, seed=5, budget=None if name == "exhaustive" else 1000)
    history = ()
    from nas.testing import extend

    for _ in range(20):
        history = extend(history, controller.ask(history), score)  # type: ignore[arg-type]
    assert tried == [record.digest for record in history]


def test_overlapping_trials_get_different_candidates() -> None:
    space = ToySpace()
    study = optuna.create_study(direction="maximize", sampler=sampler_of("random"))
    trials = [study.ask() for _ in range(5)]
    for trial in trials:
        assert trial.relative_params
    digests = {space.decode(trial.relative_params).digest for trial in trials}
    assert len(digests) == 5


def test_after_the_budget_the_draws_are_independent() -> None:
    space = ToySpace()
    controller = RandomSearch(space, seed=0, budget=2)
    study = optuna.create_study(sampler=ControllerSampler(controller, space=space, seed=0))
    distributions = distributions_of(space.parameters)
    for _ in range(4):
        trial = study.ask(distributions)
        space.decode(trial.params)
        study.tell(trial, 1.0)
    assert len(run_in_memory(controller, toy_score(space), max_trials=3)) == 2


def test_several_objectives_are_refused_where_a_candidate_is_asked_for() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler_of("random"))
    with pytest.raises(ValueError, match="2 objectives"):
        study.ask(distributions_of(ToySpace().parameters))
