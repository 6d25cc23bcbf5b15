"""Sections on where the numbers come from and what to do with them: data, repetition, next steps."""

from nas.report.data import ReportData
from nas.report.formatting import count, escape, several
from nas.report.markup import bullets, card, commands, facts, folded, listing, missing, section, table
from nas.report.outcome import contenders, still_rising


def data(report: ReportData) -> str:
    """The data set: digest, splits, what was dropped."""
    title, found = "Data", report.data
    if found is None:
        html = missing("The run has not opened its data yet:", f"nas resume {report.run}")
        return section(anchor="data", title=title, lead="", html=html)
    splits = table(
        ["split", "images", "objects"],
        [
            [
                f'{escape(split.name)}<span class="sub">{escape(split.use)}</span>',
                count(split.images),
                count(split.objects),
            ]
            for split in found.splits
        ],
    )
    names = ", ".join(found.categories[:20]) + (" …" if len(found.categories) > 20 else "")
    described = facts(
        [
            ("name", escape(found.name)),
            ("digest", f"<code>{escape(found.digest)}</code>"),
            ("image size", escape(found.image_size)),
            ("categories", f"{len(found.categories)}: {escape(names)}"),
            ("skipped", count(len(found.skipped)) if found.skipped else "nothing"),
        ]
    )
    skipped = ""
    if found.skipped:
        skipped = folded(
            f"{several(len(found.skipped), 'problem')} skipped",
            bullets(found.skipped),
            unfolded=len(found.skipped) <= 10,
        )
    return section(
        anchor="data",
        title=title,
        lead="Candidates were compared on images held out of the training split; the validation images were kept "
        "for the table.",
        html=f'<div class="grid two">{card(described)}{card(splits)}</div>{skipped}',
    )


def reproduction(report: ReportData) -> str:
    """Commands, versions, hardware, threads, seeds and the recipe."""
    title, found = "How to repeat this", report.reproduction
    if found is None:
        html = missing(
            "The run's records were not read; write the page again with", f"nas report {report.run}"
        )
        return section(anchor="repeat", title=title, lead="", html=html)
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    entries = [
        ("hardware", escape(found.hardware)),
        ("threads", count(found.threads)),
        ("versions", escape(versions)),
        ("seeds", escape(", ".join(f"{name} {value}" for name, value in found.seeds.items()))),
    ]
    if found.recipe_digest is not None:
        entries.append(("recipe digest", f"<code>{escape(found.recipe_digest)}</code>"))
    html = card(commands(found.commands) + facts(entries))
    if found.recipes_tried:
        tried = several(len(found.recipes_tried), "recipe")
        html += folded(f"{tried} tried before on this data", bullets(found.recipes_tried), unfolded=True)
    if found.recipe is not None:
        html += folded("The recipe as it ran", listing(found.recipe))
    return section(
        anchor="repeat",
        title=title,
        lead="On one machine with one thread count a serial run repeats bit for bit.",
        html=html,
    )


def next_steps(report: ReportData) -> str:
    """What the evidence of this page suggests doing, most useful first."""
    items = "".join(
        f"<li>{escape(text)}{commands([command]) if command else ''}</li>" for text, command in _steps(report)
    )
    return section(anchor="next", title="What to do next", lead="", html=f'<ol class="next">{items}</ol>')


def _steps(report: ReportData) -> list[tuple[str, str | None]]:
    verdict, run = report.verdict(), report.run
    steps: list[tuple[str, str | None]] = []
    if verdict.kind == "searching":
        steps.append(("Let the search finish; it continues where it stopped.", f"nas resume {run}"))
    elif verdict.kind in ("untrained", "one seed"):
        steps.append(
            (
                "Train winner and baseline under at least three seeds.",
                f"nas resume {run}",
            )
        )
    elif verdict.kind == "better":
        steps.append(
            ("Take the winner: a folder with weights, model card and one source file.", f"nas export {run}")
        )
    else:
        steps.append(
            ("Keep the baseline. Before searching again, see whether the proxy can rank at all.", None)
        )
    if report.ranks is None and verdict.kind != "searching":
        steps.append(
            ("Check the supernet's ranking against networks trained alone.", f"nas report {run} --check 13")
        )
    if any(still_rising(contender) for _, contender in contenders(report)):
        steps.append(("Retrain longer: a curve above was still rising over its last quarter.", None))
    if verdict.kind == "no better" and verdict.difference is not None and len(verdict.difference.seeds) < 6:
        steps.append(
            (
                "Search again with more retrain.seeds: the interval narrows with the square root of their number.",
                None,
            )
        )
    if report.data is not None and report.data.skipped:
        steps.append(("Repair what was skipped (see Data), so that the next run sees all of it.", None))
    if verdict.keep_baseline:
        steps.append(
            ("Try a longer supernet training, larger images, or the other kind of weight sharing.", None)
        )
    if report.state == "complete":
        steps.append(("See any candidate of this run, with its score and its state.", f"nas show {run}"))
    return steps
