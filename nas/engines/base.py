"""What carries out the scoring of candidates: jobs in, outcomes out."""

import gc
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nas.ledger import Looked, Stopwatch, looking
from nas.proxies.base import Proxy, StagedProxy
from nas.trials import Score
from search_spaces.architecture import Candidate
from search_spaces.errors import CandidateFailed, RunError, VertebraError, out_of_memory
from search_spaces.files import refused

STARTS = 3
"""Workers in a row that may die before they are ready, until the search stops."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One candidate to be scored.

    Args:
        number: of its trial.
        candidate: what is scored.
        step: training step at which it is looked at on the way; None: to the end.
    """

    number: int
    candidate: Candidate
    step: int | None = None


@dataclass(frozen=True)
class Lost:
    """What came of a job whose worker died, took too long or ran out of memory; another worker may try it again.

    Args:
        reason: one sentence.
        seconds: that the worker had been at it.
    """

    reason: str
    seconds: float = 0.0


Outcome = Score | CandidateFailed | Lost


Began = Callable[[Job, float], None]
"""Hears of a job, and of the seconds since a worker began with it."""


def unheard(job: Job, seconds: float) -> None:
    """For an engine to which nobody listens."""
    del job, seconds


class Engine(Protocol):
    """Carries jobs out, in this process, in others or on other machines; which, changes no outcome."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Each job once with what came of it, in any order; they may be carried out side by side.

        Raises:
            RunError: what would fail for every candidate.
        """
        ...

    def add(self, jobs: Sequence[Job]) -> None:
        """More jobs for the call of :meth:`outcomes` under way, whose last outcome has just been given."""
        ...

    def withdraw(self) -> None:
        """Jobs that nobody has begun with are not wanted any more; the call ends with those under way."""
        ...


class InProcess:
    """One after the other in this process; an error that does not concern a candidate alone passes through.

    Args:
        proxy: scores.
        began: hears of every job.
    """

    def __init__(self, proxy: Proxy, began: Began = unheard) -> None:
        self.proxy, self._began = proxy, began
        self._waiting: deque[Job] = deque()

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """In the order of the jobs."""
        self._waiting = deque(jobs)
        while self._waiting:
            job = self._waiting.popleft()
            self._began(job, 0.0)
            yield job, outcome_of(job, self.proxy)

    def add(self, jobs: Sequence[Job]) -> None:
        """After those that wait."""
        self._waiting.extend(jobs)

    def withdraw(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()


def outcome_of(job: Job, proxy: Proxy) -> Outcome:
    """Score a candidate, or find out why it has no score.

    Raises:
        RunError: a disk is full or not to be written.
    """
    with looking() as looked:
        return _outcome(job, proxy, looked)


def _outcome(job: Job, proxy: Proxy, looked: Looked) -> Outcome:
    watch = Stopwatch()
    try:
        if job.step is None:
            score = proxy(job.candidate)
        else:
            assert isinstance(proxy, StagedProxy), "only such a proxy is asked on the way"
            score = proxy.at(job.candidate, job.step)
    except CandidateFailed as failure:
        # A class of the proxy's own might not come through the line between two processes.
        return CandidateFailed(str(failure), {**watch.read(), **looked.read()})
    except (MemoryError, OSError, RuntimeError) as error:
        # Whoever shares the memory may need less of it another time, so that this is tried again as for a dead worker.
        if (reason := out_of_memory(error)) is not None:
            lost = Lost(reason, watch.read()["seconds"])
        elif isinstance(error, OSError) and (reason := refused(error)) is not None:
            raise RunError(reason) from error
        else:
            raise
    else:
        return Score(value=score.value, attributes={**score.attributes, **looked.read()})
    # Here, because the error has held what the candidate had taken.
    _give_back_memory()
    return lost


def problem_of(error: Exception) -> str:
    """What a worker says that cannot go on, while the error is being handled."""
    if isinstance(error, VertebraError):
        return str(error)
    if (reason := out_of_memory(error)) is not None:
        return (
            f"a worker cannot open its proxy: {reason}. What was finished is kept; resume with fewer workers"
        )
    if isinstance(error, OSError) and (reason := refused(error)) is not None:
        return reason
    return f"a worker raised an error that it does not know:\n{traceback.format_exc()}"


def _give_back_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
