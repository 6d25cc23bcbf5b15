"""Images and their annotations, before anything is trained: ``data import``, ``data check``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.door import Json, Sets, door, print_columns, print_json
from nas.saying import tell

_SHOWN = 20

data = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Images and their annotations, before anything is trained.",
)


@data.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder, or one file of annotations.")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="coco, voc, yolo or csv.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder, which training reads.")],
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", metavar="FILE|LIST", help="Names in the order of their ids: a,b,c or a file."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where the images are, if not found.")
    ] = None,
    train: Annotated[
        str | None, typer.Option("--train", metavar="SPLITS", help="The source's splits to train on.")
    ] = None,
    val: Annotated[
        str | None, typer.Option("--val", metavar="SPLITS", help="The source's splits to validate on.")
    ] = None,
    val_share: Annotated[
        float, typer.Option("--val-share", help="Share drawn for val where the source has no such split.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Of that draw.")] = 0,
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Symbolic links to the images, or copies of them.")
    ] = False,
    on_bad: Annotated[
        str,
        typer.Option("--on-bad", metavar="error|skip", help="Stop at what is wrong, or drop and list it."),
    ] = "error",
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="ROLE=NAME,...", help="Of a CSV file: image=file,xmin=x1,..."),
    ] = None,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="A CSV file's coordinates are shares of the image's sides.")
    ] = False,
    first_pixel: Annotated[
        int | None,
        typer.Option("--first-pixel", metavar="0|1", help="Of VOC (1 if left out) and CSV (0 if left out)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write COCO, Pascal VOC, YOLO or CSV annotations as a checked folder in COCO form."""
    with door():
        from nas.methods.importing import import_folder

        found = import_folder(
            source,
            to,
            format=format,
            classes=classes,
            images=images,
            columns=columns,
            normalised=normalised,
            first_pixel=first_pixel,
            train=train,
            val=val,
            val_share=val_share,
            seed=seed,
            link=link,
            on_bad=on_bad,
        )
        if as_json:
            print_json(
                {
                    "directory": str(found.directory),
                    "images": dict(found.images),
                    "objects": dict(found.objects),
                    "crowds": dict(found.crowds),
                    "categories": list(found.categories),
                    "dropped": list(found.dropped),
                    "notes": list(found.notes),
                }
            )
            return
        for note in found.notes:
            typer.echo(f"note: {note}")
        for one in found.dropped:
            typer.echo(f"dropped: {one}")
        rows = [
            [split, str(count), str(found.objects[split]), str(found.crowds[split])]
            for split, count in found.images.items()
        ]
        print_columns(["split", "images", "objects", "crowds"], rows)
        typer.echo(f"{len(found.categories)} categories: {', '.join(found.categories[:20])}")
        typer.echo(f"next:    nas data check {found.directory}")


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder in COCO form.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="RECIPE", help="Whose image size and detector to look at."),
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", metavar="NAME", help="Look at its levels, for example fcos.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="LIST", help="Of the backbone, for example c3,c4,c5.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="ARCH", help="A name, bundle or run; the recipe's, or resnet50."),
    ] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Measure effective receptive fields too; takes seconds.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the pictures that are shown.")] = 0,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write a page with pictures and sizes.")
    ] = None,
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Everything that is wrong with a folder (exit code 1), what it holds, and which levels are short of field."""
    with door():
        from nas.methods.data_check import check_data, read_settings, write_page

        settings = read_settings(
            recipe,
            detector=detector,
            levels=[name.strip() for name in (levels or "").split(",") if name.strip()],
            backbone=backbone,
            sets=set_ or [],
        )
        facts = check_data(
            folder, settings, effective=effective, pictures=12 if to else 0, seed=seed, say=tell
        )
        if to is not None:
            typer.echo(f"page: {write_page(facts, to)}", err=as_json)
        if as_json:
            print_json(facts.to_dict())
        else:
            _print_facts(facts)
        if facts.problems:
            raise typer.Exit(1)


def _print_facts(facts: Any) -> None:
    columns = ["split", "images", "empty", "objects", "crowds", "small", "medium", "large"]
    print_columns(
        columns,
        [
            [
                split.name,
                *map(str, (split.images, split.empty, split.objects, split.crowds)),
                *map(str, split.by_size.values()),
            ]
            for split in facts.splits
        ],
    )
    names = list(dict.fromkeys(name for split in facts.splits for name in split.by_class))
    print_columns(
        ["class", *(split.name for split in facts.splits)],
        [[name, *(str(split.by_class.get(name, 0)) for split in facts.splits)] for name in names],
    )
    if facts.pyramid is not None:
        typer.echo(f"{facts.pyramid.detector} over {facts.pyramid.backbone}, images {facts.resized}:")
        typer.echo(f"  {facts.pyramid.told(len(facts.lengths))}")
        for level in facts.pyramid.levels:
            typer.echo(f"  {level.sentence}")
    if facts.pyramid_fault is not None:
        typer.echo(f"levels: {facts.pyramid_fault}")
    for kind, lines in (("warning", facts.warnings), ("problem", facts.problems)):
        for line in lines[:_SHOWN]:
            typer.echo(f"{kind}: {line}")
        if len(lines) > _SHOWN:
            typer.echo(f"{kind}: and {len(lines) - _SHOWN} more; --json has all")
    typer.echo("nothing is wrong" if not facts.problems else f"{len(facts.problems)} problem(s)")
