"""The picture of ``proof.py``: tau-b of every way to order the networks, beside the highest that the truth allows."""

from collections.abc import Mapping
from html import escape
from typing import Any

ROW, LEFT, WIDTH, TOP, RIGHT = 22, 590, 1160, 44, 24
INK, SOFT, MEAN, LIMIT = "#1d2126", "#8a939e", "#3b6fb6", "#ad5208"


def picture(arms: Mapping[str, Mapping[str, Any]], ceiling: float | None) -> str:
    """An SVG: a row for each arm, the best first.

    Args:
        arms: name -> its ``tau`` of each seed and its ``mean_tau`` with an interval over networks.
        ceiling: the tau of a proxy without error; None where it is not known.
    """
    known = [(name, one) for name, one in arms.items() if one["mean_tau"]["value"] is not None]
    ordered = sorted(known, key=lambda pair: -float(pair[1]["mean_tau"]["value"]))
    height = TOP + ROW * len(ordered) + 30
    bottom = TOP + ROW * len(ordered)
    parts = []
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = _x(tick)
        shade = INK if tick == 0.0 else "#d5dae0"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom}" stroke="{shade}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    if ceiling is not None:
        x = _x(ceiling)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP - 14}" y2="{bottom}" stroke="{LIMIT}" stroke-dasharray="5 4"/>'
        )
        parts.append(
            f'<text x="{x}" y="{TOP - 20}" text-anchor="middle" fill="{LIMIT}">without error: {ceiling:.2f}</text>'
        )
    for place, (name, one) in enumerate(ordered):
        y = TOP + ROW * place + 8
        mean = one["mean_tau"]
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if mean["low"] is not None:
            parts.append(
                f'<line x1="{_x(mean["low"])}" x2="{_x(mean["high"])}" y1="{y}" y2="{y}" stroke="{MEAN}" '
                'stroke-width="2"/>'
            )
        parts += [f'<circle cx="{_x(tau)}" cy="{y}" r="3" fill="{SOFT}"/>' for tau in one["tau"]]
        parts.append(f'<circle cx="{_x(mean["value"])}" cy="{y}" r="4.5" fill="{MEAN}"/>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="tau-b of each proxy" font-family="sans-serif" font-size="12" fill="{INK}">'
    )
    return "\n".join(
        [head, f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>', *parts, "</svg>", ""]
    )


def _x(tau: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (tau + 1.0) / 2.0, 1)
