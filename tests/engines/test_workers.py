"""Engines against one contract: equal searches to the bit, whoever scores; what becomes of lost workers."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

from nas.controllers.catalog import make_controller
from nas.engines.base import Engine, Job, Lost, Outcome, outcome_of
from nas.engines.workers import Workers
from nas.proxies.base import Proxy
from nas.pruning import Pruning
from nas.recipes.one_search import RungsRecipe
from nas.search import search
from nas.study import History, Study
from nas.testing import SeparableSpace, toy_score
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed, DataError, RunError
from search_spaces.randomness import rng_for

SPACE = SeparableSpace(3, 3)
FAILING, KILLING, HANGING = "failing", "killing", "hanging"


class Toy:
    """Scores at once; some candidates fail, some kill or hold up whoever scores them."""

    def __init__(self, directory: Path, trouble: dict[str, str]) -> None:
        self.directory, self.trouble, self.worth = directory, trouble, toy_score(SPACE)

    def __call__(self, candidate: Candidate) -> Score:
        return self.at(candidate, 0)

    def at(self, candidate: Candidate, step: int) -> Score:
        # One file a call: several processes write.
        (self.directory / f"{candidate.digest}-{step}-{os.getpid()}-{time.monotonic_ns()}").touch()
        trouble = self.trouble.get(candidate.digest)
        if trouble == KILLING:
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == HANGING:
            time.sleep(60)
        if trouble == FAILING:
            raise CandidateFailed("loss is nan at step 3")
        noise = rng_for(step, candidate.digest).random() / (step or 8)
        return Score(value=self.worth(candidate).value + noise, attributes={"steps": step or 8})

    def drop(self, candidate: Candidate) -> None:
        """Nothing waits."""


def calls(directory: Path) -> list[tuple[str, int]]:
    """Digest and step of every call."""
    names = (file.name.split("-") for file in directory.iterdir())
    return sorted((digest, int(step)) for digest, step, *_ in names)


def refuse() -> Proxy:
    raise DataError("images/3.png: no such file on this node")


def die() -> Proxy:
    os._exit(3)


class Wrong:
    def __call__(self, candidate: Candidate) -> Score:
        raise ZeroDivisionError("a mistake of ours")


ENGINES: dict[str, Callable[[Callable[[], Proxy]], AbstractContextManager[Engine | None]]] = {
    "serial": lambda open_proxy: nullcontext(),
    "one worker": lambda open_proxy: Workers(open_proxy, 1),
    "two workers": lambda open_proxy: Workers(open_proxy, 2),
    "four workers": lambda open_proxy: Workers(open_proxy, 4),
}


def searched(
    directory: Path,
    engine: AbstractContextManager[Engine | None],
    *,
    trouble: dict[str, str] | None = None,
    controller: str = "aging_evolution",
    rungs: bool = False,
    budget: int = 22,
    batch: int = 4,
    kind: type[Toy] = Toy,
) -> tuple[Architecture, History]:
    """A search whose calls are noted in ``directory/calls``."""
    (directory / "calls").mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"aging_evolution": {"population": 5, "sample": 2}}.get(controller, {})
    with Study.open(directory) as study, engine as opened:
        phase = study.phase("toy", SPACE, 3)
        winner = search(
            phase=phase,
            controller=make_controller(controller, space=SPACE, seed=3, budget=budget, options=options),
            score=kind(directory / "calls", trouble or {}),
            engine=opened,
            batch=batch,
            limits=lambda one: "over the limit" if int(one.digest, 16) % 7 == 0 else None,
            pruning=Pruning(RungsRecipe(first=1, reduction=2), total_steps=8, phase="toy") if rungs else None,
        )
        return winner, phase.history()


def outline(history: History) -> list[tuple[object, ...]]:
    return [
        (r.number, r.digest, r.state, r.value, r.reason, dict(r.attributes), dict(r.intermediate))
        for r in history
    ]


@pytest.mark.parametrize("rungs", [False, True])
def test_every_engine_finds_the_same_to_the_bit(tmp_path: Path, rungs: bool) -> None:
    found = {}
    for name, made in ENGINES.items():
        directory = tmp_path / name
        proxy = partial(Toy, directory / "calls", {})
        winner, history = searched(directory, made(proxy), rungs=rungs)
        found[name] = (winner.digest, outline(history), calls(directory / "calls"))
    whole = found["serial"]
    assert {row[2] for row in whole[1]} == {"complete", "pruned"}  # type: ignore[index]
    assert any("over the limit" in str(row[4]) for row in whole[1])  # type: ignore[index]
    assert len({digest for digest, _ in whole[2]}) > 12
    for name, one in found.items():
        assert one == whole, name


@pytest.mark.parametrize("controller", ["greedy", "local_search", "random", "tpe"])
def test_two_workers_ask_what_one_process_asks(tmp_path: Path, controller: str) -> None:
    budget = {"greedy": None}.get(controller, 14)
    _, alone = searched(tmp_path / "a", nullcontext(), controller=controller, budget=budget)  # type: ignore[arg-type]
    directory = tmp_path / "b"
    workers = Workers(partial(Toy, directory / "calls", {}), 2)
    _, together = searched(directory, workers, controller=controller, budget=budget)  # type: ignore[arg-type]
    assert outline(alone) == outline(together)


def test_a_lost_worker_costs_a_retry_and_never_the_search(tmp_path: Path) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext())
    scored = [record for record in calm if record.state == "complete"]
    trouble = {scored[0].digest: KILLING, scored[1].digest: FAILING}
    directory = tmp_path / "troubled"
    _, history = searched(directory, Workers(partial(Toy, directory / "calls", trouble), 2), trouble=trouble)
    killed, failed = history[scored[0].number], history[scored[1].number]
    assert killed.state == failed.state == "failed" and failed.reason == "loss is nan at step 3"
    assert "its worker process died (exit code -9" in str(killed.reason)
    assert killed.lost == 3 and str(killed.reason).endswith("it was tried 3 times")
    assert len(history) == 22 and all(record.finished for record in history)
    noted = calls(directory / "calls")
    assert noted.count((killed.digest, 0)) == 3
    assert all(noted.count(call) == 1 for call in noted if call[0] != killed.digest)


def test_a_hanging_candidate_meets_its_deadline(tmp_path: Path) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext(), budget=6)
    first = next(record for record in calm if record.state == "complete")
    trouble, directory = {first.digest: HANGING}, tmp_path / "late"
    workers = Workers(partial(Toy, directory / "calls", trouble), 2, deadline=0.5)
    _, history = searched(directory, workers, budget=6)
    late = history[first.number]
    assert late.state == "failed" and "it took longer than the deadline of 0.5 s" in str(late.reason)
    assert [r.state for r in history if r is not late] == [r.state for r in calm if r.number != late.number]


class Backwards:
    """An engine whose jobs come back last first, and that is killed after so many."""

    def __init__(self, proxy: Proxy, stop_after: int) -> None:
        self.proxy, self.left = proxy, stop_after

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        for job in reversed(jobs):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield job, outcome_of(job, self.proxy)


class Noisy(Toy):
    """What a rung says has nothing to do with the next one."""

    def at(self, candidate: Candidate, step: int) -> Score:
        return Score(
            value=rng_for(7, step, candidate.digest).random(),
            attributes=super().at(candidate, step).attributes,
        )


def test_a_rung_that_some_have_reached_decides_nothing(tmp_path: Path) -> None:
    """Stopped after every single outcome, the last of a round first."""
    _, calm = searched(tmp_path / "calm", nullcontext(), rungs=True, kind=Noisy)
    directory = tmp_path / "torn"
    for _ in range(200):
        engine = Backwards(Noisy(directory / "calls", {}), 1)
        try:
            _, history = searched(directory, nullcontext(engine), rungs=True, kind=Noisy)
            break
        except KeyboardInterrupt:
            pass
    assert len({record.stopped_at for record in calm}) > 2
    assert outline(history) == outline(calm)


def test_a_failure_before_its_turn_is_kept_too(tmp_path: Path) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext(), budget=6)
    last = [record for record in calm if record.state == "complete"][3]
    trouble, directory = {last.digest: FAILING}, tmp_path / "torn"
    for stop_after in (1, 1, 100):
        engine = Backwards(Toy(directory / "calls", trouble), stop_after)
        with suppress(KeyboardInterrupt):
            _, history = searched(directory, nullcontext(engine), budget=6, trouble=trouble)
    assert history[last.number].reason == "loss is nan at step 3"
    assert calls(directory / "calls").count((last.digest, 0)) == 1


class Own(CandidateFailed):
    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")


class OwnFailure:
    def __call__(self, candidate: Candidate) -> Score:
        raise Own(3, "nan")


def test_failures_of_a_persons_own_class_come_through() -> None:
    with Workers(OwnFailure, 1) as workers:
        ((_, found),) = workers.outcomes([Job(number=0, candidate=SPACE.baseline)])
    assert isinstance(found, CandidateFailed) and str(found) == "nan at step 3"


@pytest.mark.parametrize("name", ["round", "stage", "lost", "kept"])
def test_a_score_cannot_write_what_the_loop_goes_by(tmp_path: Path, name: str) -> None:
    with Study.open(tmp_path) as study, pytest.raises(TypeError, match="written by the search"):
        search(
            phase=study.phase("toy", SPACE, 3),
            controller=make_controller("random", space=SPACE, seed=3, budget=3, options={}),
            score=lambda candidate: Score(value=1.0, attributes={name: 12}),
        )


@pytest.mark.parametrize("rungs", [False, True])
def test_what_comes_out_of_order_is_kept_and_told_in_order(tmp_path: Path, rungs: bool) -> None:
    """Stopped after every number of outcomes: nothing is scored twice, and the history is that of a calm search."""
    _, calm = searched(tmp_path / "calm", nullcontext(), rungs=rungs)
    whole = calls(tmp_path / "calm" / "calls")
    directory = tmp_path / "torn"
    for stop_after in (1, 3, 2, 1, 5, 1):
        engine = Backwards(Toy(directory / "calls", {}), stop_after)
        with pytest.raises(KeyboardInterrupt):
            searched(directory, nullcontext(engine), rungs=rungs)
        with Study.open(directory) as study:
            records = study.records("toy")
        unfinished = [record.number for record in records if not record.finished]
        told = [
            r.number for r in records if r.finished and "limit" not in str(r.reason) and r.stopped_at is None
        ]
        assert rungs or not told or max(told) < min(unfinished), "a later trial was told first"
    _, history = searched(directory, nullcontext(Backwards(Toy(directory / "calls", {}), 1000)), rungs=rungs)
    assert outline(history) == outline(calm)
    assert calls(directory / "calls") == whole


def test_a_worker_that_cannot_begin_is_a_sentence(tmp_path: Path) -> None:
    job = Job(number=0, candidate=SPACE.baseline)
    with Workers(refuse, 2) as workers, pytest.raises(RunError, match="no such file on this node"):
        list(workers.outcomes([job]))
    with Workers(die, 1) as workers, pytest.raises(RunError, match=r"3 worker processes died .*exit code 3"):
        list(workers.outcomes([job]))
    with Workers(Wrong, 1) as workers, pytest.raises(RunError, match="a mistake of ours"):
        list(workers.outcomes([job]))


def late(directory: Path) -> Proxy:
    """Ctrl-C comes while a worker opens its proxy, and would be heard there."""
    (directory / f"begun-0-{os.getpid()}").touch()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    return Toy(directory, {})


def test_ctrl_c_does_not_reach_a_worker(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    # As in a fresh process, whose first worker is started together with the tracker.
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    with Workers(partial(late, tmp_path / "calls"), 1) as workers:
        ((_, found),) = workers.outcomes([Job(number=0, candidate=SPACE.baseline)])
    assert isinstance(found, Score)
    assert len(list((tmp_path / "calls").glob("begun-*"))) == 1, "the first worker was interrupted"
    # The mask was the workers' alone.
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_workers_live_on_and_die_with_the_search(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    jobs = [Job(number=n, candidate=one) for n, one in enumerate(SPACE.enumerate())][:6]
    with Workers(partial(Toy, tmp_path / "calls", {}), 2) as workers:
        for _ in range(2):
            assert all(not isinstance(found, Lost) for _, found in workers.outcomes(jobs))
        pids = {int(file.name.split("-")[2]) for file in (tmp_path / "calls").iterdir()}
        assert 1 <= len(pids) <= 2
        # A worker that dies between two jobs is replaced, and nobody is blamed for it.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert all(not isinstance(found, Lost) for _, found in workers.outcomes(jobs))
        pids = {int(file.name.split("-")[2]) for file in (tmp_path / "calls").iterdir()}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
