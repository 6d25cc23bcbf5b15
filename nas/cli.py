"""The command line: each command loads, calls one library function and prints one table.

Nothing heavy is imported before a command needs it, so that ``nas --help`` answers at once.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.errors import LostRank, VertebraError, out_of_memory
from search_spaces.files import refused

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Neural architecture search for detection backbones: search, prove, export and train.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe field, e.g. data.root=DIR."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Score candidates on a running Ray cluster (auto: this machine's); engine=ray and ray.address in one.",
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="AMOUNT",
        help="Of the whole run, retraining included: 6h, '200 trials' or '1e18 MACs'; the field budget.",
    ),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


@contextmanager
def _door(resume: str | Callable[[], str] | None = None) -> Iterator[None]:
    """A person's mistake ends in its sentences and exit code 2, Ctrl-C in the line that resumes and 130."""
    try:
        yield
    except (VertebraError, MemoryError, OSError, RuntimeError) as error:
        if (sentence := _sentence(error)) is None:
            raise
        command = resume() if callable(resume) else resume
        where = f" on rank {os.environ['RANK']}" if _follows() else ""
        again = f": {command}" if _ranks() == 1 else " the same torchrun command"
        hint = f". Continue with{again}" if command and isinstance(error, LostRank) else ""
        typer.echo(f"error{where}: {sentence}{hint}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        command = resume() if callable(resume) else resume
        hint = f" Nothing reported done is lost; continue with: {command}" if command else ""
        typer.echo(f"\nstopped.{hint}", err=True)
        raise typer.Exit(130) from None


def _sentence(error: Exception) -> str | None:
    """What to say about an error; None for a mistake of ours, whose traceback is wanted."""
    if isinstance(error, VertebraError):
        return str(error)
    if (memory := out_of_memory(error)) is not None:
        return f"{memory}. What was finished is kept; take a smaller batch or fewer workers, or resume when it is free"
    return refused(error) if isinstance(error, OSError) else None


def _ranks() -> int:
    """Of how many ranks torchrun has started this process as one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def _follows() -> bool:
    """Whether this is another rank than the first, which alone speaks."""
    return _ranks() > 1 and os.environ["RANK"] != "0"


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=1))


def _print_table(title: str, rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(f"[bold]{name}", value)
    Console().print(table)


def _print_columns(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A narrow terminal would cut figures off.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _limit_threads(threads: int) -> None:
    # Before torch is imported: OpenMP reads this once.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _within(budget: str | None) -> list[str]:
    """The recipe field that ``--budget`` stands for."""
    return [] if budget is None else [f"budget={budget}"]


def _on_cluster(address: str | None) -> list[str]:
    """The recipe fields that ``--address`` stands for."""
    return [] if address is None else ["engine=ray", f"ray.address={address}"]


@app.command()
def search(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, see examples/recipes.")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Where everything is written.")],
    set_: Sets = None,
    budget: BudgetText = None,
    address: Address = None,
) -> None:
    """Search, retrain winner and baseline, export and report; safe to kill at any moment."""

    sets = [*(set_ or []), *_within(budget), *_on_cluster(address)]

    def again() -> str:
        # Before recipe.yaml is there, there is no run to resume.
        words = " ".join(f"--set {shlex.quote(text)}" for text in sets)
        begun = (run / "recipe.yaml").exists()
        return f"nas resume {run}" if begun else f"nas search {recipe} --run {run} {words}".rstrip()

    with _door(again):
        from nas.methods.catalog import check_search, procedure
        from nas.run import Run
        from nas.targets import read_recipe

        checked = check_search(read_recipe(recipe, sets), source=str(recipe))
        _limit_threads(checked.threads)
        procedure(checked).check_recipe(checked, source=str(recipe))
        _carry_out(Run.create(run, checked))


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, see examples/recipes.")],
    set_: Sets = None,
    budget: BudgetText = None,
    measure: Annotated[
        float, typer.Option("--measure", metavar="SECONDS", min=0, help="To spend on trying everything out.")
    ] = 60.0,
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", help="Foresee it for so many devices too.")
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="Of one of them, in that of a worker here.")
    ] = 1.0,
    price: Annotated[
        float | None, typer.Option("--price", metavar="P", help="Of one of them, an hour.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a search will take, here and on a described cluster, from a measured minute; nothing is kept."""
    with _door():
        from nas.methods.catalog import check_search, procedure
        from nas.planning import Place, plain, plan_lines
        from nas.targets import read_recipe

        there = None
        if devices is not None or price is not None or speed != 1.0:
            there = Place(workers=1 if devices is None else devices, speed=speed, price=price)
        checked = check_search(read_recipe(recipe, [*(set_ or []), *_within(budget)]), source=str(recipe))
        _limit_threads(checked.threads)
        procedure(checked).check_recipe(checked, source=str(recipe))
        from nas.methods.granting import budget_line
        from nas.methods.planning import make_plan
        from nas.progress import ConsoleProgress

        with ConsoleProgress(stderr=True) as progress:
            found = make_plan(checked, progress, seconds=measure, there=there)
        divided = budget_line(found, checked.budget)
        if as_json:
            _print_json(plain(found.to_dict()) | {"budget": divided})
            return
        head, columns, rows, foot = plan_lines(found)
        foot += [] if divided is None else [divided]
        _print_table(str(recipe), head)
        _print_columns(columns, rows)
        for line in foot:
            typer.echo(line)


@app.command()
def resume(
    run: RunDir,
    set_: Sets = None,
    budget: BudgetText = None,
    address: Address = None,
    before: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="RECORD", help="Leave out this record of the journal and all after it."
        ),
    ] = None,
) -> None:
    """Continue a stopped or killed run where it was, or add seeds to its table (--set retrain.seeds=12)."""
    with _door(f"nas resume {run}"):
        from nas.run import Run

        if before is not None:
            typer.echo(f"record {before} and all after it: {Run.open(run).cut_before(before)}")
        opened = Run.open(run).extended([*(set_ or []), *_within(budget), *_on_cluster(address)])
        _limit_threads(opened.recipe.threads)
        _carry_out(opened)


def _carry_out(run: Any) -> None:
    from nas.methods.catalog import procedure
    from nas.progress import ConsoleProgress

    with ConsoleProgress() as progress:
        procedure(run.recipe).carry_out(run, progress)
    typer.echo(f"report:  {run.directory / 'report.html'}")
    typer.echo(f"bundle:  {run.directory / 'bundle'}")
    typer.echo(
        f"next:    nas show {run.directory}   |   nas train {run.directory / 'bundle'} RECIPE --run DIR"
    )


@app.command()
def show(run: RunDir, as_json: Json = False) -> None:
    """What a run has tried, found and spent."""
    with _door():
        from nas.show import summary

        data = summary(run)
        if as_json:
            _print_json(data)
            return
        _print_table(
            str(run),
            [
                ("state", data["state"]),
                ("winner", data["winner"]["text"] if data["winner"] else "not found yet"),
                ("best", "-" if data["best"] is None else f"{data['best']:.2f} {data['scored_by']}"),
                ("cost", data["cost_line"] or "no books were kept"),
                *([("budget", data["budget"])] if data["budget"] else []),
                *((f"cost: {name}", f"{value:,}") for name, value in data["cost"].items()),
            ],
        )
        for trial in data["trials"]:
            value = "" if trial["value"] is None else f"{trial['value']:7.2f}"
            typer.echo(
                f"{trial['phase']:<10} {trial['number']:>4}  {trial['state']:<9} {value:>8}  {trial['text']}"
            )


@app.command()
def replay(run: RunDir, as_json: Json = False) -> None:
    """Decide a search again from its journal alone, and name the first decision that differs (exit code 1)."""
    with _door():
        from dataclasses import asdict

        from nas.methods.replaying import replay_run
        from nas.run import Run

        found = replay_run(Run.open(run))
        if as_json:
            _print_json([asdict(one) for one in found])
        else:
            rows = [
                (
                    one.phase,
                    one.difference or f"{one.asked} candidates, {one.stops} decisions at rungs: all the same",
                )
                for one in found
            ]
            _print_table(str(run), rows)
        if any(one.difference is not None for one in found):
            raise typer.Exit(1)


@app.command()
def describe(
    architecture: Annotated[
        str,
        typer.Argument(metavar="ARCH", help="A name (resnet18), a winner.yaml, a bundle or a run directory."),
    ],
    size: Annotated[str, typer.Option("--input", metavar="HxW", help="Input size in pixels.")] = "224x224",
    as_json: Json = False,
) -> None:
    """Parameters, multiply-adds and levels of a backbone, without building it."""
    with _door():
        from nas.show import description

        data = description(architecture, size)
        if as_json:
            _print_json(data)
            return
        levels = [
            (
                name,
                f"{level['channels']} channels, stride {level['stride']}, receptive field {level['trf']} px",
            )
            for name, level in data["levels"].items()
        ]
        rows = [("architecture", data["text"]), ("digest", data["digest"]), ("params", f"{data['params']:,}")]
        _print_table(architecture, [*rows, (f"macs at {size}", f"{data['macs']:,}"), *levels])


@app.command()
def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A space; all are listed without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The search spaces, their exact sizes and genes."""
    with _door():
        from nas.show import space_facts

        facts = space_facts(name)
        if as_json:
            _print_json(facts[0] if name else facts)
            return
        for fact in facts:
            genes = [
                (name, f"{gene['kind']} of {gene.get('options') or gene.get('parts') or gene['size']}")
                for name, gene in fact["genes"].items()
            ]
            counts = [(key, f"{fact[key]:,}") for key in ("size", "distinct") if fact[key] is not None]
            _print_table(fact["name"], [*counts, ("baseline", fact["baseline"]), *genes])


@app.command()
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
    with _door():
        from nas.methods.fields import measured_fields, write_maps

        found = measured_fields(architectures, canvas=canvas, anchor_scale=anchor_scale)
        if to is not None:
            typer.echo(f"maps: {write_maps(found, to, canvas=canvas)}", err=as_json)
        if as_json:
            _print_json({name: {one.level: one.sizes() for one in levels} for name, levels in found.items()})
            return
        for name, levels in found.items():
            rows = [
                (
                    one.level,
                    f"std {one.std_px:.1f} px, area {one.area_px:.0f} px, box {one.box_px[0]}x{one.box_px[1]}",
                )
                for one in levels
            ]
            _print_table(name, rows)


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="RUN|ARCH", help="A run directory or an architecture.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where the bundle goes; RUN/bundle when left out."),
    ] = None,
) -> None:
    """Write a bundle: architecture, weights, model card and a source file that needs only torch."""
    with _door():
        from nas.methods.exporting import export

        typer.echo(f"bundle: {export(source, to)}")


@app.command()
def train(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, run or architecture name.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A training recipe.")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Where checkpoints and results go.")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Train a bundle's backbone in a detector to completion; continues where it was stopped."""
    words = " ".join(f"--set {text}" for text in set_ or [])
    with _door(f"nas train {bundle} {recipe} --run {run} {words}".rstrip()):
        from nas.config import check
        from nas.recipes.train_job import TrainJobRecipe
        from nas.targets import read_recipe

        checked = check(TrainJobRecipe, read_recipe(recipe, set_ or []), source=str(recipe))
        _limit_threads(checked.threads)
        from nas.progress import ConsoleProgress, Silent
        from nas.training import train_bundle

        if _follows():
            train_bundle(bundle, checked, run, Silent())
            return
        with ConsoleProgress(stderr=as_json) as progress:
            result = train_bundle(bundle, checked, run, progress)
        _print_metrics(result, as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of `nas train`, or a search run.")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """COCO AP of trained weights on the folder's val split."""
    with _door():
        from nas.methods.retraining import trained_directory
        from nas.training import evaluate_training

        _print_metrics(evaluate_training(trained_directory(run), set_ or []), as_json)


def _print_metrics(metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(metrics)
        return
    per_class = [
        (f"{prefix}AP {name}", f"{ap:.4f}")
        for prefix in ("", "mask_")
        for name, ap in metrics.get(f"{prefix}per_class", {}).items()
    ]
    scalars = [(name, f"{value:.4f}") for name, value in metrics.items() if isinstance(value, float)]
    _print_table(
        "COCO metrics on val, from 0 to 1",
        [*scalars, *per_class],
    )


@app.command()
def report(
    run: RunDir,
    check: Annotated[
        int,
        typer.Option(
            "--check", metavar="N", help="Train N allocations alone and rank them against the proxy."
        ),
    ] = 0,
) -> None:
    """Write RUN/report.html again, with what the run holds by now."""
    with _door(f"nas report {run} --check {check}"):
        from nas.run import Run

        opened = Run.open(run)
        _limit_threads(opened.recipe.threads)
        from nas.methods.reporting import write_report
        from nas.progress import ConsoleProgress

        with ConsoleProgress() as progress:
            typer.echo(f"report: {write_report(opened, progress, check=check)}")


def main() -> None:
    """Entry point of the ``nas`` script."""
    run: Callable[[], Any] = app
    run()
    sys.exit(0)


if __name__ == "__main__":
    main()
