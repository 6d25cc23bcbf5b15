"""What a person sees while a run goes on: phase, workers, candidates under way, best score, failures, time left."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.engines.base import Job
from nas.saying import duration
from nas.standing import Standing
from nas.trials import History, Record
from search_spaces.architecture import Candidate

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""
SHOWN = 8
"""Candidates under way that have a line of their own."""


class RunProgress(Protocol):
    """Listener of a run; a run never asks it anything."""

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """A new phase of ``total`` steps begins, ``done`` of which were finished before."""

    def advance(self, done: int, note: str = "") -> None:
        """``done`` steps of the phase are finished."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def searching(
        self, name: str, history: History, *, workers: int, unit: str, text: Callable[[Candidate], str]
    ) -> None:
        """The trials of a search stand so; what comes next is told of it.

        Args:
            name: of the phase.
            history: its trials; all of them where nothing is left to search.
            workers: that score candidates.
            unit: behind a score.
            text: what a person reads of a candidate; not cheap enough to be made for every one.
        """

    def began(self, job: Job, seconds: float) -> None:
        """A worker began with a candidate so many seconds ago; a short one may end without it."""

    def ended(self, job: Job, *, lost: bool) -> None:
        """A candidate has its outcome, or its worker is lost."""

    def told(self, record: Record) -> None:
        """A trial is finished."""

    def training(self, directory: Path) -> None:
        """A training writes its metrics there, has done so, or will."""


class Silent:
    """Listens to nothing; for library use and tests."""

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """Ignored."""
        del title, total, done

    def advance(self, done: int, note: str = "") -> None:
        """Ignored."""
        del done, note

    def say(self, text: str) -> None:
        """Ignored."""
        del text

    def searching(
        self, name: str, history: History, *, workers: int, unit: str, text: Callable[[Candidate], str]
    ) -> None:
        """Ignored."""
        del name, history, workers, unit, text

    def began(self, job: Job, seconds: float) -> None:
        """Ignored."""
        del job, seconds

    def ended(self, job: Job, *, lost: bool) -> None:
        """Ignored."""
        del job, lost

    def told(self, record: Record) -> None:
        """Ignored."""
        del record

    def training(self, directory: Path) -> None:
        """Ignored."""
        del directory


class ConsoleProgress:
    """A live view on a terminal; about one line every ten seconds elsewhere (logs, CI).

    The view is drawn by a thread of its own, four times a second, so that no event waits for it.

    Args:
        stderr: speak there, because standard output belongs to a result.
        clock: seconds.
        console: where to; standard output or error when left out.
    """

    def __init__(
        self,
        *,
        stderr: bool = False,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(file=sys.stderr if stderr else sys.stdout)
        self._clock = clock
        self._title = self._note = ""
        self._total: int | None = None
        self._done = 0
        self._began = (0.0, 0)
        self._spoke = 0.0
        self._standing: Standing | None = None
        # Last, for it looks at the view at once.
        self._live = (
            Live(get_renderable=self.view, console=self.console, transient=True, refresh_per_second=4)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> "ConsoleProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # Nothing is left of it, not even for the moment of the last drawing.
        self._title = ""
        if self._live is not None:
            self._live.stop()

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """See :class:`RunProgress`."""
        self._standing = None
        self._title, self._note, self._total, self._done = title, "", total, done
        self._began, self._spoke = (self._clock(), done), self._clock()
        self.console.print(
            f"[bold]{escape(title)}[/bold]" + (f": {done} of {total} done before" if done else "")
        )

    def advance(self, done: int, note: str = "") -> None:
        """See :class:`RunProgress`."""
        self._done, self._note = done, note
        if self._live is None and (self._clock() - self._spoke >= EVERY or done == self._total):
            self._spoke = self._clock()
            self.console.print(self._line(), highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """See :class:`RunProgress`."""
        self.console.print(text, highlight=False, markup=False)

    def searching(
        self, name: str, history: History, *, workers: int, unit: str, text: Callable[[Candidate], str]
    ) -> None:
        """See :class:`RunProgress`."""
        del name
        self._standing = Standing(
            history, workers=workers, total=self._total, unit=unit, text=text, clock=self._clock
        )

    def began(self, job: Job, seconds: float) -> None:
        """See :class:`RunProgress`."""
        if self._standing is not None:
            self._standing.began(job, seconds)

    def ended(self, job: Job, *, lost: bool) -> None:
        """See :class:`RunProgress`."""
        if self._standing is not None:
            self._standing.ended(job, lost=lost)

    def told(self, record: Record) -> None:
        """See :class:`RunProgress`."""
        if self._standing is not None:
            self._standing.told(record)

    def training(self, directory: Path) -> None:
        """Nothing: its steps come as those of a phase."""
        del directory

    def view(self) -> RenderableType:
        """What stands on the terminal now."""
        if not self._title:
            return Text()
        bar = ProgressBar(total=self._total, completed=self._done, width=30, pulse=self._total is None)
        head = Table.grid(padding=(0, 1))
        count = f"{self._done} of {self._total or '?'}"
        head.add_row(self._cut(self._title), bar, count, self._left(), self._cut(self._note))
        lines: list[RenderableType] = [head]
        # The search's own thread may put another in its place.
        if (standing := self._standing) is not None:
            under_way = standing.under_way()
            texts = [standing.facts(), *([f"last: {last}"] if (last := standing.latest()) else [])]
            texts += [
                f"{duration(seconds):>8}  trial {number} {text}"
                for number, text, seconds in under_way[:SHOWN]
            ]
            texts += [f"{len(under_way) - SHOWN:>8}  more"] if len(under_way) > SHOWN else []
            lines += [self._cut(f"  {text}") for text in texts]
        return Group(*lines)

    @staticmethod
    def _cut(text: str) -> Text:
        return Text(text, no_wrap=True, overflow="ellipsis")

    def _line(self) -> str:
        parts = [f"{self._title}: {self._done} of {self._total or '?'}", self._note]
        if self._standing is not None:
            under_way = self._standing.under_way()
            # Without their texts, which fill a line each.
            numbers = [f"{number} for {duration(seconds)}" for number, _, seconds in under_way[:SHOWN]]
            more = f" and {len(under_way) - SHOWN} more" if len(under_way) > SHOWN else ""
            parts += [self._standing.latest(), self._standing.facts()]
            parts += [f"under way: trials {', '.join(numbers)}{more}"] if numbers else []
        return "  " + "  ".join(one for one in [*parts, self._left()] if one)

    def _left(self) -> str:
        if self._done == self._total:
            return ""
        if self._standing is not None:
            seconds = self._standing.seconds_left()
        else:
            began, before = self._began
            known = self._total is not None and self._done > before
            each = (self._clock() - began) / (self._done - before) if known else 0.0
            seconds = each * ((self._total or 0) - self._done) if known else None
        return "" if seconds is None else f"about {duration(seconds)} left"
