"""One self-contained HTML page from ``ReportData``: no script, no font, no file from outside."""

import json
from pathlib import Path

from nas.report import evidence, fields, outcome, provenance
from nas.report.data import ReportData
from nas.report.formatting import escape
from nas.report.style import CSS
from search_spaces.errors import RunError
from search_spaces.files import write_atomic

PAGE_FILE = "report.html"
DATA_FILE = "report.json"

_CONTENTS = (
    ("table", "Results"),
    ("networks", "Networks"),
    ("candidates", "Candidates"),
    ("history", "History"),
    ("erf", "Receptive fields"),
    ("detections", "Detections"),
    ("curves", "Retraining"),
    ("ranks", "Ranking"),
    ("cost", "Cost"),
    ("data", "Data"),
    ("repeat", "Repeat"),
    ("next", "Next"),
)


def render(report: ReportData) -> str:
    """The whole page as text; the same data gives the same text."""
    sections = (
        outcome.comparison(report),
        outcome.ablations(report),
        outcome.networks(report),
        evidence.candidates(report),
        evidence.history(report),
        fields.receptive_fields(report),
        fields.detections(report),
        outcome.curves(report),
        evidence.ranks(report),
        evidence.cost(report),
        provenance.data(report),
        provenance.reproduction(report),
        provenance.next_steps(report),
    )
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in _CONTENTS)
    state = "" if report.state == "complete" else f" · {escape(report.state)}"
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}: {escape(report.verdict().sentence)}</title>",
            f"<style>{CSS}</style>\n</head>\n<body>",
            f'<header class="top"><h1>{escape(report.title)}</h1>',
            f'<p class="meta">{escape(report.run)} · {escape(report.created)}{state}</p></header>\n<main>',
            outcome.headline(report),
            f'<nav aria-label="Sections">{links}</nav>',
            *sections,
            "</main>",
            f"<footer>The numbers of this page are in {DATA_FILE} beside it. Written by vertebra.</footer>",
            "</body>\n</html>\n",
        )
    )


def write_report(report: ReportData, directory: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into a run directory, each whole or not at all.

    Returns:
        The path of the page.
    """
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(directory / DATA_FILE, text.encode())
    write_atomic(directory / PAGE_FILE, render(report).encode())
    return directory / PAGE_FILE


def read_report(directory: Path) -> ReportData:
    """Read ``report.json`` back.

    Raises:
        RunError: the file is missing or is no report.
    """
    path = directory / DATA_FILE
    try:
        return ReportData.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RunError(f"no {DATA_FILE} in {directory}; write it with `nas report {directory}`") from None
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is no JSON ({error}); write it again with `nas report {directory}`"
        ) from error
