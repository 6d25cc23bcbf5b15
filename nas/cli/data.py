"""Images and their annotations, before anything is trained: ``data import``."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.door import Json, door, print_columns, print_json

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
        typer.echo(f"use it:  --set data.root={found.directory}")
