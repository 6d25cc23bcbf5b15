"""A round whose outcomes come in any order, torn at any moment."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from toy import FAILING, SPACE, Toy, calls, outline, searched

from nas.controllers.catalog import make_controller
from nas.engines.base import Job, Outcome, outcome_of
from nas.proxies.base import Proxy
from nas.search import search
from nas.study import Study
from nas.trials import Score
from search_spaces.architecture import Candidate
from search_spaces.randomness import rng_for


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
