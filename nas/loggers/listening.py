"""The driver's ear: what a run tells its progress, told to its loggers too.

All numbers come from what is durable, the trials of the study and the metrics files of trainings, and every start
tells them from the beginning; so a logger misses nothing that happened while it was off or not there.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nas.engines.base import Job
from nas.loggers import guarded
from nas.loggers.base import About, Ending, Scalar
from nas.loggers.catalog import LOGGERS, require_packages
from nas.loggers.guarded import Guarded
from nas.loggers.metrics_tail import MetricsTail
from nas.progress import RunProgress
from nas.trials import BESIDE, BY_GROUP, LOST, ROUND, STAGE, STOPPED_AT, History, Record
from search_spaces.architecture import Candidate
from trainers.loop import METRICS

_NO_MEASUREMENT = frozenset({BESIDE, BY_GROUP, LOST, ROUND, STAGE, STOPPED_AT, "same_as_trial"})
"""Attributes of a trial that are numbers of something else."""


class TrialScalars:
    """The numbers of a phase's trials in the order of their numbers, however they are told.

    A viewer takes a step that is smaller than the last one for a new beginning.

    Args:
        phase: its name.
    """

    def __init__(self, phase: str) -> None:
        self._group = f"{phase}/trials"
        self._next = 0
        self._waiting: dict[int, Record] = {}
        self._best = -math.inf
        self._failed = self._pruned = 0

    def add(self, record: Record) -> list[Scalar]:
        """A finished trial; the numbers that have their turn now."""
        if record.number < self._next:
            return []
        self._waiting[record.number] = record
        found: list[Scalar] = []
        while self._next in self._waiting:
            found += self._scalars(self._waiting.pop(self._next))
            self._next += 1
        return found

    def rest(self) -> list[Scalar]:
        """Of those that wait for earlier ones, which this start will not see."""
        return [one for number in sorted(self._waiting) for one in self._scalars(self._waiting[number])]

    def _scalars(self, record: Record) -> list[Scalar]:
        values: dict[str, float] = {}
        self._failed += record.state == "failed"
        self._pruned += record.state == "pruned"
        if record.state == "complete" and record.value is not None:
            self._best = max(self._best, record.value)
            values["score"] = record.value
        values |= {"best": self._best, "failed": self._failed, "pruned": self._pruned}
        values |= {f"score at step {step}": value for step, value in record.intermediate.items()}
        for name, value in record.attributes.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NO_MEASUREMENT:
                values[name] = value
        return [
            Scalar(group=self._group, name=name, step=record.number, value=float(value))
            for name, value in values.items()
            if math.isfinite(value)
        ]


class Listening:
    """Hands everything on to a progress, and to loggers what is theirs.

    Args:
        progress: hears what it would hear alone.
        loggers: hear of trials and trainings.
        directory: of the run; trainings are named by their place in it.
    """

    def __init__(self, progress: RunProgress, loggers: Sequence[Guarded], directory: Path) -> None:
        self._progress, self._loggers, self._directory = progress, loggers, directory
        self._phases: dict[str, TrialScalars] = {}
        self._trainings: set[Path] = set()

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """Handed on."""
        self._progress.phase(title, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """Handed on."""
        self._progress.advance(done, note)

    def say(self, text: str) -> None:
        """Handed on."""
        self._progress.say(text)

    def searching(
        self, name: str, history: History, *, workers: int, unit: str, text: Callable[[Candidate], str]
    ) -> None:
        """Handed on; loggers get the trials that they have not had."""
        self._progress.searching(name, history, workers=workers, unit=unit, text=text)
        phase = self._phases.setdefault(name, TrialScalars(name))
        self._tell([one for record in history if record.finished for one in phase.add(record)])

    def began(self, job: Job, seconds: float) -> None:
        """Handed on."""
        self._progress.began(job, seconds)

    def ended(self, job: Job, *, lost: bool) -> None:
        """Handed on."""
        self._progress.ended(job, lost=lost)

    def told(self, record: Record) -> None:
        """Handed on; loggers get it in its turn."""
        self._progress.told(record)
        self._tell(self._phases[record.phase].add(record))

    def training(self, directory: Path) -> None:
        """Handed on; loggers follow its metrics file."""
        self._progress.training(directory)
        if directory in self._trainings:
            return
        self._trainings.add(directory)
        place = directory.relative_to(self._directory).as_posix()
        for logger in self._loggers:
            logger.training(MetricsTail(directory / METRICS, "training" if place == "." else place))

    def end(self, ending: Ending) -> None:
        """Tell the last numbers and that there are no more."""
        self._tell([one for phase in self._phases.values() for one in phase.rest()])
        for logger in self._loggers:
            logger.end(ending)
        until = time.monotonic() + guarded.FAREWELL
        for logger in self._loggers:
            logger.wait(until)

    def _tell(self, scalars: Sequence[Scalar]) -> None:
        if scalars:
            for logger in self._loggers:
                logger.scalars(scalars)


@contextmanager
def listening(names: Sequence[str], progress: RunProgress, about: About) -> Iterator[RunProgress]:
    """A progress to which loggers listen too; the same one where there are none.

    Args:
        names: keys of :data:`nas.loggers.catalog.LOGGERS`.
        progress: of the person who looks on.
        about: the run.

    Raises:
        ConfigError: see :func:`nas.loggers.catalog.require_packages`.
    """
    if not names:
        yield progress
        return
    require_packages(names)
    loggers = [Guarded(name, LOGGERS[name].make(), about, progress.say) for name in names]
    listener = Listening(progress, loggers, about.directory)
    ending: Ending = "failed"
    try:
        yield listener
        ending = "finished"
    except KeyboardInterrupt:
        ending = "stopped"
        raise
    finally:
        listener.end(ending)
