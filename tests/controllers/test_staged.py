"""Controllers that go stage by stage: what they propose depends on no order of results, and on no memory."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from nas.controllers.base import DONE, Done
from nas.controllers.local_search import LocalSearch
from nas.controllers.policy_gradient import PolicyGradient
from nas.controllers.staged import Staged
from nas.testing import ToySpace, extend, finished, run_in_memory, toy_score
from nas.trials import History, Score
from search_spaces.architecture import Candidate
from search_spaces.errors import CandidateFailed, ConfigError

SPACE = ToySpace()
MAKERS: dict[str, Callable[[], Staged]] = {
    "local_search": lambda: LocalSearch(SPACE, seed=2, budget=60, start="random"),
    "a_few_neighbours": lambda: LocalSearch(SPACE, seed=2, budget=60, width=3),
    "reinforce": lambda: PolicyGradient(SPACE, seed=2, budget=60, batch=7),
    "ppo": lambda: PolicyGradient(SPACE, seed=2, budget=60, batch=7, algorithm="ppo"),
}


def sometimes(candidate: Candidate) -> Score:
    if int(candidate.digest, 16) % 5 == 0:
        raise CandidateFailed("made to fail")
    return toy_score(SPACE)(candidate)


def in_parallel(controller: Staged, *, workers: int, rng: random.Random) -> History:
    """As many trials at a time as there are workers and the controller allows, finished in random order."""
    history: list = []
    while True:
        running = [number for number, record in enumerate(history) if not record.finished]
        asked = controller.ask(tuple(history)) if len(running) < workers else None
        if isinstance(asked, Done):
            return tuple(history)
        if asked is not None:
            history.append(extend(tuple(history), asked, None)[-1])
            continue
        number = rng.choice(running)
        history[number] = finished(history[number], sometimes)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_workers_and_the_order_of_results_change_nothing(name: str) -> None:
    serial = run_in_memory(MAKERS[name](), sometimes, max_trials=60)
    assert any(record.state == "failed" for record in serial)
    for workers in (1, 2, 20):
        parallel = in_parallel(MAKERS[name](), workers=workers, rng=random.Random(workers))
        assert parallel == serial


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_nothing_is_proposed_twice(name: str) -> None:
    history = run_in_memory(MAKERS[name](), sometimes, max_trials=60)
    assert len(history) == len({record.digest for record in history}) == 60


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_history_that_changed_is_read_anew(name: str) -> None:
    history = run_in_memory(MAKERS[name](), sometimes, max_trials=60)[:40]
    best = max(history, key=lambda record: record.value or 0.0)
    pruned = replace(best, state="pruned", value=None, reason="too large")
    changed = (*history[: best.number], pruned, *history[best.number + 1 :])
    asked = MAKERS[name]()
    asked.ask(history)
    assert asked.ask(changed) == MAKERS[name]().ask(changed)
    assert asked.ask(history) == MAKERS[name]().ask(history)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_trials_that_it_never_proposed_count_with_their_scores(name: str) -> None:
    by_hand: History = ()
    for architecture in list(SPACE.enumerate())[::2]:
        by_hand = extend(by_hand, architecture, sometimes)
    controller = MAKERS[name]()
    controller.budget = len(by_hand) + 10
    history = by_hand
    while not isinstance(asked := controller.ask(history), Done):
        history = extend(history, asked, sometimes)  # type: ignore[arg-type]
    assert len({record.digest for record in history}) == len(history) == len(by_hand) + 10


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_after_the_budget_it_waits_for_what_runs_and_is_done(name: str) -> None:
    history = run_in_memory(MAKERS[name](), sometimes, max_trials=60)
    last = replace(history[-1], state="running", value=None, reason=None)
    assert MAKERS[name]().ask((*history[:-1], last)) is None
    assert MAKERS[name]().ask(history) is DONE


@pytest.mark.parametrize("make", [LocalSearch, PolicyGradient])
def test_a_budget_below_one_is_refused(make: type[Staged]) -> None:
    with pytest.raises(ConfigError, match="budget: found 0"):
        make(SPACE, seed=0, budget=0)
