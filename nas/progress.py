"""What a person sees while a run goes on: phase, trials, best score, time left."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class RunProgress(Protocol):
    """Listener of a run; a run never asks it anything."""

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """A new phase of ``total`` steps begins, ``done`` of which were finished before."""

    def advance(self, done: int, note: str = "") -> None:
        """``done`` steps of the phase are finished."""

    def say(self, text: str) -> None:
        """A line that stays."""


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


class ConsoleProgress:
    """A live bar on a terminal; about one line every ten seconds elsewhere (logs, CI).

    Args:
        stderr: speak there, because standard output belongs to a result.
        clock: seconds.
    """

    def __init__(self, *, stderr: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = Console(file=sys.stderr if stderr else sys.stdout)
        self._clock = clock
        self._live = self.console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._total: int | None = None
        self._began = (0.0, 0)
        self._spoke = 0.0

    def __enter__(self) -> "ConsoleProgress":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._bar.stop()

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """See :class:`RunProgress`."""
        self._title, self._total, self._began, self._spoke = (
            title,
            total,
            (self._clock(), done),
            self._clock(),
        )
        self.console.print(
            f"[bold]{escape(title)}[/bold]" + (f": {done} of {total} done before" if done else "")
        )
        if self._live:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        """See :class:`RunProgress`."""
        if self._live and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif self._clock() - self._spoke >= 10.0 or done == self._total:
            self._spoke = self._clock()
            self.console.print(
                f"  {self._title}: {done} of {self._total or '?'}  {note}  {self._left(done)}",
                highlight=False,
                markup=False,
            )

    def say(self, text: str) -> None:
        """See :class:`RunProgress`."""
        self.console.print(text, highlight=False, markup=False)

    def _left(self, done: int) -> str:
        began, before = self._began
        if self._total is None or done <= before:
            return ""
        seconds = (self._clock() - began) / (done - before) * (self._total - done)
        return f"about {seconds / 60:.1f} min left" if seconds >= 60 else f"about {seconds:.0f} s left"
