"""Sections on what came out: the verdict, the table, the networks, their retraining."""

from typing import Protocol

from nas.report import drawings, graph_drawing, network_drawing
from nas.report.data import Contender, Memory, Metrics, ReportData
from nas.report.drawings import Axis, Estimate, Line
from nas.report.formatting import escape, large, mebibytes, milliseconds, points, several, signed, spread
from nas.report.markup import card, legend, missing, note, section, who
from nas.report.ranking import paired_difference
from nas.report.verdict import Verdict
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.targets import bare
from trainers.curves import rise_over_last_quarter

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_NARROW = 3
"""So many networks beside each other fit a phone; a table of more is scrolled there."""
_LEVELLED = 0.05
"""A retraining whose AP rises less than this share over its last quarter counts as long enough."""


class _Drawing(Protocol):
    """A module that draws the networks of a family; ``LEAD`` says how to read its drawing."""

    LEAD: str

    def network(self, contender: Contender, *, role: str, other: Contender | None, width: int) -> str: ...

    def caption(self, contender: Contender) -> str: ...


_DRAWINGS: dict[str, _Drawing] = {
    "crnas.resnet": network_drawing,
    "crnas.mobilenetv2": network_drawing,
    "spinenet": graph_drawing,
    "spinenet.mobile": graph_drawing,
}
"""Family of an architecture -> what draws it."""


def contenders(report: ReportData) -> list[tuple[str, Contender]]:
    """(role, contender) in the order of the table, absent ones left out."""
    every = [("winner", report.winner), ("baseline", report.baseline), ("random", report.random)]
    every += [("hand", contender) for contender in report.hand_made]
    return [(role, contender) for role, contender in every if contender is not None]


def headline(report: ReportData) -> str:
    """The verdict, and the interval it rests on as a picture."""
    verdict = report.verdict()
    how = ""
    if verdict.kind == "searching":
        how = missing("Continue the search with", f"nas resume {report.run}")
    elif verdict.kind == "untrained":
        how = missing("Train both and write this page again with", f"nas resume {report.run}")
    sentence = (
        f'<p class="sentence">{escape(verdict.sentence)}</p><p class="detail">{escape(verdict.detail)}</p>'
    )
    notes = "".join(note(text, warning=True) for text in report.notes)
    return (
        f'<section class="verdict" id="verdict" aria-label="Verdict">{sentence}{_interval(verdict)}{how}{notes}'
        "</section>"
    )


def _interval(verdict: Verdict) -> str:
    difference = verdict.difference
    if difference is None or difference.low is None or difference.high is None:
        return ""
    low, value, high = (100 * number for number in (difference.low, difference.mean, difference.high))
    reach = 1.15 * max(abs(low), abs(high), 0.2)
    axis = Axis(low=-reach, high=reach, name="AP points", tick=signed)
    role = "baseline" if verdict.keep_baseline else "winner"
    row = Estimate(name="", value=value, low=low, high=high, role=role)
    ends = ("baseline better", "winner better")
    return card(
        drawings.responsive(
            lambda width: drawings.intervals([row], axis=axis, width=width, row_height=34, ends=ends),
            desk=568,
        )
    )


def comparison(report: ReportData) -> str:
    """The table of winner, baseline and best random."""
    present = contenders(report)
    seeds = sorted({result.seed for _, contender in present for result in contender.results})
    if seeds:
        tail = note(
            "AP on the validation images in points, mean ± standard deviation over seeds: "
            + "; ".join(
                f"{contender.name} {', '.join(map(str, sorted(contender.ap_by_seed)))}"
                for _, contender in present
                if contender.results
            )
            + "."
        )
    else:
        tail = missing(
            "Nothing is trained to completion yet. Train winner and baseline with", f"nas resume {report.run}"
        )
    if report.random is None:
        tail += note("No random search of equal budget was run beside this one.")
    else:
        tail += note(
            "Best random: of as many random candidates as the last step of the search scored (where rungs stop "
            "candidates, of as many training steps), the best by the same proxy (in CR-NAS, dilations of the winner's "
            "allocation)."
        )
    lead = "All trained from scratch under one recipe, with the same head; winner and baseline under the same seeds."
    if report.hand_made:
        tail += "".join(_against(report.winner, one) for one in report.hand_made if report.winner is not None)
        lead = lead.replace("with the same head;", "with the same head but for hand-made detectors;")
        begun = [f"{one.name} ({one.init})" for one in report.hand_made if one.init != "scratch"]
        if begun:
            lead = lead.replace("from scratch", f"from scratch, but for {', '.join(begun)},")
    return section(
        anchor="table",
        title="Winner, baseline and chance",
        lead=lead,
        html=card(_comparison_table(present)) + tail + _measured(present, report),
    )


def _against(winner: Contender, other: Contender) -> str:
    """Winner minus a hand-made detector, where both were trained under two common seeds."""
    if len(set(winner.ap_by_seed) & set(other.ap_by_seed)) < 2:
        return ""
    found = paired_difference(winner.ap_by_seed, other.ap_by_seed)
    assert found.low is not None and found.high is not None, "known from two seeds on"
    low, mean, high = (signed(round(100 * number, 1)) for number in (found.low, found.mean, found.high))
    seeds = several(len(found.seeds), "seed")
    told = f"Winner minus {other.name}: {mean} AP, 95 % interval {low} to {high}, {seeds} paired."
    if other.init == "scratch":
        return note(told)
    begun = f"{other.name} began with weights ({other.init}), the winner from scratch."
    if found.low > 0:
        return note(f"{told} {begun} The winner is better all the same.")
    end = "loses to" if found.high < 0 else "is no better than"
    return note(
        f"{told} {begun} The winner from scratch {end} the pre-trained network: pre-train the winner too "
        "(nas pretrain), or keep that one.",
        warning=True,
    )


def _comparison_table(present: list[tuple[str, Contender]]) -> str:
    names = {"winner": "Winner", "baseline": "Baseline", "random": "Random", "hand": "Hand-made"}
    heads = "".join(
        f'<th scope="col">{who(names[role], role)}<span class="sub">{escape(contender.name)}</span></th>'
        for role, contender in present
    )
    rows = [
        _row(
            metric, [_metric(contender, metric) for _, contender in present], "main" if metric == "AP" else ""
        )
        for metric in _METRICS
    ]
    rows.append(_row("MACs", [large(contender.macs) for _, contender in present], "first-of-group"))
    rows.append(_row("Parameters", [large(contender.params) for _, contender in present]))
    if any(contender.detector_macs is not None for _, contender in present):
        whole = [(contender.detector_macs, contender.detector_params) for _, contender in present]
        rows.append(_row("Detector MACs", ["–" if macs is None else large(macs) for macs, _ in whole]))
        rows.append(
            _row("Detector parameters", ["–" if count is None else large(count) for _, count in whole])
        )
    rows.append(_row("Latency", [_latency(contender) for _, contender in present]))
    rows.append(_row("Memory", [_memory(contender.memory) for _, contender in present]))
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    style = "contenders wide" if len(present) > _NARROW else "contenders"
    return f'<div class="scroll"><table class="{style}">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _row(name: str, cells: list[str], style: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    return f'<tr{attribute}><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _metric(contender: Contender, name: str) -> str:
    values = [value for result in contender.results if (value := _value(result.metrics, name)) is not None]
    if not values:
        return '<span title="not measured, or no object of that size">–</span>'
    deviation = spread(values)
    around = f" <small>± {deviation}</small>" if deviation is not None else ""
    return f"{points(sum(values) / len(values))}{around}"


def _value(metrics: Metrics, name: str) -> float | None:
    values = (metrics.AP, metrics.AP50, metrics.AP75, metrics.APs, metrics.APm, metrics.APl)
    return dict(zip(_METRICS, values, strict=True))[name]


def _latency(contender: Contender) -> str:
    if contender.latency is None:
        return "–"
    half = (contender.latency.high_ms - contender.latency.low_ms) / 2
    return f"{milliseconds(contender.latency.median_ms)} <small>± {half:.1f}</small>"


def _memory(memory: Memory | None) -> str:
    return "–" if memory is None else mebibytes(memory.peak_bytes)


def _measured(present: list[tuple[str, Contender]], report: ReportData) -> str:
    height, width = report.baseline.input_size
    sentences = [
        f"MACs and parameters: backbone alone, at {height} × {width}; of the detector: with pyramid and head."
    ]
    latency = next((contender.latency for _, contender in present if contender.latency), None)
    memory = next((contender.memory for _, contender in present if contender.memory), None)
    if latency is not None:
        sentences.append(
            f"Latency: median ± half the interquartile range of {several(latency.repeats, 'run')} of the "
            f"backbone, networks taken in turn, batch {latency.batch_size} at {latency.input_size[0]} × "
            f"{latency.input_size[1]}, {latency.device}, {several(latency.threads, 'thread')}."
        )
    if memory is not None:
        sentences.append(f"Memory: parameters, and {memory.how}; batch {memory.batch_size}.")
    text = note(" ".join(sentences))
    if latency is None or memory is None:
        return text + missing("Latency and memory are measured by", f"nas report {report.run}")
    return text


def ablations(report: ReportData) -> str:
    """Networks that differ from the baseline in one respect, and what that costs; empty without any."""
    if not report.ablations:
        return ""
    rows = []
    for name, one in {"baseline": report.baseline, **report.ablations}.items():
        change = "" if one is report.baseline else _change(one, report.baseline)
        cells = [_metric(one, "AP"), change, large(one.macs), large(one.params), str(len(one.results))]
        rows.append(_row(escape(name.replace("_", " ")), cells))
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("AP", "Difference", "MACs", "Parameters", "Seeds")
    )
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    table = f'<div class="scroll"><table class="contenders wide">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    return section(
        anchor="ablations",
        title="Ablations",
        lead=(
            "The baseline with wires taken away, and fixed orders of its blocks with searched connections, trained as "
            "the networks above. Differences to the baseline are paired by seed, with their 95 % intervals."
        ),
        html=card(table),
    )


def _change(one: Contender, baseline: Contender) -> str:
    if not set(one.ap_by_seed) & set(baseline.ap_by_seed):
        return "–"
    found = paired_difference(one.ap_by_seed, baseline.ap_by_seed)
    mean = signed(round(100 * found.mean, 1))
    if found.low is None or found.high is None:
        return mean
    low, high = (signed(round(100 * edge, 1)) for edge in (found.low, found.high))
    return f"{mean} <small>{low} to {high}</small>"


def networks(report: ReportData) -> str:
    """Winner beside baseline, block by block."""
    drawn = _network("Baseline", "baseline", report.baseline, report.winner)
    if report.winner is not None:
        drawn = _network("Winner", "winner", report.winner, report.baseline) + drawn
    html = f'<div class="grid two">{drawn}</div>'
    if report.winner is None:
        html += missing("The winner appears here when the search is done:", f"nas resume {report.run}")
    found = [_drawing_of(one) for one in (report.winner, report.baseline) if one is not None]
    leads = dict.fromkeys(drawing.LEAD for drawing in found if drawing is not None)
    return section(anchor="networks", title="The networks, block by block", lead=" ".join(leads), html=html)


def _drawing_of(contender: Contender) -> _Drawing | None:
    """What draws a network; ``None`` for a family without drawing and genes that the family cannot read."""
    architecture = contender.architecture
    try:
        family_of(architecture).validate(architecture)
    except InvalidArchitecture:
        return None
    return _DRAWINGS.get(architecture.family)


def _network(title: str, role: str, contender: Contender, other: Contender | None) -> str:
    drawing = _drawing_of(contender)
    if drawing is None:
        family = bare(contender.architecture.family)
        text = f"No drawing of this network of the family {family}. Its cost and levels are given by"
        return card(f"<h3>{who(title, role)}</h3>{missing(text, 'nas describe ARCH')}")
    beside = other if other is not None and _drawing_of(other) is drawing else None
    drawn = drawings.responsive(
        lambda width: drawing.network(contender, role=role, other=beside, width=width)
    )
    caption = drawing.caption(contender)
    return card(f"<figure><h3>{who(title, role)}</h3>{drawn}<figcaption>{caption}</figcaption></figure>")


def curves(report: ReportData) -> str:
    """AP over the retraining, one thin line a seed, and whether it had levelled off."""
    lines, keys = [], []
    for role, contender in contenders(report):
        found = [
            (result.seed, tuple((point.epoch, 100 * point.AP) for point in result.curve))
            for result in contender.results
            if len(result.curve) > 1
        ]
        if not found:
            continue
        keys.append((role, "line", f"{role}, {contender.name}"))
        lines += [
            Line(points=curve, role=role, thin=len(found) > 1, title=f"{contender.name}, seed {seed}")
            for seed, curve in found
        ]
        if len(found) > 1:
            lines.append(Line(points=_mean_curve([curve for _, curve in found]), role=role))
    if not lines:
        html = missing("No retraining has been recorded; it runs with", f"nas resume {report.run}")
        return section(anchor="curves", title="Retraining", lead="", html=html)
    # Means come last, so that no seed lies over them.
    lines.sort(key=lambda line: not line.thin)
    spots = [spot for line in lines for spot in line.points]
    x = Axis(low=0.0, high=max(px for px, _ in spots), name="epochs")
    y = drawings.axis_over([py for _, py in spots], "AP on the validation images")
    title = "AP over the epochs of the retraining"
    drawn = drawings.responsive(
        lambda width: drawings.chart(x=x, y=y, lines=lines, title=title, width=width),
        desk=drawings.FULL_WIDTH,
    )
    return section(
        anchor="curves",
        title="Retraining",
        lead="AP over the epochs. Thin lines are seeds, thick lines their mean.",
        html=card(legend(keys) + drawn)
        + "".join(_levelled(contender) for _, contender in contenders(report)),
    )


def _mean_curve(every: list[tuple[tuple[float, float], ...]]) -> tuple[tuple[float, float], ...]:
    common = sorted(set.intersection(*({px for px, _ in curve} for curve in every)))
    tables = [dict(curve) for curve in every]
    return tuple((px, sum(table[px] for table in tables) / len(tables)) for px in common)


def last_quarter_rise(contender: Contender) -> float | None:
    """Relative rise of the mean AP over the last quarter of the retraining; ``None`` without a fit curve."""
    every = [
        tuple((point.epoch, point.AP) for point in result.curve)
        for result in contender.results
        if result.curve
    ]
    return rise_over_last_quarter(_mean_curve(every)) if every else None


def still_rising(contender: Contender) -> bool:
    """Whether a longer retraining may change what the table says of this network."""
    rise = last_quarter_rise(contender)
    return rise is not None and rise >= _LEVELLED


def _levelled(contender: Contender) -> str:
    rise = last_quarter_rise(contender)
    if rise is None:
        return ""
    change = f"{contender.name}: AP changed by {signed(round(100 * rise, 1))} % over the last quarter"
    if still_rising(contender):
        return note(f"{change}; a longer retraining may change the verdict.", warning=True)
    return note(f"{change}, so it had levelled off.")
