"""Pruners judge a history as Optuna lets them judge a live study, from any place, in any process."""

from collections.abc import Sequence
from random import Random
from typing import Any

import optuna
import pytest

from nas.config import check
from nas.pruning import PRUNERS, Pruning, make_pruner, rungs_within
from nas.recipes.one_search import RungsRecipe
from nas.study import History, Record
from nas.testing import ToySpace
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for

TOTAL = 100
RECIPES: dict[str, dict[str, Any]] = {
    "hyperband": {"first": 10, "reduction": 2},
    "median": {"steps": (10, 20, 40), "options": {"n_startup_trials": 2}},
    "nop": {"first": 10},
    "patient": {"steps": (10, 20, 30, 40), "options": {"patience": 1, "wrapped_pruner": "median"}},
    "percentile": {"first": 10, "options": {"percentile": 30.0, "n_startup_trials": 1}},
    "successive_halving": {"first": 10, "reduction": 3},
    "threshold": {"first": 10, "options": {"lower": 0.3}},
}


def recipe(name: str) -> RungsRecipe:
    return RungsRecipe(pruner=name, **RECIPES[name])


def value(number: int, step: int) -> float:
    return round(rng_for(0, "value", number, step).random(), 2)  # some are equal


def judged(pruning: Pruning, trials: int) -> tuple[History, list[tuple[int, int, bool]]]:
    """A search without a study: what it reports and what is decided."""
    history: History = ()
    decisions = []
    for number in range(trials):
        candidate = ToySpace().sample(rng_for(1, number))
        running = Record(number=number, phase="p", candidate=candidate, digest=candidate.digest)
        for step in pruning.rungs:
            seen = {**running.intermediate, step: value(number, step)}
            running = Record(
                number=number, phase="p", candidate=candidate, digest=candidate.digest, intermediate=seen
            )
            reason = pruning.stops((*history, running), number, step)
            decisions.append((number, step, reason is not None))
            if reason is not None:
                break
        stopped = decisions[-1][2]
        ended = Record(
            number=number,
            phase="p",
            candidate=candidate,
            digest=candidate.digest,
            intermediate=running.intermediate,
            state="pruned" if stopped else "complete",
            value=None if stopped else value(number, TOTAL),
        )
        history = (*history, ended)
    return history, decisions


def live(name: str, rungs: Sequence[int], trials: int) -> list[tuple[int, int, bool]]:
    """What Optuna decides in a study of its own."""
    study = optuna.create_study(study_name="p", direction="maximize", pruner=make_pruner(recipe(name), TOTAL))
    decisions = []

    def objective(trial: optuna.Trial) -> float:
        for step in rungs:
            trial.report(value(trial.number, step), step)
            stops = trial.should_prune()
            decisions.append((trial.number, step, stops))
            if stops:
                raise optuna.TrialPruned
        return value(trial.number, TOTAL)

    study.optimize(objective, n_trials=trials)
    return decisions


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_it_decides_as_in_a_live_study(name: str) -> None:
    pruning = Pruning(recipe(name), total_steps=TOTAL, phase="p")
    _, decisions = judged(pruning, 40)
    assert decisions == live(name, pruning.rungs, 40)
    assert any(stops for _, _, stops in decisions) == (name != "nop")
    assert not all(stops for _, _, stops in decisions)


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_a_fresh_process_decides_the_same_at_any_place(name: str) -> None:
    def fresh() -> Pruning:
        return Pruning(recipe(name), total_steps=TOTAL, phase="p")

    same = fresh()
    history, decisions = judged(fresh(), 20)
    for number, step, stops in reversed(decisions):
        record = history[number]
        seen = {one: found for one, found in record.intermediate.items() if one <= step}
        running = Record(
            number=number, phase="p", candidate=record.candidate, digest=record.digest, intermediate=seen
        )
        before = (*history[:number], running)
        reason = fresh().stops(before, number, step)
        assert (reason is not None) == stops
        assert same.stops(before, number, step) == reason


def test_successive_halving_by_hand() -> None:
    """One in three of those that reached a rung; before there are three, only the best so far."""
    pruning = Pruning(recipe("successive_halving"), total_steps=TOTAL, phase="p")
    assert pruning.rungs == (10, 30, 90)
    history, _ = judged(pruning, 40)
    for step in pruning.rungs:
        there: list[float] = []
        for record in history:
            if step not in record.intermediate:
                continue
            there.append(record.intermediate[step])
            kept = sorted(there, reverse=True)[: max(len(there) // 3, 1)]
            assert (record.stopped_at == step) == (there[-1] < kept[-1])
    last = Record(
        number=40,
        phase="p",
        candidate=history[0].candidate,
        digest=history[0].digest,
        intermediate={10: -1.0},
    )
    assert pruning.stops((*history, last), 40, 10) == (
        "stopped at step 10 of 100 by successive_halving: -1.00 AP, place 41 of 41 there"
    )


def test_trials_that_reported_nothing_do_not_count() -> None:
    """Those that a limit rejected, that repeat a score, or that failed at once."""
    history, decisions = judged(Pruning(recipe("successive_halving"), total_steps=TOTAL, phase="p"), 20)
    rng = Random(0)
    mixed: History = ()
    numbers = {}
    for record in history:
        for state in rng.sample(["pruned", "failed", "complete"], rng.randrange(3)):
            mixed = (
                *mixed,
                Record(
                    number=len(mixed),
                    phase="p",
                    candidate=record.candidate,
                    digest=record.digest,
                    state=state,  # type: ignore[arg-type]
                    value=9.0 if state == "complete" else None,
                ),
            )
        numbers[record.number] = len(mixed)
        mixed = (*mixed, Record(**{**vars(record), "number": len(mixed)}))
    pruning = Pruning(recipe("successive_halving"), total_steps=TOTAL, phase="p")
    for number, step, stops in decisions:
        assert (pruning.stops(mixed, numbers[number], step) is not None) == stops


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"first": 10, "pruner": "succesive_halving"},
            "pruner: found 'succesive_halving'; did you mean 'successive_halving'?",
        ),
        (
            {"first": 10, "options": {"min_resource": 5}},
            "options.min_resource: found 5; it follows from first",
        ),
        ({"first": 10, "options": {"bootstrap": 5}}, "did you mean 'bootstrap_count'?"),
        ({"first": 10, "options": {"bootstrap_count": "5"}}, "options.bootstrap_count: found '5'"),
        ({"first": 10, "options": {"bootstrap_count": -1}}, "bootstrap_count >= 0"),
        ({"first": 10, "pruner": "percentile"}, "options.percentile: percentile needs it"),
        ({"first": 10, "pruner": "patient", "options": {"wrapped_pruner": 3}}, "allowed are null, a name"),
        (
            {
                "first": 10,
                "pruner": "patient",
                "options": {"patience": 1, "wrapped_pruner": {"name": "mean"}},
            },
            "options.wrapped_pruner.name: found 'mean'",
        ),
        (
            {
                "first": 10,
                "pruner": "patient",
                "options": {"patience": 1, "wrapped_pruner": {"name": "median", "n": 1}},
            },
            "options.wrapped_pruner.n: median has no such option",
        ),
        ({"first": 100}, "first: found 100; allowed is a step before the end"),
        ({"steps": [10, 100], "pruner": "median"}, "steps: found [10, 100]; allowed are steps before"),
    ],
)
def test_mistakes_are_sentences(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pruning(check(RungsRecipe, settings, source="r"), total_steps=TOTAL, phase="p")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "first: found None; give exactly one"),
        ({"first": 1, "steps": [1], "pruner": "median"}, "first: found 1; give exactly one"),
        ({"first": 0}, "first: found 0; allowed is at least 1"),
        ({"first": 5, "reduction": 1}, "reduction: found 1; allowed is at least 2"),
        ({"steps": [3, 2], "pruner": "median"}, "one or more rising steps"),
        ({"steps": [2, 3]}, "successive_halving has its own row"),
    ],
)
def test_senseless_rungs_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(RungsRecipe, settings, source="r")
    assert words in str(caught.value)


def test_rungs_end_before_the_training() -> None:
    assert rungs_within(RungsRecipe(first=10, reduction=3), 90) == (10, 30)
    assert rungs_within(RungsRecipe(first=10, reduction=3), 91) == (10, 30, 90)
    assert rungs_within(RungsRecipe(steps=(7, 8), pruner="median"), 9) == (7, 8)
