"""One plain dict: name -> controller."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nas.controllers.base import Controller
from nas.controllers.evolution import AgingEvolution, GenerationalEvolution
from nas.controllers.exhaustive import Exhaustive
from nas.controllers.greedy import Greedy
from nas.controllers.local_search import LocalSearch
from nas.controllers.optuna_sampler import SAMPLERS, OptunaSampler
from nas.controllers.policy_gradient import PolicyGradient
from nas.controllers.predictor_guided import PredictorGuided
from nas.controllers.random import RandomSearch
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace
from search_spaces.targets import GUIDE, checked_options, load_with, nearest

CONTROLLERS: dict[str, Callable[..., Controller]] = {
    "aging_evolution": AgingEvolution,
    "detnas_evolution": GenerationalEvolution,
    "exhaustive": Exhaustive,
    "greedy": Greedy,
    "local_search": LocalSearch,
    "optuna": OptunaSampler,
    "policy_gradient": PolicyGradient,
    "predictor_guided": PredictorGuided,
    "random": RandomSearch,
}

_GIVEN = ("space", "seed", "budget")


def make_controller(
    name: str,
    *,
    space: SearchSpace,
    seed: int,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Controller:
    """Make a controller by name, with everything checked.

    Args:
        name: a key of :data:`CONTROLLERS`, or one of Optuna's samplers (``tpe``, ``nsga2``, ...).
        space: where it searches.
        seed: of the phase.
        budget: number of trials; needed by controllers that would not end, refused by those that know
            their own number (exhaustive, greedy).
        options: further settings, those of the controller's constructor.

    Raises:
        ConfigError: unknown name or option, a value of the wrong type, a budget missing or not wanted; all
            problems at once.
    """
    if name not in CONTROLLERS and name in SAMPLERS:
        # ``tpe`` is short for ``optuna`` with the sampler ``tpe`` and these options of its own.
        settings: dict[str, Any] = {"sampler": name} | ({"options": dict(options)} if options else {})
        return make_controller("optuna", space=space, seed=seed, budget=budget, options=settings)
    if name not in CONTROLLERS:
        known = nearest(name, {**CONTROLLERS, **SAMPLERS}, "allowed are")
        raise ConfigError(f"name: found {name!r}; {known}")
    return configure(CONTROLLERS[name], name=name, space=space, seed=seed, budget=budget, options=options)


def make_own_controller(
    target: str,
    *,
    space: SearchSpace,
    seed: int,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Controller:
    """Make a controller of a person's own file: :func:`make_controller` for ``my_file.py:MyController``.

    Raises:
        ConfigError: no such class, one without ``ask`` and ``winner``, or see :func:`make_controller`.
    """
    try:
        kind = load_with(target, {"ask": "ask(history)", "winner": "winner(history)"}, "controller")
    except ConfigError as error:
        raise ConfigError(f"target: {error}") from error
    if "space" not in inspect.signature(kind).parameters:
        raise ConfigError(
            f"target: {kind.__name__} has to take the space as its first argument, `space`; {GUIDE}"
        )
    return configure(kind, name=kind.__name__, space=space, seed=seed, budget=budget, options=options)


def configure(
    factory: Callable[..., Controller],
    *,
    name: str,
    space: SearchSpace,
    seed: int,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Controller:
    """Make a controller that no catalog lists: :func:`make_controller` for your own class.

    Args:
        factory: takes the space, then by keyword what it names of ``seed``, ``budget`` and its options;
            options are checked against their annotations.
        name: for messages.
        space: see :func:`make_controller`.
        seed: see there.
        budget: see there.
        options: see there.

    Raises:
        ConfigError: see there.
    """
    accepted = inspect.signature(factory).parameters
    checked, problems = checked_options(factory, options or {}, name=name, given=_GIVEN)
    if "budget" not in accepted and budget is not None:
        problems.append(
            f"budget: found {budget}; {name} decides itself how many trials there are, leave it out"
        )
    if "budget" in accepted:
        if budget is not None:
            checked["budget"] = budget
        elif accepted["budget"].default is inspect.Parameter.empty:
            problems.append(f"budget: {name} needs the number of trials")
    if problems:
        raise ConfigError("\n".join(problems))
    if "seed" in accepted:
        checked["seed"] = seed
    return factory(space, **checked)
