"""Candidates scored in processes of this machine that live as long as the search.

Every worker opens a proxy of its own once and keeps it, and scores one candidate at a time. One that dies or hangs is
replaced, and its candidate comes back as :class:`~nas.engines.base.Lost`.
"""

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Self

from nas.engines.base import STARTS, Began, Job, Lost, Outcome, outcome_of, problem_of, unheard
from nas.engines.processes import end_with_parent, start
from nas.proxies.base import Proxy
from search_spaces.errors import RunError

_OPENING = float("inf")


class Workers:
    """An engine of processes; use it in a ``with`` statement.

    Args:
        open_proxy: makes the proxy in each worker, threads included; pickled, so a function at the top of a module,
            perhaps with arguments bound by ``functools.partial``.
        count: processes at a time.
        deadline: seconds that one job may take, the worker's start not counted; None: any number.
        began: hears of every job that an open worker has taken.
    """

    def __init__(
        self,
        open_proxy: Callable[[], Proxy],
        count: int,
        *,
        deadline: float | None = None,
        began: Began = unheard,
    ) -> None:
        self._open_proxy, self._count, self._deadline = open_proxy, count, deadline
        self._began = began
        self._waiting: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}
        self._failed_starts = 0

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """As they come.

        Raises:
            RunError: a worker cannot open its proxy, or raises what does not concern one candidate.
        """
        self._waiting = deque(jobs)
        try:
            while self._waiting or self._busy:
                while self._waiting and len(self._busy) < self._count:
                    self._give(self._waiting.popleft())
                for worker in self._heard():
                    yield from self._received(worker)
                yield from self._overdue()
        finally:
            # Left early: what is under way would answer a question that nobody asks any more.
            for worker in self._busy.values():
                worker.end()
            self._busy.clear()

    def add(self, jobs: Sequence[Job]) -> None:
        """After those that wait."""
        self._waiting.extend(jobs)

    def withdraw(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()

    def _give(self, job: Job) -> None:
        while self._idle and not self._idle[-1].process.is_alive():
            self._idle.pop().end()
        worker = self._idle.pop() if self._idle else _Worker(self._open_proxy)
        self._busy[worker.connection] = worker
        worker.take(job)
        if worker.ready:
            self._began(job, 0.0)

    def _heard(self) -> list["_Worker"]:
        begun = [worker.since for worker in self._busy.values()]
        patience = (
            None if self._deadline is None else max(0.0, min(begun) + self._deadline - time.monotonic())
        )
        ready = wait(list(self._busy), None if patience == _OPENING else patience)
        return [self._busy[one] for one in ready if isinstance(one, Connection)]

    def _received(self, worker: "_Worker") -> Iterator[tuple[Job, Outcome]]:
        try:
            kind, found = worker.connection.recv()
        except (EOFError, OSError):
            del self._busy[worker.connection]
            code = worker.end()
            if worker.ready:
                yield worker.job, Lost(f"its worker process died ({_exit(code)})", worker.seconds)
                return
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise RunError(
                    f"{STARTS} worker processes died before they were ready ({_exit(code)}). What was finished is "
                    "kept; resume with fewer workers"
                ) from None
            self._waiting.appendleft(worker.job)
            return
        if kind == "ready":
            self._failed_starts, worker.ready, worker.since = 0, True, time.monotonic()
            self._began(worker.job, 0.0)
        elif kind == "error":
            raise RunError(found)
        else:
            del self._busy[worker.connection]
            if isinstance(found, Lost):
                # Short of memory: what it still holds is free once it has ended.
                worker.end()
            else:
                self._idle.append(worker)
            yield worker.job, found

    def _overdue(self) -> Iterator[tuple[Job, Outcome]]:
        for worker in list(self._busy.values()):
            late = self._deadline is not None and time.monotonic() - worker.since >= self._deadline
            # What is told before its turn may take long; an answer that came meanwhile was in time.
            if late and not worker.connection.poll():
                del self._busy[worker.connection]
                worker.end()
                yield (
                    worker.job,
                    Lost(f"it took longer than the deadline of {self._deadline:g} s", worker.seconds),
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.end()
        self._idle.clear()
        self._busy.clear()


class _Worker:
    """One process and the line to it."""

    job: Job
    since: float
    """When its job began; infinite while it opens its proxy."""

    def __init__(self, open_proxy: Callable[[], Proxy]) -> None:
        # Spawned, because a forked process would inherit torch's thread pool in an unknown state.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(open_proxy, other), daemon=True)
        start(self.process)
        other.close()
        self.ready = False
        """Whether it has opened its proxy."""

    def take(self, job: Job) -> None:
        self.job = job
        self.since = time.monotonic() if self.ready else _OPENING
        # Where it has just died, reading from the line will say so.
        with suppress(OSError):
            self.connection.send(job)

    @property
    def seconds(self) -> float:
        """How long it has been at its job."""
        return max(0.0, time.monotonic() - self.since)

    def end(self) -> int | None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def _exit(code: int | None) -> str:
    return f"exit code {code}; -9 is usually the system short of memory"


def _work(open_proxy: Callable[[], Proxy], connection: Connection) -> None:
    end_with_parent()
    try:
        proxy = open_proxy()
        connection.send(("ready", None))
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            answer: tuple[str, Any] = ("outcome", outcome_of(job, proxy))
            connection.send(answer)
    except Exception as error:
        connection.send(("error", problem_of(error)))
