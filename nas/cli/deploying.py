"""A bundle in use: ``predict``, ``benchmark``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from nas.cli.door import Json, door, print_json

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `nas export` has written.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Run the code of its maker's own that a bundle may bring (targets/*.py)."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:0 and so on.")]


def predict(
    bundle: Bundle,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE|FOLDER...", help="What to look at.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for all that is written.")],
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Pictures at a time.")] = 8,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="SCORE", help="Leave out what is scored lower.")
    ] = 0.3,
    device: Device = "auto",
    on_bad: Annotated[
        Literal["error", "skip"],
        typer.Option("--on-bad", help="Stop at pictures that cannot be used, or list them and go on."),
    ] = "error",
    trust_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Draw what a trained detector finds on pictures, and write it in COCO's form."""
    with door():
        from nas.predicting import IMAGES, PREDICTIONS, predict
        from nas.progress import ConsoleProgress

        with ConsoleProgress(stderr=as_json) as progress:
            found = predict(
                bundle,
                pictures,
                out,
                batch=batch,
                threshold=threshold,
                device=device,
                on_bad=on_bad,
                trust_code=trust_code,
                progress=progress,
            )
        for one in found.skipped:
            typer.echo(f"left out: {one}", err=True)
        if as_json:
            print_json(
                {
                    "out": str(out),
                    "images": found.images,
                    "detections": found.detections,
                    "skipped": list(found.skipped),
                }
            )
            return
        beside = f", {found.others} other files in the folders were left alone" if found.others else ""
        typer.echo(f"found:       {found.detections} objects on {found.images} pictures{beside}")
        typer.echo(f"drawn:       {out / 'drawn'}")
        typer.echo(f"predictions: {out / PREDICTIONS}, the names of its ids in {out / IMAGES}")
        typer.echo("next:        too many or too few? --threshold; against annotations: nas evaluate")
