"""Figures as a person says them, and lines for one who waits."""

import sys


def duration(seconds: float, *, fine: bool = False) -> str:
    """A time: ``12 s``, ``4.5 min``, ``3.2 h``, ``2.1 d``.

    Args:
        seconds: of it.
        fine: below ten seconds with two digits.
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit != "d" and seconds >= size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if fine and seconds < 10 else f"{seconds:.0f} s"


def tell(text: str) -> None:
    """A line for a person who waits, on standard error, for standard output belongs to a result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
