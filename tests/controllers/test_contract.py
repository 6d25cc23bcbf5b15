"""Every controller of the catalog, and every Optuna sampler, against the controller contract."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import pytest

from nas.controllers.catalog import CONTROLLERS, make_controller
from nas.controllers.optuna_sampler import SAMPLERS
from nas.testing import (
    ControllerFactory,
    SeparableSpace,
    ToySpace,
    check_controller,
    check_proxy,
    check_space,
    toy_score,
)
from search_spaces.catalog import SPACES, ZOO, get_space
from search_spaces.spinenet.space import SpineNetSpace

SETTINGS: Mapping[str, tuple[int | None, dict[str, Any]]] = {
    "aging_evolution": (40, {"population": 10, "sample": 3}),
    "detnas_evolution": (
        None,
        {"population": 10, "generations": 4, "keep": 3, "mutants": 4, "crossovers": 4},
    ),
    "exhaustive": (None, {}),
    "greedy": (None, {}),
    "local_search": (40, {}),
    "optuna": (25, {}),
    "policy_gradient": (40, {"batch": 5}),
    "predictor_guided": (40, {"initial": 8}),
    "random": (30, {}),
}
# A tree over real parameters has no end, and the Gaussian process takes 0.4 s a trial.
SAMPLERS_FOR_REALS = sorted(set(SAMPLERS) - {"brute_force", "gp"})


def factory(name: str, budget: int | None, options: Mapping[str, Any]) -> ControllerFactory:
    return lambda space, seed: make_controller(name, space=space, seed=seed, budget=budget, options=options)


def test_every_controller_of_the_catalog_is_checked() -> None:
    assert set(SETTINGS) == set(CONTROLLERS)


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_controllers_keep_their_contract(name: str) -> None:
    check_controller(factory(name, *SETTINGS[name]))


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_controllers_end_when_the_space_is_exhausted(name: str) -> None:
    budget, options = SETTINGS[name]
    check_controller(factory(name, budget, options), space=SeparableSpace(2, 3), seed=4)


@pytest.mark.parametrize("sampler", SAMPLERS_FOR_REALS)
def test_optuna_samplers_keep_the_contract(sampler: str) -> None:
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("the package cmaes is not installed")
    options: dict[str, Any] = {"sampler": sampler}
    if sampler in ("nsga2", "nsga3"):
        options["options"] = {"population_size": 6}
    check_controller(factory("optuna", 25, options))


@pytest.mark.parametrize("sampler", ["brute_force", "gp"])
def test_optuna_samplers_for_small_spaces_keep_the_contract(sampler: str) -> None:
    options: dict[str, Any] = {"sampler": sampler}
    if sampler == "gp":
        options["options"] = {"n_startup_trials": 3}
    check_controller(factory("optuna", 5 if sampler == "gp" else 12, options), space=SeparableSpace(2, 3))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_spaces_of_the_catalog_keep_their_contract(name: str) -> None:
    check_space(get_space(name), samples=20)


def test_a_space_of_many_labels_keeps_its_contract() -> None:
    network = ZOO["r23_sp30"]
    check_space(SpineNetSpace("labels", network, intermediates=(2, 3, 4, 4, 4)), samples=20)
    check_space(
        SpineNetSpace(
            "levels",
            network,
            permutation=False,
            connections=False,
            types=False,
            intermediates=(2, 3, 4, 4, 4),
        ),
        samples=20,
    )


@pytest.mark.parametrize("space", [ToySpace(), SeparableSpace(3, 3)], ids=lambda space: str(space.name))
def test_the_spaces_for_tests_are_spaces(space: ToySpace) -> None:
    check_space(space)
    check_proxy(toy_score(space), [space.baseline, *list(space.enumerate())[:3]])


def test_the_contract_catches_a_controller_with_memory() -> None:
    class Forgetful:
        def __init__(self, space: ToySpace) -> None:
            self.left = iter(list(space.enumerate())[:5])

        def ask(self, history: object) -> object:
            from nas.controllers.base import DONE

            return next(self.left, DONE)

        def winner(self, history: object) -> None:
            return None

    with pytest.raises(AssertionError, match="depend on the history only"):
        check_controller(lambda space, seed: Forgetful(space))  # type: ignore[arg-type, return-value]
