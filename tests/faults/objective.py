"""What is searched when searches are disturbed: a function of six digits; each call logs a line at its begin and end.

It needs nothing but Python, so that other systems can be given the very same one.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GENES, OPTIONS = 6, 10
"""A million points: that one is drawn twice by chance is rare."""


def key_of(values: Sequence[int]) -> str:
    """A point as one word."""
    return "-".join(map(str, values))


def evaluate(
    values: Sequence[int], log: Path, seconds: float, trouble: Callable[[], None] | None = None
) -> float:
    """The point's score, after so many seconds.

    Args:
        values: each from 1 to 10.
        log: gets ``begin PID KEY CLOCK`` and ``end PID KEY CLOCK``, with the machine's clock in seconds.
        seconds: slept in between.
        trouble: happens in the middle.
    """
    key = key_of(values)
    note(log, f"begin {os.getpid()} {key} {time.monotonic():.3f}")
    time.sleep(seconds / 2)
    if trouble is not None:
        trouble()
    time.sleep(seconds / 2)
    note(log, f"end {os.getpid()} {key} {time.monotonic():.3f}")
    return sum((place + 1.5) * ((7 * value + 3 * place) % 11) for place, value in enumerate(values))


def note(log: Path, line: str) -> None:
    """Append a line in one write, so that lines of several processes do not mix."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def lines_of(log: Path) -> list[list[str]]:
    """The words of every line so far."""
    text = log.read_text() if log.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
