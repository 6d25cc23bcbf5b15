"""Sections with pictures: effective receptive fields, and detections on validation images."""

from nas.report.data import Box, DetectionSample, ErfLevel, ReportData
from nas.report.formatting import escape, several
from nas.report.markup import card, legend, missing, note, section, who


def receptive_fields(report: ReportData) -> str:
    """ERF maps of baseline and winner, level by level, with what each level looks for drawn in."""
    erf = report.erf
    if erf is None:
        return section(
            anchor="erf",
            title="Effective receptive fields",
            lead="",
            html=missing("The maps are measured and drawn by", f"nas report {report.run}"),
        )
    levels = [
        f'<div class="erf-level"><h3>{escape(winner.level.upper())}</h3>'
        f"{erf_map('Baseline', 'baseline', baseline, erf.canvas_px)}"
        f"{erf_map('Winner', 'winner', winner, erf.canvas_px)}</div>"
        for baseline, winner in zip(erf.baseline, erf.winner, strict=True)
    ]
    keys = legend(
        [
            ("soft", "line", "anchor, or for FCOS largest object, of the level"),
            ("soft", "dashed", "theoretical receptive field"),
        ]
    )
    return section(
        anchor="erf",
        title="Effective receptive fields",
        lead="What the centre of each feature map really sees: the size of the gradient of its channels' sum with "
        "respect to the input. A level should see about as much as the objects it must find.",
        html=card(f'{keys}<div class="erf" style="--levels:{len(levels)}">{"".join(levels)}</div>')
        + note(
            f"{erf.how} Canvas {erf.canvas_px} px, mean of {erf.images} images, square root of the magnitude."
        ),
    )


def erf_map(title: str, role: str, level: ErfLevel, canvas: int) -> str:
    """One map with its anchor and its theoretical receptive field drawn in, and its sizes below."""
    centre = canvas / 2
    shapes = ""
    if level.anchor_px is not None and level.anchor_px < canvas:
        shapes += _square(centre, level.anchor_px, "")
    if level.trf_px < canvas:
        shapes += _square(centre, float(level.trf_px), f' stroke-dasharray="{canvas / 64:g} {canvas / 80:g}"')
    anchor = "" if level.anchor_px is None else f", looks for {level.anchor_px:g} px"
    described = (
        f"{title} {level.level}: standard deviation {level.std_px:.1f} px, TRF {level.trf_px} px{anchor}"
    )
    return (
        f'<figure><svg viewBox="0 0 {canvas} {canvas}" role="img" aria-label="{escape(described)}">'
        f'<image href="data:image/png;base64,{level.png}" width="{canvas}" height="{canvas}"/>{shapes}</svg>'
        f"<figcaption>{who(title, role)}<br>σ {level.std_px:.1f} px, √area {level.area_px:.0f} px<br>"
        f"TRF {level.trf_px} px</figcaption></figure>"
    )


def _square(centre: float, side: float, dashes: str) -> str:
    corner = centre - side / 2
    return (
        f'<rect class="n" style="stroke:#fff" stroke-width="1.6" vector-effect="non-scaling-stroke"{dashes} '
        f'x="{corner:g}" y="{corner:g}" width="{side:g}" height="{side:g}"/>'
    )


def detections(report: ReportData) -> str:
    """Sample validation images with annotations and detections."""
    if not report.detections:
        html = missing(
            "Sample detections need a trained winner; they are drawn by", f"nas report {report.run}"
        )
        return section(anchor="detections", title="Detections on validation images", lead="", html=html)
    keys = legend(
        [("soft", "dashed", "annotated"), ("winner", "line", "winner"), ("baseline", "line", "baseline")]
    )
    return section(
        anchor="detections",
        title="Detections on validation images",
        lead="Each network shows its most confident boxes, as many as objects are annotated, so that no threshold "
        "flatters either.",
        html=keys
        + f'<div class="grid two">{"".join(card(_sample(sample)) for sample in report.detections)}</div>',
    )


def _sample(sample: DetectionSample) -> str:
    panels = _panel(sample, sample.winner, "winner", "Winner")
    if sample.baseline is not None:
        panels += _panel(sample, sample.baseline, "baseline", "Baseline")
    pair = " pair" if sample.baseline is not None else ""
    caption = f"{sample.file_name}, id {sample.image_id}: {several(len(sample.truth), 'object')} annotated"
    return f'<div class="sample{pair}">{panels}</div>{note(caption)}'


def confident(boxes: tuple[Box, ...], annotated: int) -> list[Box]:
    """The most confident boxes, as many as objects are annotated and at least one."""
    ranked = sorted(boxes, key=lambda box: -(box.score or 0.0))
    return ranked[: max(annotated, 1)]


def _panel(sample: DetectionSample, found: tuple[Box, ...], role: str, title: str) -> str:
    drawn = confident(found, len(sample.truth))
    shapes = "".join(_box(box, "truth") for box in sample.truth) + "".join(_box(box, role) for box in drawn)
    if len(drawn) <= 8:
        shapes += "".join(_label(box, role, sample) for box in drawn)
    described = f"{sample.file_name}: {title} found " + (
        ", ".join(f"{box.label} {box.score or 0:.2f}" for box in drawn) or "nothing"
    )
    width, height = sample.width, sample.height
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(described)}">'
        f'<image href="data:image/jpeg;base64,{sample.jpeg}" width="{width}" height="{height}"/>'
        f"{shapes}</svg><figcaption>{who(title, role)}</figcaption></figure>"
    )


# On a picture the page's colours would vanish now and then, so boxes keep fixed ones over a dark rim.
_STROKES = {"truth": "#ffffff", "winner": "#3fd0e6", "baseline": "#ffb454"}


def _box(box: Box, role: str) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    thin = 'vector-effect="non-scaling-stroke"'
    score = "" if box.score is None else f" {box.score:.2f}"
    dashes = ' stroke-dasharray="4 3"' if role == "truth" else ""
    return (
        f'<g fill="none"><title>{escape(box.label)}{score}</title>'
        f'<rect {place} {thin} stroke="#000" stroke-opacity=".55" stroke-width="3.4"/>'
        f'<rect {place} {thin} stroke="{_STROKES[role]}" stroke-width="1.7"{dashes}/></g>'
    )


def _label(box: Box, role: str, sample: DetectionSample) -> str:
    size = max(sample.width, sample.height) / 22
    y = box.y - size * 0.3 if box.y > size * 1.3 else box.y + size
    return (
        f'<text x="{max(box.x, 1):.1f}" y="{y:.1f}" style="font-size:{size:.2f}px;fill:{_STROKES[role]};'
        f'stroke:#000;stroke-width:{size / 5:.2f}px;paint-order:stroke;font-weight:600">'
        f"{escape(box.label)} {box.score or 0:.2f}</text>"
    )
