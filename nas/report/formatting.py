"""Numbers as people read them; every text that enters the page passes ``escape``."""

import html
from collections.abc import Sequence

import numpy as np


def escape(text: object) -> str:
    """Text made safe for HTML and SVG, quotes included."""
    return html.escape(str(text), quote=True)


def points(fraction: float, digits: int = 1) -> str:
    """A COCO fraction in points, with a true minus sign."""
    return f"{100 * fraction:.{digits}f}".replace("-", "−")


def spread(fractions: Sequence[float]) -> str | None:
    """Standard deviation over seeds in points (n - 1); ``None`` under two."""
    return points(float(np.std(fractions, ddof=1))) if len(fractions) > 1 else None


def plain(number: float) -> str:
    """A number without needless digits, with a true minus sign."""
    return f"{number:.4g}".replace("-", "−")


def signed(number: float) -> str:
    """A number with its sign, zero without."""
    return "0" if abs(number) < 1e-9 else f"{'+' if number > 0 else ''}{plain(number)}"


def several(number: int, noun: str) -> str:
    """A count and its noun, in the plural where needed."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def count(number: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def large(number: float, unit: str = "") -> str:
    """Three significant digits with k, M, G, T or P."""
    for scale, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * scale:
            return f"{_three_digits(number / scale)}\u00a0{letter}{unit}"
    return f"{_three_digits(number)}{chr(160) + unit if unit else ''}"


def mebibytes(size: int) -> str:
    """Bytes in MiB."""
    return f"{_three_digits(size / 2**20)}\u00a0MiB"


def milliseconds(value: float) -> str:
    """Milliseconds with three digits."""
    return f"{_three_digits(value)}\u00a0ms"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, the two largest parts."""
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s" if seconds < 10 else f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min\u00a0{rest}\u00a0s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h\u00a0{minutes}\u00a0min"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return f"{100 * part / whole:.0f}\u00a0%" if whole else "0\u00a0%"


def _three_digits(number: float) -> str:
    digits = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{number:.{digits}f}".replace("-", "−")
