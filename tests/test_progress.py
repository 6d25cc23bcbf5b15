"""What a person sees of a search: the live view, the lines of a log, and what each engine knows of its workers."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nas.controllers.catalog import make_controller
from nas.engines.base import InProcess, Job, Lost, Outcome
from nas.engines.watched import Watched
from nas.progress import EVERY, ConsoleProgress, Silent
from nas.saying import duration
from nas.search import search
from nas.standing import Standing
from nas.study import Study
from nas.testing import SeparableSpace, toy_score
from nas.trials import Record, State
from search_spaces.architecture import Candidate
from search_spaces.randomness import rng_for

SPACE = SeparableSpace(3, 3)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def drawn(number: int) -> Candidate:
    return SPACE.sample(rng_for(0, number))


def record(number: int, value: float | None = None, state: State = "complete", **rest: Any) -> Record:
    one = drawn(number)
    return Record(
        number=number, phase="toy", candidate=one, digest=one.digest, value=value, state=state, **rest
    )


def job(number: int, step: int | None = None) -> Job:
    return Job(number=number, candidate=drawn(number), step=step)


def short(candidate: Candidate) -> str:
    return f"net-{candidate.digest[:4]}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (3600, "1.0 h"), (9000, "2.5 h")]
)
def test_seconds_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_was_before_counts_too() -> None:
    before = (
        record(0, 12.5),
        record(1, state="failed", reason="loss is nan", attributes={"lost": 2}),
        record(2, 99.0, state="pruned", reason="poor", intermediate={25: 99.0}),
        record(3, 7.0),
        record(4, state="running", attributes={"lost": 1}),
    )
    standing = Standing(before, workers=2, total=9, unit=" AP")
    assert (standing.done, standing.failed, standing.pruned, standing.lost) == (4, 1, 1, 3)
    expected = "0 of 2 workers busy, best 12.50 AP (trial 0), 1 failed, 1 pruned, 3 lost workers"
    assert standing.facts() == expected, "the last value of a stopped trial is no best score"
    alone = Standing(before, workers=1, total=9, unit=" AP")
    assert alone.facts() == expected.partition(", ")[2], "nobody asks whether the only worker rests"
    assert standing.seconds_left() is None, "what was done by another start says nothing of this one"


def test_time_left_knows_how_many_are_at_work() -> None:
    """Three workers, ten seconds a candidate: twelve take forty seconds, and that is said after the first of them."""
    clock = Clock()
    standing = Standing((), workers=3, total=12, clock=clock)
    for number in range(3):
        standing.began(job(number))
    assert standing.seconds_left() is None
    clock.now += 10
    standing.ended(job(1), lost=False)
    assert standing.seconds_left() == pytest.approx(30.0), "those beside it are as far"
    standing.told(record(1, 1.0))
    assert standing.seconds_left() == pytest.approx(30.0), "told or waiting for its turn is the same"
    standing.ended(job(0), lost=True)
    assert standing.seconds_left() == pytest.approx(50.0), "what a lost worker did is lost"


def test_rejected_candidates_take_no_time() -> None:
    clock = Clock()
    standing = Standing((), workers=1, total=40, clock=clock)
    standing.began(job(0))
    clock.now += 10
    standing.ended(job(0), lost=False)
    for one in (record(0, 1.0), *(record(number, state="pruned", reason="large") for number in range(1, 10))):
        standing.told(one)
    assert standing.seconds_left() == pytest.approx(30.0)


def test_a_rung_is_no_end() -> None:
    clock = Clock()
    standing = Standing((), workers=1, total=2, clock=clock)
    standing.began(job(0, step=25))
    clock.now += 5
    assert standing.under_way() == [(0, f"{drawn(0)}, to step 25", 5.0)]
    standing.ended(job(0, step=25), lost=False)
    assert standing.seconds_left() is None and standing.under_way() == []


def shown(progress: ConsoleProgress, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.view())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_live_view_says_everything() -> None:
    clock = Clock()
    progress = ConsoleProgress(clock=clock, console=Console(file=io.StringIO(), force_terminal=True))
    assert shown(progress).strip() == "", "nothing before the first phase"
    progress.phase("search: search", 30, done=1)
    progress.searching("search", (record(0, 20.0),), workers=16, unit=" AP", text=short)
    for number in range(1, 12):
        progress.began(job(number), 0.0)
    clock.now += 75
    progress.ended(job(1), lost=False)
    progress.told(record(1, 31.25))
    progress.advance(2)
    lines = shown(progress).splitlines()
    assert lines[0].startswith("search: search") and "2 of 30" in lines[0]
    assert "about 2.0 min left" in lines[0], "eleven in 75 s, and 18 more"
    assert lines[1].strip() == "10 of 16 workers busy, best 31.25 AP (trial 1)"
    assert lines[2].strip() == f"last: trial 1 {short(drawn(1))} 31.25 AP"
    assert [line.strip() for line in lines[3:11]] == [
        f"1.2 min  trial {number} {short(drawn(number))}" for number in range(2, 10)
    ]
    assert lines[11].strip() == "2  more" and len(lines) == 12
    assert max(map(len, shown(progress, width=40).splitlines())) <= 40, "cut, not wrapped"
    progress.phase("final table", 3)
    assert "workers" not in shown(progress), "the next phase is no search"


def test_a_training_has_its_note_and_time_left() -> None:
    clock = Clock()
    progress = ConsoleProgress(clock=clock, console=Console(file=io.StringIO(), force_terminal=True))
    progress.phase("supernet training", 100, done=10)
    clock.now += 30
    progress.advance(40, "loss 1.234")
    line = shown(progress).splitlines()[0]
    assert "40 of 100" in line and "loss 1.234" in line and "about 1.0 min left" in line


def test_events_of_a_live_terminal_are_drawn_and_leave_nothing() -> None:
    """With the thread that draws, on a terminal that is a string."""
    out = io.StringIO()
    with ConsoleProgress(console=Console(file=out, force_terminal=True, width=100)) as progress:
        progress.phase("search: search", 4)
        progress.searching("search", (), workers=1, unit="", text=short)
        progress.began(job(0), 0.0)
        assert progress._live is not None
        progress._live.refresh()
    drawn_text = out.getvalue()
    assert "1 of 1 workers busy" in drawn_text and f"trial 0 {short(drawn(0))}" in drawn_text
    assert drawn_text.rstrip().endswith("\x1b[?25h") or "\x1b[2K" in drawn_text, "the view was taken away"


def test_a_log_gets_a_line_every_ten_seconds_with_the_same_facts() -> None:
    clock, out = Clock(), io.StringIO()
    progress = ConsoleProgress(clock=clock, console=Console(file=out, width=80))
    asked: list[Candidate] = []

    def noted(candidate: Candidate) -> str:
        asked.append(candidate)
        return short(candidate)

    with progress:
        progress.phase("search: search", 200)
        progress.searching("search", (), workers=2, unit=" AP", text=noted)
        for number in range(100):
            progress.began(job(number), 0.0)
            clock.now += 0.25
            progress.ended(job(number), lost=number == 3)
            progress.told(record(number, float(number)))
            progress.began(job(number + 1), 0.0)
            progress.advance(number + 1)
    lines = out.getvalue().splitlines()
    assert lines[0] == "search: search"
    assert len(lines) == 1 + int(25 / EVERY), "and no others"
    assert lines[1] == (
        f"  search: search: 40 of 200  trial 39 {short(drawn(39))} 39.00 AP  1 of 2 workers busy, best 39.00 AP "
        "(trial 39), 1 lost worker  under way: trials 40 for 0 s  about 40 s left"
    )
    assert len(asked) < 10, "texts are made for those that are shown"


def test_the_last_line_comes_whenever_it_is() -> None:
    out = io.StringIO()
    progress = ConsoleProgress(clock=Clock(), console=Console(file=out, width=80))
    progress.phase("final table", 2)
    progress.advance(1, "first")
    progress.advance(2, "second")
    assert out.getvalue().splitlines() == ["final table", "  final table: 2 of 2  second"]


class Heard(Silent):
    """Notes what begins and ends."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def began(self, job: Job, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(("began", job.number))

    def ended(self, job: Job, *, lost: bool) -> None:
        self.events.append(("lost" if lost else "ended", job.number))


def test_every_outcome_is_heard_before_the_search_goes_on(tmp_path: Path) -> None:
    """Worker processes and Ray: see the contract of the engines."""
    heard, scored = Heard(), toy_score(SPACE)

    def ended(one: Job, outcome: Outcome) -> None:
        heard.ended(one, lost=isinstance(outcome, Lost))

    with Study.open(tmp_path) as study:
        phase = study.phase("toy", SPACE, 3)
        search(
            phase=phase,
            controller=make_controller("random", space=SPACE, seed=3, budget=6, options={}),
            score=scored,
            engine=Watched(InProcess(scored, heard.began), ended),
            batch=3,
        )
        numbers = [record.number for record in phase.history() if "same_as_trial" not in record.attributes]
    assert len(numbers) >= 5
    assert heard.events == [(what, number) for number in numbers for what in ("began", "ended")]


def test_a_lost_worker_is_heard_of_and_jobs_reach_the_engine() -> None:
    class Losing:
        """Loses every job once."""

        def __init__(self) -> None:
            self.jobs: list[Job] = []

        def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            self.jobs = list(jobs)
            while self.jobs:
                yield self.jobs.pop(0), Lost("gone")

        def add(self, jobs: Sequence[Job]) -> None:
            self.jobs += jobs

        def withdraw(self) -> None:
            self.jobs.clear()

    heard: list[tuple[int, bool]] = []
    engine = Watched(Losing(), lambda one, outcome: heard.append((one.number, isinstance(outcome, Lost))))
    for one, _ in engine.outcomes([job(0), job(1)]):
        if one.number == 0:
            engine.add([job(2), job(3)])
        if one.number == 2:
            engine.withdraw()
    assert heard == [(0, True), (1, True), (2, True)]
