"""The books: every second under one name, what a kill leaves of them, failures and retries with their cost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nas import ledger as books_module
from nas.controllers.random import RandomSearch
from nas.engines.base import Job, Lost, outcome_of
from nas.ledger import FOLDER, REST, Books, Spent, by_activity, cpu_seconds, looked_at, starts_of, total
from nas.methods.costs import cost_line
from nas.search import search
from nas.study import Score, Study
from nas.testing import ToySpace, toy_score
from search_spaces.architecture import Candidate
from search_spaces.errors import CandidateFailed, RunError

ROOT = Path(__file__).parents[1]


def test_every_second_is_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    books = Books(tmp_path)
    with books.open():
        clock.pass_(1, cpu=1)
        with books.activity("outer", devices=2):
            clock.pass_(10, cpu=5)
            with books.activity("inner", devices=0.5):
                clock.pass_(100, cpu=50)
            clock.pass_(20)
        with books.activity("outer"):
            clock.pass_(4)
        clock.pass_(2)
        assert books.elapsed() == 137
        assert [one.ended for one in starts_of(tmp_path)] == [False], "from the first moment on"
    assert books.elapsed() == 137, "closed books are counted once"
    (start,) = starts_of(tmp_path)
    assert start.ended and start.pid == os.getpid() and not start.late
    assert start.activities == {
        REST: Spent(wall=3, cpu=1, device=0),
        "outer": Spent(wall=34, cpu=5, device=60),
        "inner": Spent(wall=100, cpu=50, device=50),
    }
    assert total(start.activities) == Spent(wall=137, cpu=56, device=110)
    again = Books(tmp_path)
    with again.open(), again.activity("inner"):
        clock.pass_(3)
        assert again.elapsed() == 140
    assert by_activity(starts_of(tmp_path))["inner"] == Spent(wall=103, cpu=50, device=50)


class Clock:
    """In place of both clocks; the beat of a running process is out of the way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = Spent(wall=1000.0)
        monkeypatch.setattr(books_module, "_now", lambda: self.now)
        monkeypatch.setattr(books_module, "BEAT", 3600.0)

    def pass_(self, wall: float, cpu: float = 0.0) -> None:
        self.now = self.now + Spent(wall=wall, cpu=cpu)


def test_books_of_a_run_that_had_begun_without_any_say_so(tmp_path: Path) -> None:
    (tmp_path / "data.json").touch()
    for late in (True, False):
        with Books(tmp_path).open():
            pass
        assert starts_of(tmp_path)[-1].late is late


def test_nothing_is_written_outside_of_open_books(tmp_path: Path) -> None:
    with Books(tmp_path).activity("any"):
        pass
    assert not (tmp_path / FOLDER).exists() and starts_of(tmp_path) == []


KEPT = """
import sys
from pathlib import Path
import nas.ledger
nas.ledger.BEAT = 0.05
books = nas.ledger.Books(Path(sys.argv[1]))
with books.open(), books.activity("work"):
    print("open", flush=True)
    while True:
        pass
"""


def test_a_killed_process_has_booked_all_but_its_last_moments(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KEPT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    deadline = time.monotonic() + 60
    while not (found := starts_of(tmp_path)) or found[0].activities.get("work", Spent()).cpu < 0.3:
        assert time.monotonic() < deadline, "nothing is booked while it works"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (start,) = starts_of(tmp_path)
    assert not start.ended and start.pid == process.pid
    spent = start.activities["work"]
    assert spent.wall > 0.25 and spent.cpu >= 0.3
    # Torn or foreign files cost their figures only.
    (tmp_path / FOLDER / "0-torn.json").write_text('{"host": ')
    (tmp_path / FOLDER / "1-other.json").write_text("[]")
    assert starts_of(tmp_path) == [start]


def test_books_do_not_hurt_what_they_are_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise RunError(f"{path}: No space left on device")

    monkeypatch.setattr(books_module, "write_atomic", full)
    monkeypatch.setattr(books_module, "BEAT", 0.01)
    with Books(tmp_path).open():
        beating = [one for one in threading.enumerate() if one.name == "ledger"]
        time.sleep(0.1)
        assert [one.is_alive() for one in beating] == [True], "a full disk ends no beat"
    assert not any(one.is_alive() for one in beating) and starts_of(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_processor_time_of_children_counts_while_they_run_and_afterwards() -> None:
    before = cpu_seconds()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    deadline = time.monotonic() + 60
    while (running := cpu_seconds()) - before < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert cpu_seconds() >= running


class Costly:
    """Fails every third candidate after a while."""

    def __init__(self, space: ToySpace) -> None:
        self.score, self.calls = toy_score(space), 0

    def __call__(self, candidate: Candidate) -> Score:
        self.calls += 1
        looked_at(5, 1000)
        if self.calls % 3 == 0:
            time.sleep(0.06)
            raise CandidateFailed("it will not do")
        looked_at(2, 1000, learned=True)
        return self.score(candidate)


class Losing:
    """An engine whose every first try of a candidate is lost after 7 seconds."""

    def __init__(self, proxy: Costly) -> None:
        self.proxy, self.tried, self.jobs = proxy, set[int](), list[Job]()

    def outcomes(self, jobs):  # type: ignore[no-untyped-def]
        self.jobs = list(jobs)
        while self.jobs:
            job = self.jobs.pop(0)
            if job.number in self.tried:
                yield job, outcome_of(job, self.proxy)
            else:
                self.tried.add(job.number)
                yield job, Lost("gone", 7.0)

    def add(self, jobs):  # type: ignore[no-untyped-def]
        self.jobs += jobs

    def withdraw(self) -> None:
        self.jobs = []


def test_failures_and_retries_are_booked_with_their_trial(tmp_path: Path) -> None:
    space = ToySpace()
    with Study.open(tmp_path) as study:
        phase = study.phase("search", space, seed=0)
        proxy = Costly(space)
        search(
            phase=phase,
            controller=RandomSearch(space, seed=0, budget=6),
            score=proxy,
            engine=Losing(proxy),
            batch=2,
        )
    with Study.open(tmp_path, read_only=True) as study:
        history = study.records("search")
    failed = [record for record in history if record.state == "failed"]
    assert len(failed) == 2 and all(record.seconds >= 0.05 for record in failed)
    assert {record.lost_seconds for record in history if record.lost} == {7.0}
    assert {(record.images_seen, record.macs_spent) for record in failed} == {(5, 5000)}
    scored = [record for record in history if record.state == "complete"]
    assert {(record.images_seen, record.macs_spent) for record in scored} == {(7, 11000)}


def test_a_winners_cost_is_one_line() -> None:
    line = cost_line(
        {
            "total": {"wall": 7200.0, "cpu": 5400.0, "device": 0.0},
            "phases": [{"images": 1000, "macs": 2e9}, {"images": 500, "macs": 1e9}],
            "trials": {"complete": {"count": 9}, "failed": {"count": 1}, "lost": {"count": 2}},
            "starts": 3,
            "unended": 1,
            "late": False,
        }
    )
    assert line == (
        "2.0 h on the clock (1.5 h of processors, 0 s of devices), 1,500 images, 3e+09 backbone MACs, "
        "9 candidates scored, 1 failed, 2 lost workers, 3 starts, 1 of them not ended in order"
    )
