"""The few HTML shapes that every section uses; arguments called ``html`` are markup, others plain text."""

from collections.abc import Sequence

from nas.report.formatting import escape


def section(*, anchor: str, title: str, lead: str, html: str) -> str:
    """A titled part of the page; ``lead`` is one or two sentences on how to read it."""
    lead_html = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    heading = f'<h2 id="{anchor}-title">{escape(title)}</h2>'
    return f'<section id="{anchor}" aria-labelledby="{anchor}-title">{heading}{lead_html}{html}</section>'


def missing(text: str, command: str | None = None) -> str:
    """What stands in place of a part that the run has not produced: why, and what produces it."""
    how = f" <code>{escape(command)}</code>" if command else ""
    return f'<p class="missing">{escape(text)}{how}</p>'


def card(html: str) -> str:
    """A quiet frame around one thing."""
    return f'<div class="card">{html}</div>'


def who(name: str, role: str) -> str:
    """A contender's name with its colour."""
    return f'<span class="who {role}">{escape(name)}</span>'


def note(text: str, *, warning: bool = False) -> str:
    """Small print under a figure."""
    return f'<p class="note{" warn" if warning else ""}">{escape(text)}</p>'


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """Keys of a chart as (role, shape, text); beside the shapes of a mark, ``"line"`` and ``"dashed"``."""
    items = "".join(f"<li>{_key(role, shape)}{escape(text)}</li>" for role, shape, text in entries)
    return f'<ul class="legend">{items}</ul>'


def _key(role: str, shape: str) -> str:
    drawn = {
        "circle": f'<circle class="f-{role}" cx="8" cy="8" r="5"/>',
        "diamond": f'<path class="f-{role}" d="M8 2l6 6-6 6-6-6z"/>',
        "ring": f'<circle class="n s-{role} key" cx="8" cy="8" r="4.5"/>',
        "line": f'<path class="n s-{role} key" d="M1 8h14"/>',
        "dashed": f'<path class="n s-{role} key" stroke-dasharray="3 2.5" d="M1 8h14"/>',
    }[shape]
    return f'<svg viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>'


def facts(entries: Sequence[tuple[str, str]]) -> str:
    """Pairs of name and markup as a description list."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{html}</dd>" for name, html in entries) + "</dl>"


def commands(lines: Sequence[str]) -> str:
    """Commands to be copied; long ones wrap between words, never inside ``--option``."""
    wrapped = (" ".join(f"<span>{escape(word)}</span>" for word in line.split(" ")) for line in lines)
    return (
        "<pre><code>" + "".join(f'<span class="command">{line}</span>' for line in wrapped) + "</code></pre>"
    )


def listing(text: str) -> str:
    """A file's text as it is."""
    return f"<pre><code>{escape(text.rstrip())}</code></pre>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table; heads and cells are markup, the first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{html}</th>' for html in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{html}</td>" for html in row[1:])}</tr>'
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def folded(title: str, html: str, *, unfolded: bool = False) -> str:
    """A part that opens on demand."""
    return f"<details{' open' if unfolded else ''}><summary>{escape(title)}</summary>{html}</details>"


def bullets(lines: Sequence[str]) -> str:
    """A plain list."""
    return '<ul class="plain">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
