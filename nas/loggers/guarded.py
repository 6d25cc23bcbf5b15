"""A logger that can fail, be slow or hang without a search noticing."""

import queue
import threading
import time
from collections.abc import Callable, Sequence

from nas.loggers.base import About, Ending, RunLogger, Scalar
from nas.loggers.metrics_tail import MetricsTail

LOOK = 2.0
"""Seconds between two looks at the files of trainings."""
MOST = 10_000
"""Numbers in one call, more or less."""
FAREWELL = 60.0
"""Seconds that loggers may take to their end when the run has ended."""


class Guarded:
    """A logger in a thread of its own; an error is said once and switches it off.

    Args:
        name: for messages.
        logger: gets the numbers.
        about: the run.
        say: gets lines for the person who looks on.
    """

    def __init__(self, name: str, logger: RunLogger, about: About, say: Callable[[str], None]) -> None:
        self.name, self._logger, self._about, self._say = name, logger, about, say
        self._events: queue.SimpleQueue[Sequence[Scalar] | MetricsTail | Ending] = queue.SimpleQueue()
        self._tails: list[MetricsTail] = []
        self._off = threading.Event()
        # A daemon, so that one that hangs does not keep the program from its end.
        self._thread = threading.Thread(target=self._carry_out, name=f"logger {name}", daemon=True)
        self._thread.start()

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        """Hand numbers over."""
        if not self._off.is_set():
            self._events.put(scalars)

    def training(self, tail: MetricsTail) -> None:
        """Have a file looked at from now on."""
        if not self._off.is_set():
            self._events.put(tail)

    def end(self, ending: Ending) -> None:
        """There is nothing more to come."""
        self._events.put(ending)

    def wait(self, until: float) -> None:
        """Until everything is written, but no longer than until then by the monotonic clock."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._say(
                f"warning: the logger {self.name} is not done {FAREWELL:g} s after the run and is left; the run's own "
                "files are complete"
            )

    def _carry_out(self) -> None:
        try:
            self._logger.begin(self._about)
            ending: Ending | None = None
            while ending is None:
                found, ending = self._waiting()
                # What a training wrote until now, its last line included when the run has ended.
                found += [one for tail in self._tails for one in tail.new()]
                if found:
                    self._logger.scalars(found)
            self._logger.end(ending)
        except (Exception, SystemExit) as error:
            # Whatever somebody else's package raises, it must not be the end of a search.
            self._off.set()
            reason = " ".join(str(error).split())
            self._say(
                f"warning: the logger {self.name} is switched off, the run goes on: {type(error).__name__}"
                + (f": {reason}" if reason else "")
            )

    def _waiting(self) -> tuple[list[Scalar], Ending | None]:
        """All that was handed over, after waiting for the first of it."""
        found: list[Scalar] = []
        patience: float | None = LOOK
        while len(found) < MOST:
            try:
                event = self._events.get(timeout=patience)
            except queue.Empty:
                return found, None
            patience = 0.0
            if isinstance(event, MetricsTail):
                self._tails.append(event)
            elif isinstance(event, str):
                return found, event
            else:
                found += event
        return found, None
