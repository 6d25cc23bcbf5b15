"""The loop: ask, score, tell, from wherever the phase stands."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from nas.controllers.catalog import make_controller
from nas.controllers.random import RandomSearch
from nas.pruning import Pruning
from nas.recipes.one_search import RungsRecipe
from nas.search import search
from nas.study import History, Phase, Record, Score, Study
from nas.testing import SeparableSpace, ToySpace, toy_score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed, RunError


@pytest.fixture
def space() -> ToySpace:
    return ToySpace()


@pytest.fixture
def phase(tmp_path: Path, space: ToySpace) -> Phase:
    return Study.open(tmp_path).phase("stages", space, seed=0)


def outline(history: History) -> list[tuple[object, ...]]:
    return [(r.number, r.digest, r.state, r.value, r.reason, dict(r.attributes)) for r in history]


def random_search(space: ToySpace, budget: int = 12) -> RandomSearch:
    return RandomSearch(space, seed=0, budget=budget)


def test_the_winner_is_the_best_and_every_trial_is_told(phase: Phase, space: ToySpace) -> None:
    told: list[tuple[Record, int]] = []
    winner = search(
        phase=phase,
        controller=random_search(space),
        score=toy_score(space),
        on_trial=lambda record, history: told.append((record, len(history))),
    )
    best = max(phase.history(), key=lambda record: record.value or 0.0)
    assert winner == best.candidate
    assert [(record.number, count) for record, count in told] == [(i, i + 1) for i in range(12)]
    assert all(record.state == "complete" for record, _ in told)


class Stop(BaseException):
    """Stands for Ctrl-C."""


def stopping(score: Callable[[Candidate], Score], after: int) -> Callable[[Candidate], Score]:
    calls = 0

    def stopped(candidate: Candidate) -> Score:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Stop
        return score(candidate)

    return stopped


@pytest.mark.parametrize(
    "name",
    [
        "aging_evolution",
        "detnas_evolution",
        "exhaustive",
        "greedy",
        "local_search",
        "optuna",
        "policy_gradient",
        "predictor_guided",
        "random",
    ],
)
def test_a_stopped_search_continues_trial_for_trial(tmp_path: Path, name: str) -> None:
    space = SeparableSpace(3, 3)
    score = toy_score(space)
    budget = None if name in ("exhaustive", "greedy") else 21
    options = {"aging_evolution": {"population": 5, "sample": 2}, "policy_gradient": {"batch": 4}}.get(
        name, {}
    )
    if name == "detnas_evolution":
        options = {"population": 7, "keep": 3, "mutants": 3, "crossovers": 3}

    def run(directory: Path, scorer: Callable[[Candidate], Score]) -> tuple[Architecture, History]:
        directory.mkdir(exist_ok=True)
        with Study.open(directory) as study:
            phase = study.phase("p", space, 0)
            controller = make_controller(name, space=space, seed=0, budget=budget, options=options)
            return search(phase=phase, controller=controller, score=scorer), phase.history()

    winner, whole = run(tmp_path / "whole", score)
    torn = tmp_path / "torn"
    for after in (0, 1, 4, 3):
        with pytest.raises(Stop):
            run(torn, stopping(score, after))
        with Study.open(torn) as study:
            assert study.records("p")[-1].state == "running"
    again, history = run(torn, score)
    assert again == winner
    assert outline(history) == outline(whole)


def test_a_failure_is_a_sentence_and_the_search_goes_on(phase: Phase, space: ToySpace) -> None:
    def score(candidate: Candidate) -> Score:
        if int(candidate.digest, 16) % 2:
            raise CandidateFailed("loss is nan at step 3")
        return Score(value=1.0)

    winner = search(phase=phase, controller=random_search(space), score=score)
    failed = [record for record in phase.history() if record.state == "failed"]
    assert failed and all(record.reason == "loss is nan at step 3" for record in failed)
    assert int(winner.digest, 16) % 2 == 0
    assert len(phase.history()) == 12


def test_a_score_that_is_no_number_is_a_failure(phase: Phase, space: ToySpace) -> None:
    with pytest.raises(RunError, match="no candidate got a score; trial 11 failed: the proxy's score is nan"):
        search(phase=phase, controller=random_search(space), score=lambda c: Score(value=float("nan")))


def test_any_other_error_stops_the_search_and_leaves_the_trial_running(phase: Phase, space: ToySpace) -> None:
    def score(candidate: Candidate) -> Score:
        raise ZeroDivisionError("a mistake of ours")

    with pytest.raises(ZeroDivisionError):
        search(phase=phase, controller=random_search(space), score=score)
    assert [record.state for record in phase.history()] == ["running"]


def test_limits_come_before_the_proxy(phase: Phase, space: ToySpace) -> None:
    scored = []

    def score(candidate: Candidate) -> Score:
        scored.append(candidate)
        return toy_score(space)(candidate)

    def limits(architecture: Architecture) -> str | None:
        return "kernel 5 is over the limit of 3" if architecture.genes["kernel"] == 5 else None

    winner = search(phase=phase, controller=random_search(space, 20), score=score, limits=limits)
    pruned = [record for record in phase.history() if record.state == "pruned"]
    assert pruned and all(record.reason == "kernel 5 is over the limit of 3" for record in pruned)
    assert winner.genes["kernel"] != 5
    assert len(scored) + len(pruned) == 20


def test_limits_do_not_judge_prefixes(phase: Phase, tmp_path: Path) -> None:
    space = SeparableSpace(2, 3)
    phase = Study.open(tmp_path).phase("d", space, 0)
    judged = []
    search(
        phase=phase,
        controller=make_controller("greedy", space=space, seed=0),
        score=toy_score(space),
        limits=judged.append,  # type: ignore[arg-type]
    )
    assert len(judged) == 9


def test_a_candidate_that_comes_again_keeps_its_score(tmp_path: Path) -> None:
    space = SeparableSpace(2, 2)
    phase = Study.open(tmp_path).phase("p", space, 0)
    scored = []

    def score(candidate: Candidate) -> Score:
        scored.append(candidate.digest)
        return toy_score(space)(candidate)

    controller = make_controller("optuna", space=space, seed=0, budget=12, options={"sampler": "random"})
    search(phase=phase, controller=controller, score=score)
    history = phase.history()
    assert len(history) == 12
    assert len(scored) == len(set(scored)) <= 4
    for record in history:
        earlier = record.attributes.get("same_as_trial")
        if earlier is not None:
            assert history[earlier].digest == record.digest  # type: ignore[index]
            assert history[earlier].value == record.value  # type: ignore[index]


def test_a_finished_search_only_names_its_winner(phase: Phase, space: ToySpace) -> None:
    winner = search(phase=phase, controller=random_search(space), score=toy_score(space))

    def never(candidate: Candidate) -> Score:
        raise AssertionError("nothing is left to score")

    assert search(phase=phase, controller=random_search(space), score=never) == winner


class Staged:
    """The toy proxy in four stages, with a note of what was measured."""

    def __init__(self, space: ToySpace | SeparableSpace) -> None:
        self.worth = toy_score(space)
        self.measured, self.dropped = list[tuple[str, int]](), list[str]()

    def __call__(self, candidate: Candidate) -> Score:
        return self.worth(candidate)

    def at(self, candidate: Candidate, step: int) -> Score:
        self.measured.append((candidate.digest, step))
        return Score(
            value=self.worth(candidate).value * step / 10, attributes={"steps": step, "seconds": 0.5}
        )

    def drop(self, candidate: Candidate) -> None:
        self.dropped.append(candidate.digest)


def halving() -> Pruning:
    return Pruning(RungsRecipe(first=2, reduction=2), total_steps=10, phase="p")


def test_rungs_stop_the_worse_and_never_the_best(phase: Phase, space: ToySpace) -> None:
    """Here every rung orders candidates as the final score does."""
    whole = Staged(space)
    winner = search(phase=phase, controller=random_search(space, 30), score=whole, pruning=halving())
    history = phase.history()
    stopped = [record for record in history if record.state == "pruned"]
    scored = [record for record in history if record.state == "complete"]
    assert len(stopped) > 15 and len(scored) >= 2 and len(stopped) + len(scored) == 30
    assert winner == max((record.candidate for record in history), key=lambda one: whole(one).value)
    assert all(tuple(record.intermediate) == (2, 4, 8) for record in scored)
    assert all(record.value is None and "stopped at step" in str(record.reason) for record in stopped)
    assert whole.dropped == [record.digest for record in stopped]
    assert all(record.attributes["steps"] == record.stopped_at for record in stopped)
    stages = {2: 0.5, 4: 1.0, 8: 1.5}
    assert all(record.attributes["seconds"] == stages[int(record.stopped_at or 0)] for record in stopped)


def test_a_stopped_candidate_that_comes_again_is_not_trained_again(tmp_path: Path) -> None:
    space = SeparableSpace(2, 3)
    phase = Study.open(tmp_path).phase("p", space, 0)
    proxy = Staged(space)
    controller = make_controller("optuna", space=space, seed=0, budget=30, options={"sampler": "random"})
    search(phase=phase, controller=controller, score=proxy, pruning=halving())
    assert len(proxy.measured) == len(set(proxy.measured))
    repeated = [r for r in phase.history() if r.state == "pruned" and not r.intermediate]
    assert repeated
    for record in repeated:
        first = phase.history()[record.attributes["same_as_trial"]]  # type: ignore[index]
        assert first.digest == record.digest and first.stopped_at == record.stopped_at is not None
        assert record.reason == f"as trial {first.number}: {first.reason}"


def test_pruning_needs_a_proxy_with_stages(phase: Phase, space: ToySpace) -> None:
    with pytest.raises(TypeError, match="does not score in stages"):
        search(phase=phase, controller=random_search(space), score=toy_score(space), pruning=halving())
    assert phase.history() == ()


def test_optuna_sees_the_rungs(phase: Phase, space: ToySpace, tmp_path: Path) -> None:
    search(phase=phase, controller=random_search(space), score=Staged(space), pruning=halving())
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name="stages", storage=optuna.storages.JournalStorage(backend))
    for trial, record in zip(study.trials, phase.history(), strict=True):
        assert trial.intermediate_values == record.intermediate and trial.intermediate_values
        assert (trial.state is optuna.trial.TrialState.PRUNED) == (record.stopped_at is not None)
    assert study.best_value == max(r.value for r in phase.history() if r.value is not None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_report_that_is_no_number_is_a_failure(phase: Phase, space: ToySpace, value: float) -> None:
    class Wild(Staged):
        def at(self, candidate: Candidate, step: int) -> Score:
            assert step == 2
            return Score(value=value)

    with pytest.raises(RunError, match="no candidate got a score; trial 11 failed: the proxy's score is"):
        search(phase=phase, controller=random_search(space), score=Wild(space), pruning=halving())
