"""Optuna's samplers: state lives in memory, and is rebuilt to the same proposals."""

import importlib.util
import pickle
from dataclasses import replace
from typing import Any

import optuna
import pytest

from nas.controllers.optuna_sampler import MANY_OBJECTIVES, OptunaSampler
from nas.pareto import front_of
from nas.study import History, Record
from nas.testing import SeparableSpace, ToySpace, extend, run_in_memory, toy_score

EVOLVING: dict[str, dict[str, Any]] = {
    "nsga2": {"population_size": 5},
    "nsga3": {"population_size": 5},
    "qmc": {"scramble": True},
    "tpe": {"n_startup_trials": 5},
    "random": {},
    "cmaes": {"popsize": 4},
}


def controller(sampler: str, budget: int = 30) -> OptunaSampler:
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("the package cmaes is not installed")
    return OptunaSampler(ToySpace(), seed=2, budget=budget, sampler=sampler, options=EVOLVING[sampler])


@pytest.mark.parametrize("sampler", sorted(EVOLVING))
def test_a_fresh_process_continues_at_any_trial(sampler: str) -> None:
    score = toy_score(ToySpace())
    history = run_in_memory(controller(sampler), score, max_trials=30)
    for place in range(0, 30, 3):
        assert controller(sampler).ask(history[:place]).digest == history[place].digest  # type: ignore[union-attr]


@pytest.mark.parametrize("sampler", ["nsga2", "cmaes"])
def test_state_that_a_sampler_keeps_in_the_study_is_there(sampler: str) -> None:
    """Without the replay each ask would see the first generation only."""
    searched = controller(sampler)
    run_in_memory(searched, toy_score(ToySpace()), max_trials=30)
    key = {"nsga2": "NSGAIISampler:generation", "cmaes": "cma:generation"}[sampler]
    generations = [t.system_attrs.get(key, 0) for t in searched._past.study.trials]
    assert max(generations) >= 3


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_overlapping_trials_do_not_change_what_is_computed_later(sampler: str) -> None:
    """Two controllers that saw the same trials finish at different times agree."""
    space = ToySpace()
    score = toy_score(space)
    seen_all = controller(sampler)
    history: History = ()
    for _ in range(12):
        # Ask twice beside a running trial, then let both finish.
        first = seen_all.ask(history)
        running = extend(history, first, None)  # type: ignore[arg-type]
        second = seen_all.ask(running)
        history = extend(extend(history, first, score), second, score)  # type: ignore[arg-type]
    assert seen_all.ask(history).digest == controller(sampler).ask(history).digest  # type: ignore[union-attr]


def test_a_history_it_never_proposed_is_taken_as_it_is() -> None:
    """Proposals of another version, or by hand: what was tried counts."""
    space = ToySpace()
    score = toy_score(space)
    history: History = ()
    for architecture in list(space.enumerate())[:12]:
        history = extend(history, architecture, score)
    asked = controller("tpe")
    asked.ask(history)
    kept = [space.decode(trial.params).digest for trial in asked._past.study.trials[:12]]
    assert kept == [record.digest for record in history]


def test_brute_force_ends_when_everything_was_proposed() -> None:
    space = SeparableSpace(2, 3)
    asked = OptunaSampler(space, seed=0, budget=50, sampler="brute_force")
    history = run_in_memory(asked, toy_score(space), max_trials=50)
    assert len({record.digest for record in history}) == len(history) == 9


def test_the_controller_holds_nothing_that_must_be_pickled() -> None:
    history = run_in_memory(controller("tpe"), toy_score(ToySpace()), max_trials=30)
    assert pickle.loads(pickle.dumps(history)) == history  # noqa: S301 - a worker gets it this way


def with_costs(history: History) -> History:
    """The kernel that scores best costs most: the two objectives disagree."""

    def costly(record: Record) -> Record:
        kernel = record.candidate.genes["kernel"]
        assert isinstance(kernel, int)
        return replace(record, attributes={"macs": 10 * (6 - kernel)})

    return tuple(costly(record) for record in history)


def two_objectives(sampler: str, trials: int = 40) -> History:
    searched = controller(sampler, trials).minimising("macs")
    score, history = toy_score(ToySpace()), ()
    while len(history) < trials:
        history = with_costs(extend(history, searched.ask(history), score))  # type: ignore[arg-type]
    return history


@pytest.mark.parametrize("sampler", sorted(MANY_OBJECTIVES))
def test_two_objectives_are_both_searched_and_resumed(sampler: str) -> None:
    history = two_objectives(sampler)
    for place in range(0, 40, 5):
        asked = controller(sampler, 40).minimising("macs").ask(history[:place])
        assert asked.digest == history[place].digest  # type: ignore[union-attr]
    searched = controller(sampler, 40).minimising("macs")
    searched.ask(history[:-1])
    assert searched._past.study.directions == [
        optuna.study.StudyDirection.MAXIMIZE,
        optuna.study.StudyDirection.MINIMIZE,
    ]
    best = {trial.number for trial in searched._past.study.best_trials}
    assert best >= {record.number for record in front_of(history[:-1], "macs")}
    alone = run_in_memory(controller(sampler, 40), toy_score(ToySpace()), max_trials=40)
    assert [r.digest for r in alone] != [r.digest for r in history], "the cost decides too"
    cheap = [record.attributes["macs"] for record in history[20:]].count(10)
    assert cheap > [record.attributes["macs"] for record in with_costs(alone)[20:]].count(10)


def test_stopped_trials_are_told_as_optuna_tells_them() -> None:
    """TPE learns from where they stood; they are no failures."""
    space = ToySpace()
    history = run_in_memory(controller("tpe"), toy_score(space), max_trials=30)
    some = tuple(
        replace(record, state="pruned", value=None, intermediate={3: 0.1, 9: 0.2})
        if record.number % 2
        else record
        for record in history
    )
    asked = controller("tpe")
    asked.ask(some[:20])
    for trial, record in zip(asked._past.study.trials, some[:20], strict=False):
        assert trial.intermediate_values == record.intermediate
        assert trial.value == (0.2 if record.number % 2 else record.value)
