"""Where a search stands while it goes on: who is at work, the best so far, failures, time left.

Every event costs the same, however long the search; texts are made when somebody looks.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nas.engines.base import Job
from nas.trials import History, Record
from search_spaces.architecture import Candidate


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A candidate with a worker; its text is made when somebody looks."""

    job: Job
    since: float


class Standing:
    """Counts what a search tells; another thread may look at any time.

    Args:
        history: the trials before.
        workers: how many the search has.
        total: trials in all, where that is known.
        unit: behind a score.
        text: what a person reads of a candidate.
        clock: seconds.
    """

    def __init__(
        self,
        history: History,
        *,
        workers: int,
        total: int | None,
        unit: str = "",
        text: Callable[[Candidate], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers, self.total = workers, total
        self._unit, self._text, self._clock = unit, text, clock
        self.done = self.failed = self.pruned = 0
        self.lost = sum(record.lost for record in history)
        self.best: Record | None = None
        self._highest = -math.inf
        self.last: Record | None = None
        for record in history:
            if record.finished:
                self._count(record)
        self._before = self.done
        self._begun: dict[int, _Begun] = {}
        self._scored: set[int] = set()
        """Trials with an outcome that wait to be told in their turn."""
        self._first: float | None = None
        self._timed = 0
        self._seconds = 0.0

    def began(self, job: Job, seconds: float = 0.0) -> None:
        """A worker began with a candidate so many seconds ago."""
        since = self._clock() - seconds
        self._begun[job.number] = _Begun(job=job, since=since)
        self._first = since if self._first is None else self._first

    def ended(self, job: Job, *, lost: bool) -> None:
        """A candidate has its outcome, or its worker is lost."""
        begun = self._begun.pop(job.number, None)
        if lost:
            self.lost += 1
            return
        if begun is not None:
            self._timed, self._seconds = self._timed + 1, self._seconds + self._clock() - begun.since
        if job.step is None:
            self._scored.add(job.number)

    def told(self, record: Record) -> None:
        """A trial is finished."""
        self._scored.discard(record.number)
        self._count(record)
        self.last = record

    def _count(self, record: Record) -> None:
        self.done += 1
        self.failed += record.state == "failed"
        self.pruned += record.state == "pruned"
        # Of a pruned trial the value at its last rung is no score.
        if record.state == "complete" and record.value is not None and record.value > self._highest:
            self.best, self._highest = record, record.value

    def facts(self) -> str:
        """Workers, best and failures in a line."""
        best = "nothing scored yet"
        if self.best is not None:
            best = f"best {self._highest:.2f}{self._unit} (trial {self.best.number})"
        counts = (
            (self.failed, "failed"),
            (self.pruned, "pruned"),
            (self.lost, "lost worker" if self.lost == 1 else "lost workers"),
        )
        trouble = [f"{count} {what}" for count, what in counts if count]
        # A single worker has just ended what is told of here.
        alone = self.workers == 1 and not self._begun
        busy = [] if alone else [f"{len(self._begun)} of {self.workers} workers busy"]
        return ", ".join([*busy, best, *trouble])

    def latest(self) -> str:
        """The trial finished last; empty before the first of this start."""
        if (record := self.last) is None:
            return ""
        outcome = (
            f"{record.value:.2f}{self._unit}"
            if record.state == "complete"
            else f"{record.state}: {record.reason}"
        )
        return f"trial {record.number} {self._text(record.candidate)} {outcome}"

    def under_way(self) -> list[tuple[int, str, float]]:
        """Trials that workers are at: number, text and seconds so far, longest first."""
        now = self._clock()
        # It is copied whole before it is sorted, whatever the search's own thread does meanwhile.
        begun = sorted(self._begun.values(), key=lambda one: one.since)
        return [
            (
                one.job.number,
                self._text(one.job.candidate)
                + (f", to step {one.job.step}" if one.job.step is not None else ""),
                now - one.since,
            )
            for one in begun
        ]

    def seconds_left(self) -> float | None:
        """An estimate; None before the first trial of this start has ended, and where the end is not known.

        The rate is that since the first candidate began, so it knows the workers, the rejected and the repeated; what
        is under way counts by its share of a mean candidate's seconds.
        """
        ended = self.done - self._before + len(self._scored)
        if self.total is None or self._first is None or ended == 0:
            return None
        now = self._clock()
        mean = self._seconds / self._timed if self._timed else 0.0
        begun = list(self._begun.values())
        work = ended + sum(min(1.0, (now - one.since) / mean) for one in begun if mean > 0)
        left = max(0.0, self.total - self._before - work)
        return left * (now - self._first) / work
