"""Charts as inline SVG, each drawn twice, for a phone and for a desk, so that its letters keep their size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.report.formatting import escape, plain

PHONE_WIDTH, HALF_WIDTH, FULL_WIDTH = 326, 458, 986
"""User units of a chart: on a phone, in one of two columns on a desk, and across both."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point of a chart.

    Args:
        x: horizontal value, in the axis's unit.
        y: vertical value.
        title: what hovering shows and a screen reader says.
        role: ``"winner"``, ``"baseline"``, ``"random"`` or ``"soft"``, its colour.
        shape: ``"circle"``, ``"diamond"`` or ``"ring"``.
        label: text drawn beside it; empty for most.
        large: drawn larger, above the others.
    """

    x: float
    y: float
    title: str = ""
    role: str = "soft"
    shape: str = "circle"
    label: str = ""
    large: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A polyline; ``thin`` for one seed among many, ``stepped`` for a running best."""

    points: tuple[tuple[float, float], ...]
    role: str
    thin: bool = False
    stepped: bool = False
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis over ``low`` to ``high`` with its name; ``tick`` writes a number."""

    low: float
    high: float
    name: str
    tick: Callable[[float], str] = plain

    def ticks(self, wanted: int) -> list[float]:
        """Round numbers inside the axis, as near to ``wanted`` of them as round steps allow."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / wanted))
        steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
        return min((self._multiples(step) for step in steps), key=lambda found: abs(len(found) - wanted))

    def _multiples(self, step: float) -> list[float]:
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of an interval chart; a missing number is not drawn."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    role: str


def axis_over(values: Sequence[float], name: str, *, tick: Callable[[float], str] = plain) -> Axis:
    """An axis that holds all values with some air; a single value gets room on both sides."""
    low, high = min(values), max(values)
    air = 0.07 * (high - low) or max(abs(high) * 0.05, 1e-3)
    return Axis(low=low - air, high=high + air, name=name, tick=tick)


def responsive(draw: Callable[[int], str], *, desk: int = HALF_WIDTH) -> str:
    """The same chart at both widths; the style sheet shows one of them."""
    return f'<div class="phone">{draw(PHONE_WIDTH)}</div><div class="desk">{draw(desk)}</div>'


def chart(
    *, x: Axis, y: Axis, marks: Sequence[Mark] = (), lines: Sequence[Line] = (), title: str, width: int
) -> str:
    """Points and lines over two axes, as SVG of ``width`` user units."""
    height = 250 if width <= PHONE_WIDTH else 300 if width <= HALF_WIDTH else 380
    left, right, top, bottom = 44, width - 12, 24, height - 40

    def place(px: float, py: float) -> tuple[float, float]:
        return (
            left + (px - x.low) / (x.high - x.low) * (right - left),
            bottom - (py - y.low) / (y.high - y.low) * (bottom - top),
        )

    parts = [_text(0, 12, y.name)]
    for value in y.ticks(5):
        _, at = place(x.low, value)
        parts.append(f'<line class="gridline" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(left - 7, at + 4, y.tick(value), anchor="end"))
    for value in x.ticks(max(3, width // 90)):
        at, _ = place(value, y.low)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(_text(at, bottom + 17, x.tick(value), anchor="middle"))
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text(right, height - 5, x.name, anchor="end"))
    parts += [_line(line, place) for line in lines]
    parts += [_mark(mark, *place(mark.x, mark.y)) for mark in sorted(marks, key=lambda mark: mark.large)]
    labelled = [(mark, *place(mark.x, mark.y)) for mark in marks if mark.label]
    return _svg(width, height, title, parts + _labels(labelled, right=right, top=top))


def intervals(
    rows: Sequence[Estimate],
    *,
    axis: Axis,
    width: int,
    row_height: int = 50,
    ends: tuple[str, str] = ("", ""),
) -> str:
    """One row an estimate: its name, a dot, and a whisker for the interval.

    Args:
        rows: from top to bottom.
        axis: shared by all rows; a dashed line marks zero.
        width: in user units.
        row_height: in user units.
        ends: what the left and the right end of the axis mean.
    """
    left, right, bottom = 8, width - 8, 4 + row_height * len(rows)

    def place(value: float) -> float:
        inside = min(max(value, axis.low), axis.high)
        return left + (inside - axis.low) / (axis.high - axis.low) * (right - left)

    zero = f'x1="{place(0.0):.1f}" x2="{place(0.0):.1f}" y1="4" y2="{bottom}"'
    parts = [f'<line class="zero" stroke-dasharray="3 3" {zero}/>']
    parts += [
        _text(place(tick), bottom + 16, axis.tick(tick), anchor="middle") for tick in axis.ticks(width // 80)
    ]
    for index, row in enumerate(rows):
        top = 4 + index * row_height
        at = top + (row_height * 0.62 if row.name else row_height * 0.5)
        parts.append(_text(left, top + 14, row.name, style="strong halo"))
        if row.low is not None and row.high is not None:
            reach = f'x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="{at:.1f}" y2="{at:.1f}"'
            parts.append(f'<line class="s-{row.role}" stroke-width="3" stroke-linecap="round" {reach}/>')
        if row.value is not None:
            parts.append(f'<circle class="f-{row.role}" cx="{place(row.value):.1f}" cy="{at:.1f}" r="6.5"/>')
    parts += [_text(left, bottom + 34, ends[0]), _text(right, bottom + 34, ends[1], anchor="end")]
    parts.append(_text((left + right) / 2, bottom + 34, axis.name, anchor="middle"))
    summary = "; ".join(f"{row.name} {plain(row.value)}" for row in rows if row.value is not None)
    return _svg(width, bottom + 38, f"{axis.name} {summary}".strip(), parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return f"{head}{''.join(parts)}</svg>"


def _text(x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> str:
    if not text:
        return ""
    attributes = f'x="{x:.1f}" y="{y:.1f}"'
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    if style:
        attributes += f' class="{style}"'
    return f"<text {attributes}>{escape(text)}</text>"


def _titled(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""


def _line(line: Line, place: Callable[[float, float], tuple[float, float]]) -> str:
    path = []
    for index, (px, py) in enumerate(place(*spot) for spot in line.points):
        if line.stepped and index:
            path.append(f"H{px:.1f}")
        path.append(f"{'L' if index else 'M'}{px:.1f} {py:.1f}")
    weight = 'stroke-width="1.2" opacity="0.4"' if line.thin else 'stroke-width="2.2"'
    attributes = f'class="n s-{line.role}" stroke-linejoin="round" {weight} d="{"".join(path)}"'
    return f"<path {attributes}>{_titled(line.title)}</path>"


def _mark(mark: Mark, px: float, py: float) -> str:
    radius = 6.0 if mark.large else 3.6
    if mark.shape == "diamond":
        r = radius * 1.25
        shape = f'path d="M{px:.1f} {py - r:.1f}l{r:.1f} {r:.1f}-{r:.1f} {r:.1f}-{r:.1f}-{r:.1f}z"'
    else:
        shape = f'circle cx="{px:.1f}" cy="{py:.1f}" r="{radius - 0.6 * (mark.shape == "ring"):.1f}"'
    if mark.shape == "ring":
        look = f'class="n s-{mark.role}" stroke-width="1.3"'
    else:
        look = f'class="f-{mark.role}" fill-opacity="{1 if mark.large else 0.6}"'
    return f"<{shape} {look}>{_titled(mark.title)}</{shape.partition(' ')[0]}>"


def _labels(placed: list[tuple[Mark, float, float]], *, right: int, top: int) -> list[str]:
    """Labels beside their marks, on the side with room, one above the other where they would touch."""
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for mark, px, py in sorted(placed, key=lambda entry: entry[2]):
        at = max(py + 4.0, float(top))
        while any(abs(at - other) < 15 and abs(px - other_x) < 130 for other, other_x in taken):
            at += 15
        taken.append((at, px))
        after = px + 11 + 7.5 * len(mark.label) < right
        place, anchor = (px + 11, "start") if after else (px - 11, "end")
        parts.append(_text(place, at, mark.label, anchor=anchor, style=f"f-{mark.role} halo"))
    return parts
