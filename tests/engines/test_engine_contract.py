"""All engines against one contract: equal searches to the bit, whoever scores; what becomes of lost workers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from toy import (
    FAILING,
    HANGING,
    KILLING,
    SPACE,
    STARVING,
    OwnFailure,
    Patient,
    Toy,
    Wrong,
    calls,
    die,
    outline,
    refuse,
    searched,
)

import nas.engines.ray_tune
from nas.engines.base import Began, Engine, Job, unheard
from nas.engines.ray_cluster import RayWorkers
from nas.engines.ray_tune import RayTune
from nas.engines.workers import Workers
from nas.proxies.base import Proxy
from nas.trials import Score
from search_spaces.errors import CandidateFailed, RunError
from search_spaces.randomness import rng_for

Made = AbstractContextManager[Engine | None]
JOB = Job(number=0, candidate=SPACE.baseline)


def processes(
    open_proxy: Callable[[], Proxy], count: int, deadline: float | None = None, began: Began = unheard
) -> AbstractContextManager[Engine]:
    return Workers(open_proxy, count, deadline=deadline, began=began)


def on_ray(
    open_proxy: Callable[[], Proxy], count: int, deadline: float | None = None, began: Began | None = None
) -> AbstractContextManager[Engine]:
    return RayTune(open_proxy, RayWorkers(count=count), deadline=deadline, began=began)


PARALLEL = {"processes": processes, "ray": on_ray}


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(params=PARALLEL)
def made(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Engine]]:
    return PARALLEL[request.param]


@pytest.mark.parametrize("rungs", [False, True])
def test_every_engine_finds_the_same_to_the_bit(tmp_path: Path, rungs: bool) -> None:
    engines: dict[str, Callable[[Callable[[], Proxy]], Made]] = {
        "serial": lambda open_proxy: nullcontext(),
        "one process": lambda open_proxy: Workers(open_proxy, 1),
        "two processes": lambda open_proxy: Workers(open_proxy, 2),
        "four processes": lambda open_proxy: Workers(open_proxy, 4),
        "two on ray": lambda open_proxy: on_ray(open_proxy, 2),
        "four on ray": lambda open_proxy: on_ray(open_proxy, 4),
    }
    found = {}
    for name, make in engines.items():
        directory = tmp_path / name
        winner, history = searched(directory, make(partial(Toy, directory / "calls", {})), rungs=rungs)
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


def test_a_lost_worker_costs_a_retry_and_never_the_search(
    tmp_path: Path, made: Callable[..., AbstractContextManager[Engine]]
) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext())
    scored = [record for record in calm if record.state == "complete"]
    trouble = {scored[0].digest: KILLING, scored[1].digest: FAILING, scored[2].digest: STARVING}
    directory = tmp_path / "troubled"
    _, history = searched(directory, made(partial(Toy, directory / "calls", trouble), 2), trouble=trouble)
    killed, failed, starved = (history[record.number] for record in scored[:3])
    assert killed.state == failed.state == "failed" and failed.reason == "loss is nan at step 3"
    assert "its worker process died (" in str(killed.reason)
    assert killed.lost == 3 and str(killed.reason).endswith("it was tried 3 times")
    assert starved.lost == 3 and starved.reason == "out of memory (MemoryError); it was tried 3 times"
    assert len(history) == 22 and all(record.finished for record in history)
    noted = calls(directory / "calls")
    assert noted.count((killed.digest, 0)) == noted.count((starved.digest, 0)) == 3
    assert all(noted.count(call) == 1 for call in noted if call[0] not in (killed.digest, starved.digest))


def test_a_hanging_candidate_meets_its_deadline(
    tmp_path: Path, made: Callable[..., AbstractContextManager[Engine]]
) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext(), budget=6)
    first = next(record for record in calm if record.state == "complete")
    trouble, directory = {first.digest: HANGING}, tmp_path / "late"
    workers = made(partial(Toy, directory / "calls", trouble), 2, deadline=0.5)
    _, history = searched(directory, workers, budget=6)
    late = history[first.number]
    assert late.state == "failed" and "it took longer than the deadline of 0.5 s" in str(late.reason)
    assert [r.state for r in history if r is not late] == [r.state for r in calm if r.number != late.number]


def test_failures_of_a_persons_own_class_come_through(
    made: Callable[..., AbstractContextManager[Engine]],
) -> None:
    with made(OwnFailure, 1) as workers:
        ((_, found),) = workers.outcomes([JOB])
    assert isinstance(found, CandidateFailed) and str(found) == "nan at step 3"


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        (refuse, "no such file on this node"),
        (die, r"3 worker(s| processes) died before they were ready"),
        (Wrong, "a mistake of ours"),
    ],
)
def test_a_worker_that_cannot_begin_is_a_sentence(
    proxy: Callable[[], Proxy], told: str, made: Callable[..., AbstractContextManager[Engine]]
) -> None:
    with made(proxy, 2) as workers, pytest.raises(RunError, match=told):
        list(workers.outcomes([JOB]))


def test_what_is_under_way_is_told_while_it_is(
    tmp_path: Path, made: Callable[..., AbstractContextManager[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No candidate here has its score before it was heard of."""
    monkeypatch.setattr(nas.engines.ray_tune, "LOOK", 0.05)
    monkeypatch.setattr(nas.engines.ray_tune, "PATIENCE", 0.05)
    heard: list[int] = []

    def began(job: Job, seconds: float) -> None:
        assert seconds >= 0
        heard.append(job.number)
        (tmp_path / job.candidate.digest).touch()

    drawn = {one.digest: one for one in (SPACE.sample(rng_for(0, index)) for index in range(20))}
    jobs = [Job(number=number, candidate=one) for number, one in enumerate(list(drawn.values())[:5])]
    with made(partial(Patient, tmp_path), 2, began=began) as engine:
        ended = [job.number for job, outcome in engine.outcomes(jobs) if isinstance(outcome, Score)]
    assert sorted(heard) == sorted(ended) == list(range(5)), "each of them once"
