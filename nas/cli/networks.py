"""Networks and spaces, before anything is trained, and what leaves: ``describe``, ``spaces``, ``erf``, ``export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.door import Json, door, print_json, print_table
from nas.saying import tell
from search_spaces.errors import ConfigError

if TYPE_CHECKING:
    from nas.export.subject import HowMany


def describe(
    architecture: Annotated[
        str,
        typer.Argument(metavar="ARCH", help="A name (resnet18), a winner.yaml, a bundle or a run directory."),
    ],
    size: Annotated[str, typer.Option("--input", metavar="HxW", help="Input size in pixels.")] = "224x224",
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector", metavar="NAME", help="Count this detector around it too: faster_rcnn, ..."
        ),
    ] = None,
    classes: Annotated[
        int, typer.Option("--classes", metavar="N", help="Categories of the detector, without background.")
    ] = 80,
    as_json: Json = False,
) -> None:
    """Parameters, multiply-adds and levels of a backbone or of a whole detector, without building it."""
    with door():
        from nas.detector_facts import description_with_detector, rows_of
        from nas.show import description

        if detector is None:
            data = description(architecture, size)
        else:
            data = description_with_detector(architecture, size, detector, classes)
        if as_json:
            print_json(data)
            return
        levels = [
            (
                name,
                f"{level['channels']} channels, stride {level['stride']}, receptive field {level['trf']} px",
            )
            for name, level in data["levels"].items()
        ]
        rows = [("architecture", data["text"]), ("digest", data["digest"]), ("params", f"{data['params']:,}")]
        print_table(architecture, [*rows, (f"macs at {size}", f"{data['macs']:,}"), *levels])
        if (whole := data.get("detector")) is not None:
            total = [("params", f"{whole['params']:,}"), (f"macs at {size}", f"{whole['macs']:,}")]
            parts = [*total, *rows_of(whole["parts"]), ("counted", whole["rule"])]
            print_table(f"{detector} of {classes} categories", parts)


def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A space; all are listed without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The search spaces, their exact sizes and genes."""
    with door():
        from nas.show import space_facts

        facts = space_facts(name)
        if as_json:
            print_json(facts[0] if name else facts)
            return
        for fact in facts:
            genes = [
                (name, f"{gene['kind']} of {gene.get('options') or gene.get('parts') or gene['size']}")
                for name, gene in fact["genes"].items()
            ]
            counts = [(key, f"{fact[key]:,}") for key in ("size", "distinct") if fact[key] is not None]
            print_table(fact["name"], [*counts, ("baseline", fact["baseline"]), *genes])


def erf(
    architectures: Annotated[list[str], typer.Argument(metavar="ARCH...", help="Names, bundles or runs.")],
    canvas: Annotated[int, typer.Option("--canvas", metavar="PX", help="Side of the noise image.")] = 512,
    anchor_scale: Annotated[float, typer.Option("--anchor-scale", help="Anchor side over stride.")] = 8.0,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write a page with the maps.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Effective receptive field of every level at random weights: std, area, gradient box."""
    with door():
        from nas.methods.fields import measured_fields, write_maps

        found = measured_fields(architectures, canvas=canvas, anchor_scale=anchor_scale)
        if to is not None:
            typer.echo(f"maps: {write_maps(found, to, canvas=canvas)}", err=as_json)
        if as_json:
            print_json({name: {one.level: one.sizes() for one in levels} for name, levels in found.items()})
            return
        for name, levels in found.items():
            rows = [
                (
                    one.level,
                    f"std {one.std_px:.1f} px, area {one.area_px:.0f} px, box {one.box_px[0]}x{one.box_px[1]}",
                )
                for one in levels
            ]
            print_table(name, rows)


def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN|ARCH", help="A run, a finished training or an architecture.")
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where the bundle goes; RUN/bundle when left out."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="source, onnx, torch_export, mmdet or detectron2, repeatable; all when left out.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="N|all",
            help="Images of val on which whole detectors are compared, AP included; 16 when left out.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle (architecture, weights, card, source that needs only torch) and other formats, each compared."""
    with door():
        from nas.export.formats import read_report
        from nas.methods.exporting import export

        folder = export(source, to, formats or ["all"], _how_many(images), say=tell)
        report = read_report(folder)
        if as_json:
            print_json({"bundle": str(folder), **report})
            return
        typer.echo(f"bundle: {folder}")
        rows = [(one["file"], _exported(one)) for one in report["artefacts"]]
        print_table("exported, run by its own runtime and compared with PyTorch", rows)
        for sentence in report["left_out"]:
            typer.echo(f"left out: {sentence}")


def _how_many(said: str | None) -> "HowMany | None":
    """What ``--images`` says."""
    if said is None:
        return None
    if said == "all":
        return "all"
    if not said.isdecimal():
        raise ConfigError(f"--images: found {said!r}; allowed are all and numbers from 1")
    return int(said)


def _exported(one: dict[str, Any]) -> str:
    """What there is to say of a file: what it holds, its size, what it accepts, how far it is off."""
    said = f"{one['holds']}, {one['bytes']:,} bytes, for {one['accepts']}"
    if not one["checks"]:
        return said
    units: dict[str, float] = {}
    for check in one["checks"]:
        # Levels together; boxes, scores and AP each.
        key = "of a map's largest value" if check["unit"] == "of the largest value" else check["of"]
        units[key] = max(units.get(key, 0.0), check["difference"])
    off = ", ".join(f"{value:.1e} {'px of ' if key == 'boxes' else ''}{key}" for key, value in units.items())
    scored = [check for check in one["checks"] if check["values"] is not None]
    scores = "".join(
        f"; {check['of']} {100 * check['values'][1]:.2f} (PyTorch {100 * check['values'][0]:.2f})"
        for check in scored
    )
    return f"{said}; off by {off}, on {one['on']}{scores}"
