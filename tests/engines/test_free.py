"""A search without rounds, and any search decided again from its journal."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from toy import FAILING, KILLING, SPACE, Toy, calls, controller_named, halving, searched

from nas.engines.base import Job, Outcome, outcome_of
from nas.engines.workers import Workers
from nas.proxies.base import Proxy
from nas.replay import known_before, replay
from nas.search import search
from nas.study import History, Study


class Shuffled:
    """An engine in which any of so many candidates may be the first; it is killed after so many outcomes."""

    def __init__(self, proxy: Proxy, seed: int, stop_after: int = 1000) -> None:
        self.proxy, self.rng, self.left = proxy, Random(seed), stop_after
        self.waiting: list[Job] = []
        self.most = 0

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        self.waiting = list(jobs)
        while self.waiting:
            self.most = max(self.most, len(self.waiting))
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            job = self.waiting.pop(self.rng.randrange(len(self.waiting)))
            yield job, outcome_of(job, self.proxy)

    def add(self, jobs: Sequence[Job]) -> None:
        self.waiting += jobs


def free(
    directory: Path,
    seed: int,
    controller: str = "aging_evolution",
    budget: int | None = 22,
    trouble: dict[str, str] | None = None,
) -> tuple[History, Shuffled]:
    engine = Shuffled(Toy(directory / "calls", trouble or {}), seed)
    _, history = searched(
        directory, nullcontext(engine), controller=controller, budget=budget, batch=3, rounds=False
    )
    return history, engine


def assert_replayed(history: History, controller: str, budget: int | None) -> None:
    found = replay("toy", history, controller_named(controller, budget))
    assert found.difference is None and found.asked == len(history)


@pytest.mark.parametrize("controller", ["aging_evolution", "greedy", "local_search", "random", "tpe"])
def test_a_free_search_goes_by_who_is_first_and_is_derived_again(tmp_path: Path, controller: str) -> None:
    budget = None if controller == "greedy" else 22
    histories = []
    for seed in range(3):
        history, engine = free(tmp_path / str(seed), seed, controller, budget)
        assert engine.most == 3 and all(record.finished for record in history)
        assert all(record.beside is not None and len(record.beside) < 3 for record in history)
        assert_replayed(history, controller, budget)
        histories.append([record.digest for record in history])
    if controller in ("aging_evolution", "tpe"):
        assert len({tuple(one) for one in histories}) > 1, "the order was to matter"
        # And it is the order alone: seen in another, the choices cannot be derived.
        forgotten = tuple(
            replace(record, attributes={**record.attributes, "beside": []}) for record in history
        )
        assert replay("toy", forgotten, controller_named(controller, budget)).difference is not None


def test_a_free_search_loses_nothing_when_it_is_killed(tmp_path: Path) -> None:
    for stop_after in (2, 1, 5, 1, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            searched(
                tmp_path,
                nullcontext(Shuffled(Toy(tmp_path / "calls", {}), stop_after, stop_after)),
                batch=3,
                rounds=False,
            )
        with Study.open(tmp_path) as study:
            told = {record.digest for record in study.records("toy") if record.value is not None}
        assert {digest for digest, _ in calls(tmp_path / "calls")} >= told
    history, _ = free(tmp_path, 9)
    assert len(history) == 22 and all(record.finished for record in history)
    assert_replayed(history, "aging_evolution", 22)
    scored = [digest for digest, _ in calls(tmp_path / "calls")]
    done = [record.digest for record in history if record.value is not None]
    assert set(scored) == set(done)
    # A stop comes after an outcome and before it is told at the earliest, so at most one a stop is scored again.
    assert len(scored) - len(set(scored)) <= 6


def test_workers_run_free_too_and_a_lost_one_costs_a_retry(tmp_path: Path) -> None:
    first = controller_named("aging_evolution", 22).ask(())
    trouble = {first.digest: KILLING}  # type: ignore[union-attr]
    workers = Workers(partial(Toy, tmp_path / "calls", trouble), 2)
    _, history = searched(tmp_path, workers, rounds=False)
    assert len(history) == 22 and all(record.finished for record in history)
    assert history[0].state == "failed" and history[0].lost == 3
    assert [record.lost for record in history[1:]] == [0] * 21
    assert_replayed(history, "aging_evolution", 22)


def test_failures_and_equal_candidates_under_way_end_as_they_must(tmp_path: Path) -> None:
    class Twice:
        """Proposes every candidate twice."""

        def ask(self, history: History) -> object:
            from nas.controllers.base import DONE

            return DONE if len(history) == 10 else list(SPACE.enumerate())[len(history) // 2]

        def winner(self, history: History) -> object:
            return SPACE.baseline

    ill = list(SPACE.enumerate())[1].digest
    with Study.open(tmp_path) as study:
        phase = study.phase("toy", SPACE, 3)
        (tmp_path / "calls").mkdir()
        proxy = Toy(tmp_path / "calls", {ill: FAILING})
        search(
            phase=phase,
            controller=Twice(),  # type: ignore[arg-type]
            score=proxy,
            engine=Shuffled(proxy, 4),
            batch=4,
            rounds=False,
        )
        history = phase.history()
    assert [record.state for record in history] == ["complete"] * 2 + ["failed"] * 2 + ["complete"] * 6
    noted = [digest for digest, _ in calls(tmp_path / "calls")]
    assert all(noted.count(digest) == (2 if digest == ill else 1) for digest in noted)


@pytest.mark.parametrize("controller", ["aging_evolution", "greedy", "local_search", "random", "tpe"])
def test_rounds_are_derived_again(tmp_path: Path, controller: str) -> None:
    budget = None if controller == "greedy" else 22
    _, history = searched(tmp_path, nullcontext(), controller=controller, budget=budget)  # type: ignore[arg-type]
    assert_replayed(history, controller, budget)
    at = 13
    changed = replace(history[at], candidate=SPACE.baseline, digest="0" * 16)
    found = replay("toy", (*history[:at], changed, *history[at + 1 :]), controller_named(controller, budget))
    assert found.asked == at and found.difference is not None
    assert (
        found.difference.startswith(f"trial {at}: the journal has ")
        and history[at].digest in found.difference
    )
    # A controller that asks for less is another one.
    if budget is not None:
        assert "nothing is proposed" in str(
            replay("toy", history, controller_named(controller, 20)).difference
        )


def test_decisions_at_rungs_are_derived_again(tmp_path: Path) -> None:
    _, history = searched(tmp_path, nullcontext(), rungs=True)
    controller = controller_named("aging_evolution", 22)
    found = replay("toy", history, controller, halving())
    assert found.difference is None
    assert found.stops == sum(len(record.intermediate) for record in history) > 20
    stopped = next(record for record in history if record.stopped_at == 2)
    worse = {**stopped.intermediate, 2: 1e6}
    torn = tuple(replace(one, intermediate=worse) if one is stopped else one for one in history)
    other = replay("toy", torn, controller, halving())
    assert f"trial {stopped.number}: the journal has it stopped at step 2" in str(other.difference)


def test_what_was_known(tmp_path: Path) -> None:
    _, history = searched(tmp_path, nullcontext())
    asked = [record for record in history if record.round == history[5].round]
    last = asked[-1]
    before = known_before(history, last)
    assert len(before) == last.number
    assert [one.number for one in before if not one.finished] == [
        one.number for one in asked[:-1] if "limit" not in str(one.reason)
    ]
