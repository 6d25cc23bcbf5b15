"""Sizes of objects as a histogram over the levels of a pyramid, all on one axis of px, as inline SVG."""

import math
from collections.abc import Callable, Sequence

from nas.report.data_facts import LevelFacts
from nas.report.formatting import count, escape

_STEPS = 4
"""Bars an octave."""
_LEFT, _TOP, _BARS, _ROW = 8, 20, 120, 46


def size_drawing(lengths: Sequence[float], levels: Sequence[LevelFacts], *, width: int) -> str:
    """Bars of objects by length, and below them a row a level: its objects, what it looks for, what it sees.

    Args:
        lengths: of objects in px, at least one, above 0.
        levels: fine to coarse; may be empty.
        width: in user units.
    """
    points = [*lengths]
    for level in levels:
        points += [level.looks_for, float(level.theoretical)]
    low = math.floor(math.log2(min(points)) * _STEPS) / _STEPS
    high = math.ceil((math.log2(max(points)) + 1e-9) * _STEPS) / _STEPS
    high = max(high, low + 1)
    right = width - 8

    def place(length: float) -> float:
        share = (math.log2(max(length, 2**low)) - low) / (high - low)
        return _LEFT + min(max(share, 0.0), 1.0) * (right - _LEFT)

    bins = [0] * round((high - low) * _STEPS)
    for length in lengths:
        bins[min(int((math.log2(length) - low) * _STEPS), len(bins) - 1)] += 1
    base = _TOP + _BARS
    parts = [f'<text x="{_LEFT}" y="12">objects, {count(max(bins))} in the highest bar</text>']
    for index, number in enumerate(bins):
        if number:
            first, last = (2 ** (low + (index + step) / _STEPS) for step in (0, 1))
            height = max(number / max(bins) * _BARS, 1.0)
            parts.append(
                f'<rect class="f-soft" fill-opacity=".55" x="{place(first) + 0.5:.1f}" y="{base - height:.1f}" '
                f'width="{place(last) - place(first) - 1:.1f}" height="{height:.1f}">'
                f"<title>{first:.1f} to {last:.1f} px: {count(number)}</title></rect>"
            )
    bottom = base + 26 + _ROW * len(levels)
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    tick = math.ceil(low - 1e-9)
    while tick <= high + 1e-9:
        at = place(2.0**tick)
        parts.append(f'<line class="gridline" x1="{at:.1f}" x2="{at:.1f}" y1="{base}" y2="{bottom}"/>')
        anchor = "start" if at < _LEFT + 12 else "end" if at > right - 12 else "middle"
        name = f"{2.0**tick:g} px" if tick + 1 > high + 1e-9 else f"{2.0**tick:g}"
        parts.append(f'<text x="{at:.1f}" y="{base + 16}" text-anchor="{anchor}">{name}</text>')
        tick += 1
    for index, level in enumerate(levels):
        parts.append(_row(level, base + 26 + _ROW * index, place))
    title = f"Lengths of {len(lengths)} objects" + "".join(f"; {level.sentence}" for level in levels)
    return f'<svg viewBox="0 0 {width} {bottom + 6}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _row(level: LevelFacts, top: float, place: Callable[[float], float]) -> str:
    at = top + 31
    role = {"short": "baseline", "short in effect": "baseline"}.get(level.verdict, "winner")
    verdict = "" if level.verdict == "enough" else f", {level.verdict.replace('short', 'short of field')}"
    parts = [
        f'<text class="strong halo" x="{_LEFT}" y="{top + 15:.1f}">{escape(level.level)}'
        f"{escape(verdict)}</text>"
    ]
    if level.median is not None and level.low is not None and level.high is not None:
        parts.append(
            f'<line class="s-soft" stroke-width="5" stroke-linecap="round" x1="{place(level.low):.1f}" '
            f'x2="{place(level.high):.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<circle class="f-soft" cx="{place(level.median):.1f}" cy="{at:.1f}" r="6">'
            f"<title>median {level.median:.0f} px of {count(level.objects)}</title></circle>"
        )
    parts.append(
        f'<circle class="n s-soft key" cx="{place(level.looks_for):.1f}" cy="{at:.1f}" r="5">'
        f"<title>looks for {level.looks_for:g} px</title></circle>"
    )
    if level.effective is not None:
        x = place(level.effective)
        parts.append(
            f'<path class="f-{role}" d="M{x:.1f} {at - 7:.1f}l7 7-7 7-7-7z">'
            f"<title>effective field {level.effective:.0f} px</title></path>"
        )
    x = place(float(level.theoretical))
    parts.append(
        f'<path class="n s-{role} key" stroke-dasharray="3 2.5" d="M{x:.1f} {at - 13:.1f}v22">'
        f"<title>theoretical field {level.theoretical} px</title></path>"
    )
    return "".join(parts)
