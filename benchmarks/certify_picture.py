"""The picture of ``certify.py``: curves over evaluations, a line and a band for every controller, as one SVG file."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean, stdev

from nas.report.ranking import student_t_quantile

FLOOR = 1e-3
"""Points of regret or share of hypervolume: the bottom of the picture, where means of zero lie too."""
COLOURS = (
    "#59616b",
    "#111111",
    "#ad5208",
    "#6a4ba3",
    "#3f6b2f",
    "#8a6d00",
    "#d07fb0",
    "#3b6fb6",
    "#b3304f",
    "#e08a8a",
    "#0b6b7d",
    "#5cc3d6",
    "#7d3c1e",
    "#1f8a5b",
    "#9a9a3a",
    "#c23bd1",
    "#5a5ae0",
    "#b98f5f",
)
ACROSS = 2
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 380, 58, 12, 34, 44


def picture(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Panels, two beside each other, with one legend below.

    Args:
        panels: title -> controller -> regret in points, or missing hypervolume, after 1, 2, ... evaluations, a row
            for each seed.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    columns = min(len(panels), ACROSS)
    width, below = WIDTH * columns, HEIGHT * math.ceil(len(panels) / ACROSS)
    rows = math.ceil(len(names) / (3 * columns))
    parts = []
    for place, (title, curves) in enumerate(panels.items()):
        row, column = divmod(place, ACROSS)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">')
        parts += [_panel(title, curves, colours), "</g>"]
    for place, name in enumerate(names):
        row, column = divmod(place, 3 * columns)
        x, y = LEFT + column * 178, below + 14 + 20 * row
        parts.append(
            f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke="{colours[name]}" stroke-width="3"/>'
        )
        parts.append(_text(x + 28, y, name))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {below + 20 * rows + 10}" role="img" '
        f'aria-label="what searches have found over evaluations" font-family="sans-serif" font-size="12" '
        f'fill="#1d2126">'
    )
    return "\n".join([head, f'<rect width="{width}" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])


def _panel(title: str, curves: Mapping[str, Sequence[Sequence[float]]], colours: Mapping[str, str]) -> str:
    length = max(len(seeds[0]) for seeds in curves.values())
    high = 10.0 ** math.ceil(
        math.log10(max(fmean(column) for s in curves.values() for column in zip(*s, strict=True)))
    )

    def x(count: float) -> float:
        return LEFT + (count - 1) / max(length - 1, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = math.log10(max(value, FLOOR) / FLOOR) / math.log10(high / FLOOR)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    parts = [_text(LEFT, 20, title, weight="600")]
    for power in range(round(math.log10(FLOOR)), round(math.log10(high)) + 1):
        at, label = y(10.0**power), f"{10.0**power:g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e3e0da"/>')
        # No logarithm reaches zero.
        parts.append(_text(LEFT - 6, at + 4, f"≤ {label}" if 10.0**power <= FLOOR else label, anchor="end"))
    for count in range(0, length + 1, 50):
        parts.append(_text(x(max(count, 1)), HEIGHT - BOTTOM + 18, str(max(count, 1)), anchor="middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 8, "distinct architectures evaluated", anchor="end"))
    for name, seeds in curves.items():
        columns = list(zip(*seeds, strict=True))
        means = [fmean(column) for column in columns]
        reach = [_reach(column) for column in columns]
        upper = [(x(n), y(m + r)) for n, (m, r) in enumerate(zip(means, reach, strict=True), 1)]
        lower = [(x(n), y(m - r)) for n, (m, r) in enumerate(zip(means, reach, strict=True), 1)]
        line = [(x(n), y(m)) for n, m in enumerate(means, 1)]
        parts.append(f'<path d="{_path(upper + lower[::-1])}z" fill="{colours[name]}" fill-opacity="0.12"/>')
        parts.append(f'<path d="{_path(line)}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
    return "\n".join(parts)


def _reach(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean; nothing of a single value."""
    if len(values) < 2:
        return 0.0
    return student_t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A step or a slope is told by its ends: points between equal heights are left out."""
    kept = [
        point
        for place, point in enumerate(points)
        if place in (0, len(points) - 1)
        or not abs(points[place - 1][1] - point[1]) < 0.05
        or not abs(points[place + 1][1] - point[1]) < 0.05
    ]
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in kept)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )
