"""One page of effective receptive fields: a row a level, a column an architecture."""

from collections.abc import Mapping, Sequence

from nas.report.data import ErfLevel
from nas.report.fields import erf_map
from nas.report.formatting import escape
from nas.report.markup import card, legend
from nas.report.style import CSS


def render_fields(found: Mapping[str, Sequence[ErfLevel]], *, canvas: int) -> str:
    """The page as text.

    Args:
        found: name of an architecture -> its levels.
        canvas: side of the maps in px.
    """
    names = list(found)
    levels = [level.level for level in next(iter(found.values()))] if found else []
    rows = [
        f'<div class="erf-level"><h3>{escape(level.upper())}</h3>'
        + "".join(
            erf_map(name, "baseline" if name == names[0] else "winner", one, canvas)
            for name in names
            for one in found[name]
            if one.level == level
        )
        + "</div>"
        for level in levels
    ]
    keys = legend(
        [("soft", "line", "anchor of the level"), ("soft", "dashed", "theoretical receptive field")]
    )
    title = "Effective receptive fields: " + ", ".join(names)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f'<header class="top"><h1>{escape(title)}</h1><p class="meta">random weights, BN statistics from noise, '
        f"canvas {canvas} px, square root of the magnitude</p></header>\n<main>"
        + card(f'{keys}<div class="erf" style="--levels:{len(levels)}">{"".join(rows)}</div>')
        + "</main>\n</body>\n</html>\n"
    )
