"""A bundle in use: ``predict``, ``benchmark``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from nas.cli.door import Json, door, limit_threads, print_columns, print_json

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
        typer.echo(
            "next:        too many or too few? --threshold; against annotations: nas evaluate, of the training"
        )


def benchmark(
    bundle: Bundle,
    size: Annotated[
        str | None,
        typer.Option("--input", metavar="HxW", help="Input in pixels; that of the training when left out."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Of torch and onnxruntime.")] = 1,
    device: Device = "cpu",
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Timed passes of each way.")] = 40,
    trust_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Latency eager, compiled and in onnxruntime, in turn; on a noisy machine no number and why (exit code 1)."""
    with door():
        limit_threads(threads)
        from nas.benchmarking import DRIFT, SPREAD, benchmark
        from nas.progress import ConsoleProgress
        from nas.show import input_size

        with ConsoleProgress(stderr=True) as progress:
            found = benchmark(
                bundle,
                None if size is None else input_size(size),
                threads=threads,
                device=device,
                rounds=rounds,
                trust_code=trust_code,
                progress=progress,
            )
        if as_json:
            print_json(found.to_dict())
        else:
            height, width = found.input_size
            load = "unknown" if found.load is None else f"{found.load:.1f}"
            typer.echo(
                f"{found.kind}, one image of {height}x{width}, {found.device}, {found.threads} thread(s) of "
                f"{found.cores} cores, load before {load}, {found.rounds} rounds in turn"
            )
            shown = "median ms" if not found.noise else "no number"
            eager = found.timings["eager"].median_ms
            rows = [
                [
                    name,
                    "-" if found.noise else f"{one.median_ms:.2f}",
                    f"{one.low_ms:.2f} to {one.high_ms:.2f}",
                    f"{one.spread:.0%}",
                    f"{one.drift:+.0%}",
                    "-" if found.noise else f"{one.median_ms / eager:.2f}",
                ]
                for name, one in found.timings.items()
            ]
            print_columns(["", shown, "quartiles ms", "spread", "drift", "of eager"], rows)
            for name, reason in found.left_out.items():
                typer.echo(f"{name}: {reason}")
            if found.noise:
                typer.echo("This machine is too noisy for a number:")
                for one in found.noise:
                    typer.echo(f"  {one}")
                typer.echo(
                    "Stop other work, fix the clock rate, take more --rounds or fewer --threads, and measure again. "
                    f"Allowed are {SPREAD:.0%} of spread and {DRIFT:.0%} of drift."
                )
        if found.noise:
            raise typer.Exit(1)
