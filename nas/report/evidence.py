"""Sections on the search itself: all candidates, its history, what its ranking is worth, what it cost."""

from collections.abc import Callable, Sequence

from nas.report import drawings
from nas.report.data import RankEntry, ReportData, Trial
from nas.report.drawings import Axis, Estimate, Line, Mark, axis_over
from nas.report.formatting import (
    count,
    duration,
    escape,
    large,
    milliseconds,
    plain,
    points,
    several,
    share,
)
from nas.report.markup import bullets, card, folded, legend, missing, note, section, table
from nas.report.rank_report import against_truth
from nas.report.ranking import RankCorrelation, tau_with_interval

_SHAPES = ("circle", "diamond")
_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "macs": ("MACs", large),
    "params": ("parameters", large),
    "latency": ("latency in the baseline's", plain),
}
"""Cost -> its name on an axis, and how a number of it is written."""


def phases_of(report: ReportData) -> list[str]:
    """Phase names in the order in which the search took them."""
    return list(dict.fromkeys(trial.phase for trial in report.trials))


def candidates(report: ReportData) -> str:
    """Score against cost of every complete candidate: the search's own cost objective, drawn with its front, else
    MACs, or parameters where all MACs are equal."""
    scored = [trial for trial in report.trials if trial.value is not None and trial.macs is not None]
    if not scored:
        html = missing("No complete candidate is scored yet:", f"nas resume {report.run}")
        return section(anchor="candidates", title="All candidates", lead="", html=html)
    macs = [trial.macs for trial in scored if trial.macs is not None]
    equal = max(macs) - min(macs) <= 0.01 * max(macs)
    objective = report.cost_objective or ("params" if equal else "macs")
    phases = phases_of(report)
    marks = [_candidate(trial, objective=objective, phases=phases, report=report) for trial in scored]
    name, tick = _COSTS[objective]
    x = axis_over([mark.x for mark in marks], name, tick=tick)
    y = axis_over([mark.y for mark in marks], "score of the proxy, AP")
    keys = [
        ("soft", _shape(phase, phases), phase)
        for phase in phases
        if any(trial.phase == phase for trial in scored)
    ]
    keys += [
        (role, "circle", role) for role in ("winner", "baseline") if any(mark.role == role for mark in marks)
    ]
    members = _members(report)
    lines = []
    if members:
        corners = tuple((_cost(trial, objective), 100 * (trial.value or 0.0)) for trial in members)
        lines.append(Line(points=corners, role="soft", stepped=True, title="Pareto front of the search"))
        keys.append(("soft", "line", "Pareto front of the search"))
    title = f"Score against {name} of {several(len(marks), 'candidate')}"
    drawn = drawings.responsive(
        lambda width: drawings.chart(x=x, y=y, marks=marks, lines=lines, title=title, width=width),
        desk=drawings.FULL_WIDTH,
    )
    html = card(legend(keys) + drawn)
    if len({trial.phase for trial in scored}) > 1 and "stages" in phases:
        html += note("Phases use different supernets: compare heights within a phase, not across.")
    html += _front_table(members, objective)
    html += _two_ranks(scored)
    lead = _candidates_lead(macs, equal=equal, objective=report.cost_objective)
    if report.allocation_chosen_by is not None:
        lead += f" The allocation is chosen by: {report.allocation_chosen_by}."
    return section(anchor="candidates", title="All candidates", lead=lead, html=html)


def _candidates_lead(macs: Sequence[int], *, equal: bool, objective: str | None) -> str:
    complete = several(len(macs), "complete candidate")
    if objective is not None:
        return (
            f"{complete}: score against {_COSTS[objective][0]} of the backbone, the two objectives of this search. "
            "Nothing that the search scored lies above the line. The winner is the highest AP at no more than the "
            "baseline's cost; where nothing is so cheap, of all."
        )
    if not equal:
        return f"{complete}: score against multiply-adds of the backbone."
    same = "exactly" if max(macs) == min(macs) else "within 1 % of"
    return f"{complete}, all of {same} {large(macs[0])} MACs, so the score is drawn against parameters."


def _cost(trial: Trial, objective: str) -> float:
    return float({"macs": trial.macs, "params": trial.params, "latency": trial.latency}[objective] or 0)


def _members(report: ReportData) -> list[Trial]:
    """The trials of the front, cheapest first."""
    searched = {trial.number: trial for trial in report.trials if trial.phase == "search"}
    return [searched[number] for number in report.front]


def _front_table(members: Sequence[Trial], objective: str) -> str:
    if not members:
        return ""
    rows = [
        [
            f"{trial.number} <small>{escape(trial.digest)}</small>",
            points(trial.value or 0.0),
            large(trial.macs or 0),
            large(trial.params or 0),
            "–" if trial.latency is None else f"{trial.latency:.2f} {_around(trial)}",
        ]
        for trial in members
    ]
    body = table(["trial", "AP", "MACs", "parameters", "latency in the baseline's"], rows)
    return folded(f"The front in AP and {_COSTS[objective][0]}: {several(len(members), 'candidate')}", body)


def _two_ranks(scored: Sequence[Trial]) -> str:
    """The candidates of which the mean of two ranks decides, best first."""
    ranked = sorted(
        (trial for trial in scored if trial.mean_rank is not None),
        key=lambda trial: (-(trial.mean_rank or 0.0), trial.number),
    )
    if not ranked:
        return ""
    rows = [
        [
            f"{escape(trial.text)} <small>{trial.number}</small>",
            points(trial.value or 0.0),
            f"{trial.naswot or 0.0:.3f}",
            f"{trial.mean_rank or 0.0:g}",
        ]
        for trial in ranked
    ]
    body = table(["allocation and trial", "AP", "NASWOT", "mean rank"], rows)
    lead = note(
        f"Ranks count from 1 for the lowest to {len(ranked)}, by AP and by NASWOT each; the highest mean is chosen, "
        "the first trial of equals."
    )
    return folded(f"Both numbers of {several(len(ranked), 'allocation')}", body + lead)


def _around(trial: Trial) -> str:
    if trial.latency_ms is None:
        return ""
    low, median, high = trial.latency_ms
    return f"<small>{milliseconds(median)}, {milliseconds(low)} to {milliseconds(high)}</small>"


def _shape(phase: str, phases: Sequence[str]) -> str:
    return _SHAPES[phases.index(phase) % len(_SHAPES)]


def _candidate(trial: Trial, *, objective: str, phases: Sequence[str], report: ReportData) -> Mark:
    role, value = _role(trial, report), trial.value or 0.0
    costs = f"{large(trial.params or 0)} parameters, {large(trial.macs or 0)} MACs"
    return Mark(
        x=_cost(trial, objective),
        y=100 * value,
        title=f"{trial.text}: {points(value)} AP in {trial.phase}, {costs}",
        role=role,
        shape=_shape(trial.phase, phases),
        label=role if role != "soft" else "",
        large=role != "soft",
    )


def _role(trial: Trial, report: ReportData) -> str:
    if report.winner is not None and trial.digest == report.winner.architecture.digest:
        return "winner"
    return "baseline" if trial.digest == report.baseline.architecture.digest else "soft"


def history(report: ReportData) -> str:
    """Score of every trial in its order, with the best so far, phase by phase."""
    title = "The search, trial by trial"
    panels = [panel for phase in phases_of(report) if (panel := _history_panel(report, phase))]
    if not panels:
        html = missing("No trial has finished yet:", f"nas resume {report.run}")
        return section(anchor="history", title=title, lead="", html=html)
    tail = "".join(
        folded(f"{several(len(lines), 'candidate')} {what}", bullets(lines))
        for what, lines in _unscored(report).items()
        if lines
    )
    lead = "The line is the best score so far."
    if any(trial.prefix for trial in report.trials):
        lead += " A ring is a prefix: its undecided blocks were drawn at random, anew for every mini-batch."
    wide = " two" if len(panels) > 1 else ""
    grid = f'<div class="grid{wide}">{"".join(card(panel) for panel in panels)}</div>'
    return section(anchor="history", title=title, lead=lead, html=grid + tail)


def _unscored(report: ReportData) -> dict[str, list[str]]:
    """What became of the trials without a score -> a line each."""
    found: dict[str, list[str]] = {
        "failed": [],
        "stopped on the way by a rung": [],
        "rejected by a limit before anything ran": [],
    }
    for trial in report.trials:
        if trial.state not in ("failed", "pruned"):
            continue
        stopped = "stopped on the way by a rung" if trial.stopped_at is not None else ""
        what = "failed" if trial.state == "failed" else stopped or "rejected by a limit before anything ran"
        found[what].append(f"{trial.phase} {trial.number}, {trial.text}: {trial.reason or 'no reason kept'}")
    return found


def _history_panel(report: ReportData, phase: str) -> str:
    marks, best, line = [], -1.0, []
    for trial in report.trials:
        if trial.phase != phase or trial.value is None:
            continue
        value, role = 100 * trial.value, _role(trial, report)
        marks.append(
            Mark(
                x=trial.number,
                y=value,
                title=f"trial {trial.number}, {trial.text}: {value:.1f} AP",
                role=role,
                shape="ring" if trial.prefix else "circle",
                large=role != "soft",
                label=role if role != "soft" else "",
            )
        )
        best = max(best, value)
        line.append((float(trial.number), best))
    if not marks:
        return ""
    x = axis_over([mark.x for mark in marks], "trial")
    y = axis_over([mark.y for mark in marks], "score of the proxy, AP")
    running = Line(points=tuple(line), role="soft", stepped=True, title="best so far")
    title = f"{phase}: {several(len(marks), 'trial')}, best {best:.1f} AP"
    drawn = drawings.responsive(
        lambda width: drawings.chart(x=x, y=y, marks=marks, lines=[running], title=title, width=width),
        desk=drawings.HALF_WIDTH if len(phases_of(report)) > 1 else drawings.FULL_WIDTH,
    )
    return f"<h3>{escape(title)}</h3>{drawn}"


def ranks(report: ReportData) -> str:
    """Whether the supernet orders networks as training them alone does, beside parameters and MACs."""
    title = "Is the ranking worth something?"
    check, truth = report.ranks, against_truth(report.truth)
    if (check is None or len(check.entries) < 2) and truth:
        lead = "Networks of this search that were trained alone beforehand, under several seeds, are the truth here."
        return section(anchor="ranks", title=title, lead=lead, html=truth)
    if check is None or len(check.entries) < 2:
        html = missing(
            "The supernet's ranking has not been checked in this run. To train thirteen allocations alone for a short "
            "time and compare:",
            f"nas report {report.run} --check 13",
        )
        return section(anchor="ranks", title=title, lead="", html=html)
    entries = check.entries
    alone = [entry.alone for entry in entries]
    taus = [
        ("Supernet score", tau_with_interval([entry.supernet for entry in entries], alone), "winner"),
        ("Parameters", tau_with_interval([float(entry.params) for entry in entries], alone), "soft"),
        ("MACs", tau_with_interval([float(entry.macs) for entry in entries], alone), "soft"),
    ]
    html = (
        f'<div class="grid two">{card(_rank_scatter(entries, report))}{card(_rank_intervals(taus))}</div>'
        + note(f"{check.how} Whiskers: 95 % intervals over networks, by the jackknife.")
        + "".join(note(warning, warning=True) for warning in _warnings(taus))
        + _rank_table(entries)
        + truth
    )
    lead = f"{len(entries)} allocations were trained alone for a short time. {_rank_sentence(taus)}"
    return section(anchor="ranks", title=title, lead=lead, html=html)


def _rank_sentence(taus: Sequence[tuple[str, RankCorrelation, str]]) -> str:
    supernet = taus[0][1]
    if supernet.value is None:
        return "One of the two lists is constant, so there is no order to compare."
    if supernet.low is None or supernet.high is None:
        return f"Kendall's tau with the supernet's scores is {_two(supernet.value)}, and there is no interval of it."
    number = (
        f"Kendall's tau with the supernet's scores is {_two(supernet.value)}, 95 % interval "
        f"{_two(supernet.low)} to {_two(supernet.high)}:"
    )
    if supernet.low <= 0 <= supernet.high:
        return f"{number} it holds zero, so this does not show that the supernet orders them at all."
    if supernet.high < 0:
        return f"{number} the supernet orders them worse than chance."
    better = [name for name, tau, _ in taus[1:] if tau.value is not None and tau.value > supernet.value]
    rival = f" Yet {better[0].lower()} alone would have ordered them better." if better else ""
    return f"{number} the supernet orders them better than chance.{rival}"


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _warnings(taus: Sequence[tuple[str, RankCorrelation, str]]) -> list[str]:
    found = (tau.warning for _, tau, _ in taus if tau.warning is not None and tau.value is not None)
    return list(dict.fromkeys(f"Warning: {warning}." for warning in found))


def _rank_scatter(entries: Sequence[RankEntry], report: ReportData) -> str:
    winner = report.winner.architecture.digest if report.winner is not None else None
    roles = {winner: "winner", report.baseline.architecture.digest: "baseline"}
    marks = [
        Mark(
            x=100 * entry.supernet,
            y=100 * entry.alone,
            title=f"{entry.text}: supernet {points(entry.supernet)}, alone {points(entry.alone)} AP",
            role=roles.get(entry.digest, "soft"),
            large=entry.digest in roles,
            label=roles.get(entry.digest, ""),
        )
        for entry in entries
    ]
    x = axis_over([mark.x for mark in marks], "score in the supernet, AP")
    y = axis_over([mark.y for mark in marks], "trained alone, AP")
    return "<h3>Supernet against trained alone</h3>" + drawings.responsive(
        lambda width: drawings.chart(
            x=x, y=y, marks=marks, title="AP trained alone against the supernet's score", width=width
        )
    )


def _rank_intervals(taus: Sequence[tuple[str, RankCorrelation, str]]) -> str:
    rows = [
        Estimate(
            name=f"{name}: {_two(tau.value)}" if tau.value is not None else f"{name}: all equal, no order",
            value=tau.value,
            low=tau.low,
            high=tau.high,
            role=role,
        )
        for name, tau, role in taus
    ]
    axis, ends = Axis(low=-1.0, high=1.0, name=""), ("reversed", "same order")
    return "<h3>Kendall's tau-b with AP trained alone</h3>" + drawings.responsive(
        lambda width: drawings.intervals(rows, axis=axis, width=width, row_height=74, ends=ends)
    )


def _rank_table(entries: Sequence[RankEntry]) -> str:
    rows = [
        [escape(entry.text), points(entry.supernet), points(entry.alone), large(entry.params)]
        for entry in sorted(entries, key=lambda entry: -entry.alone)
    ]
    body = table(["allocation", "supernet", "alone", "parameters"], rows)
    return folded(f"The {len(entries)} allocations", body)


def cost(report: ReportData) -> str:
    """Seconds, images and multiply-adds of every phase."""
    if not report.cost:
        html = missing("No phase has finished, so no cost is known yet:", f"nas resume {report.run}")
        return section(anchor="cost", title="What the search cost", lead="", html=html)
    seconds = sum(phase.seconds for phase in report.cost)
    rows = [
        [
            escape(phase.name),
            f"{duration(phase.seconds)} <small>{share(phase.seconds, seconds)}</small>",
            count(phase.images),
            large(phase.macs),
            "–" if phase.trials is None else count(phase.trials),
            "–" if phase.steps is None else count(phase.steps),
        ]
        for phase in report.cost
    ]
    rows.append(
        [
            "<strong>all</strong>",
            f"<strong>{duration(seconds)}</strong>",
            count(sum(phase.images for phase in report.cost)),
            large(sum(phase.macs for phase in report.cost)),
            count(sum(phase.trials or 0 for phase in report.cost)),
            "",
        ]
    )
    return section(
        anchor="cost",
        title="What the search cost",
        lead="Images seen and multiply-adds spent hold on any machine; seconds are this machine's.",
        html=card(table(["phase", "time", "images", "MACs", "trials", "steps"], rows))
        + note(
            "MACs are the backbone's; an image trained on counts as three forward passes. Steps are counted where "
            "candidates are trained one by one, those of stopped ones included."
        ),
    )
