"""The page of ``nas data check``: what is wrong, what there is, sizes against levels, and pictures."""

from nas.report.data import Box
from nas.report.data_facts import RULE, DataFacts, Picture
from nas.report.drawings import FULL_WIDTH, responsive
from nas.report.formatting import count, escape, several, share
from nas.report.markup import bullets, card, folded, legend, missing, note, section, table
from nas.report.size_drawing import size_drawing
from nas.report.style import CSS

_SHOWN = 20
# Over a picture the page's colours would vanish now and then; over a dark rim these are told apart by most eyes.
_COLOURS = ("#3fd0e6", "#ffb454", "#b9a0ea", "#8fe388", "#ff8fa3", "#f4e66a", "#7fb2ff", "#ffffff")
_NAMED = 8


def render_data(facts: DataFacts) -> str:
    """The whole page as text; the same facts give the same text."""
    title = f"Data check: {facts.root}"
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>",
            f'<header class="top"><h1>{escape(title)}</h1><p class="meta">{escape(facts.resized)}</p></header>\n<main>',
            _headline(facts),
            _counts(facts),
            _sizes(facts),
            _pictures(facts),
            "</main>\n<footer>Written by vertebra.</footer>\n</body>\n</html>\n",
        )
    )


def _headline(facts: DataFacts) -> str:
    wrong = (
        f"{several(len(facts.problems), 'problem')} to correct" if facts.problems else "Nothing has to change"
    )
    html = f'<p class="sentence">{escape(wrong)}</p>'
    if facts.problems:
        html += _list("Problems: training refuses or drops these, or its numbers mean little", facts.problems)
    if facts.warnings:
        html += _list("Warnings: training takes these, but you should know", facts.warnings)
    return f'<section class="verdict" id="verdict">{html}</section>'


def _list(title: str, lines: tuple[str, ...]) -> str:
    html = f"<h3>{escape(title)}</h3>{bullets(lines[:_SHOWN])}"
    if len(lines) > _SHOWN:
        html += folded(f"{len(lines) - _SHOWN} more", bullets(lines[_SHOWN:]))
    return card(html)


def _counts(facts: DataFacts) -> str:
    names = [split.name for split in facts.splits]
    rows = [
        ("images", [count(split.images) for split in facts.splits]),
        ("without an object", [count(split.empty) for split in facts.splits]),
        ("objects", [count(split.objects) for split in facts.splits]),
        *(
            (
                f"{size}",
                [
                    f"{count(split.by_size[size])} <small>{share(split.by_size[size], split.objects)}</small>"
                    for split in facts.splits
                ],
            )
            for size in ("small", "medium", "large")
        ),
        ("crowds", [count(split.crowds) for split in facts.splits]),
    ]
    html = card(
        table(
            ["", *map(escape, names)],
            [[escape(name), *cells] for name, cells in rows],
        )
        + note(
            "Small, medium and large as COCO counts: by area in stored pixels, below 32² px, below 96² px, above."
        )
    )
    classes = list(dict.fromkeys(name for split in facts.splits for name in split.by_class))
    classes.sort(key=lambda name: -sum(split.by_class.get(name, 0) for split in facts.splits))
    by_class = table(
        ["class", *map(escape, names)],
        [
            [
                escape(name),
                *(
                    f"{count(split.by_class.get(name, 0))} "
                    f"<small>{share(split.by_class.get(name, 0), split.objects)}</small>"
                    for split in facts.splits
                ),
            ]
            for name in classes
        ],
    )
    title = f"{count(len(classes))} class{'' if len(classes) == 1 else 'es'}"
    html += folded(title, by_class, unfolded=len(classes) <= _SHOWN)
    return section(anchor="counts", title="What there is", lead="", html=html)


def _sizes(facts: DataFacts) -> str:
    title = "Sizes of objects against the pyramid"
    if not facts.lengths:
        return section(anchor="sizes", title=title, lead="", html=missing("No object can be used."))
    pyramid = facts.pyramid
    levels = () if pyramid is None else pyramid.levels
    keys = [("soft", "circle", "median of a level's objects, bar from the 10th to the 90th percentile")]
    keys += [("soft", "ring", "size that the level looks for"), ("winner", "dashed", "theoretical field")]
    if any(level.effective is not None for level in levels):
        keys.append(("winner", "diamond", "effective field"))
    keys.append(("baseline", "dashed", "field of a level that is short of it"))
    drawn = responsive(lambda width: size_drawing(facts.lengths, levels, width=width), desk=FULL_WIDTH)
    html = card((legend(keys) if levels else "") + drawn)
    if pyramid is not None:
        html += bullets([level.sentence + "." for level in levels])
        html += note(RULE)
        who = f"Detector {pyramid.detector}, backbone {pyramid.backbone}. "
        html += note(who + pyramid.told(len(facts.lengths)))
    elif facts.pyramid_fault is not None:
        html += missing(facts.pyramid_fault)
    else:
        html += missing(
            "What each level of a detector looks for and sees is drawn with",
            f"nas data check {facts.root} --detector fcos --levels c3,c4,c5 --backbone resnet50 --to FILE",
        )
    return section(
        anchor="sizes",
        title=title,
        lead=f"Longer side of every object, images {facts.resized}; the axis doubles from tick to tick.",
        html=html,
    )


def _pictures(facts: DataFacts) -> str:
    names = list(dict.fromkeys(name for split in facts.splits for name in split.by_class))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    if not facts.pictures:
        return section(
            anchor="pictures", title="Pictures", lead="", html=missing("No picture shows an object.")
        )
    keys = "".join(
        f'<li><svg viewBox="0 0 16 16" aria-hidden="true"><rect x="1" y="1" width="14" height="14" rx="3" '
        f'fill="{colours[name]}" stroke="#000" stroke-opacity=".5"/></svg>{escape(name)}</li>'
        for name in names[: 2 * _NAMED]
    )
    cards = "".join(card(_picture(picture, colours)) for picture in facts.pictures)
    return section(
        anchor="pictures",
        title="Pictures",
        lead=f"{several(len(facts.pictures), 'image')} that show something, chosen by chance with seed {facts.seed}. "
        "Look whether boxes fit and classes are right.",
        html=f'<ul class="legend">{keys}</ul><div class="grid two">{cards}</div>',
    )


def _picture(picture: Picture, colours: dict[str, str]) -> str:
    shapes = "".join(_box(box, colours[box.label]) for box in picture.boxes)
    if len(picture.boxes) <= _NAMED:
        shapes += "".join(_label(box, colours[box.label], picture) for box in picture.boxes)
    described = f"{picture.file_name}: " + (", ".join(sorted({box.label for box in picture.boxes})))
    return (
        f'<div class="sample"><figure><svg viewBox="0 0 {picture.width} {picture.height}" role="img" '
        f'aria-label="{escape(described)}"><image href="data:image/jpeg;base64,{picture.jpeg}" '
        f'width="{picture.width}" height="{picture.height}"/>{shapes}</svg><figcaption>'
        f"{escape(picture.split)}: {escape(picture.file_name)}, {several(len(picture.boxes), 'object')}"
        "</figcaption></figure></div>"
    )


def _box(box: Box, colour: str) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    thin = 'vector-effect="non-scaling-stroke"'
    return (
        f'<g fill="none"><title>{escape(box.label)}</title>'
        f'<rect {place} {thin} stroke="#000" stroke-opacity=".55" stroke-width="3.4"/>'
        f'<rect {place} {thin} stroke="{colour}" stroke-width="1.7"/></g>'
    )


def _label(box: Box, colour: str, picture: Picture) -> str:
    size = max(picture.width, picture.height) / 24
    y = box.y - size * 0.3 if box.y > size * 1.3 else box.y + size
    return (
        f'<text x="{max(box.x, 1):.1f}" y="{y:.1f}" style="font-size:{size:.2f}px;fill:{colour};stroke:#000;'
        f'stroke-width:{size / 5:.2f}px;paint-order:stroke;font-weight:600">{escape(box.label)}</text>'
    )
