"""A search from plan to report: ``plan``, ``search``, ``resume``, ``show``, ``replay``, ``rank``, ``report``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.door import Json, RunDir, Sets, door, limit_threads, print_columns, print_json, print_table
from nas.saying import tell

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


def _within(budget: str | None) -> list[str]:
    """The recipe field that ``--budget`` stands for."""
    return [] if budget is None else [f"budget={budget}"]


def _on_cluster(address: str | None) -> list[str]:
    """The recipe fields that ``--address`` stands for."""
    return [] if address is None else ["engine=ray", f"ray.address={address}"]


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

    with door(again):
        from nas.methods.catalog import check_search, procedure
        from nas.run import Run
        from nas.targets import read_recipe

        checked = check_search(read_recipe(recipe, sets), source=str(recipe))
        limit_threads(checked.threads)
        procedure(checked).check_recipe(checked, source=str(recipe), say=tell)
        _carry_out(Run.create(run, checked))


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
    with door():
        from nas.methods.catalog import check_search, procedure
        from nas.planning import Place, plain, plan_lines
        from nas.targets import read_recipe

        there = None
        if devices is not None or price is not None or speed != 1.0:
            there = Place(workers=1 if devices is None else devices, speed=speed, price=price)
        checked = check_search(read_recipe(recipe, [*(set_ or []), *_within(budget)]), source=str(recipe))
        limit_threads(checked.threads)
        procedure(checked).check_recipe(checked, source=str(recipe), say=tell)
        from nas.methods.granting import budget_line
        from nas.methods.planning import make_plan
        from nas.progress import ConsoleProgress

        with ConsoleProgress(stderr=True) as progress:
            found = make_plan(checked, progress, seconds=measure, there=there)
        divided = budget_line(found, checked.budget)
        if as_json:
            print_json(plain(found.to_dict()) | {"budget": divided})
            return
        head, columns, rows, foot = plan_lines(found)
        foot += [] if divided is None else [divided]
        print_table(str(recipe), head)
        print_columns(columns, rows)
        for line in foot:
            typer.echo(line)


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
    with door(f"nas resume {run}"):
        from nas.run import Run

        if before is not None:
            typer.echo(f"record {before} and all after it: {Run.open(run).cut_before(before)}")
        opened = Run.open(run).extended([*(set_ or []), *_within(budget), *_on_cluster(address)])
        limit_threads(opened.recipe.threads)
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


def show(run: RunDir, as_json: Json = False) -> None:
    """What a run has tried, found and spent."""
    with door():
        from nas.show import summary

        data = summary(run)
        if as_json:
            print_json(data)
            return
        print_table(
            str(run),
            [
                ("state", data["state"]),
                ("winner", data["winner"]["text"] if data["winner"] else "not found yet"),
                *(
                    [("allocation by", data["allocation_chosen_by"])]
                    if data["allocation_chosen_by"] is not None
                    else []
                ),
                *((f"agreement: {name}", line) for name, line in data["agreement"].items()),
                ("best score", "-" if data["best"] is None else f"{data['best']:.2f} {data['scored_by']}"),
                ("cost", data["cost_line"] or "no books were kept"),
                *([("budget", data["budget"])] if data["budget"] else []),
                *((f"cost: {name}", f"{value:,}") for name, value in data["cost"].items()),
            ],
        )
        ranked = any(trial["naswot"] is not None for trial in data["trials"])
        if ranked:
            typer.echo(f"{'':<27}{'AP':>8}  {'NASWOT':>9}  {'mean rank':>9}")
        for trial in data["trials"]:
            value = "" if trial["value"] is None else f"{trial['value']:7.2f}"
            beside = ""
            if ranked:
                free, rank = trial["naswot"], trial["mean_rank"]
                beside = (
                    f"{'' if free is None else f'{free:.3f}':>9}  {'' if rank is None else f'{rank:g}':>9}  "
                )
            typer.echo(
                f"{trial['phase']:<10} {trial['number']:>4}  {trial['state']:<9} {value:>8}  {beside}{trial['text']}"
            )


def replay(run: RunDir, as_json: Json = False) -> None:
    """Decide a search again from its journal alone, and name the first decision that differs (exit code 1)."""
    with door():
        from dataclasses import asdict

        from nas.methods.replaying import replay_run
        from nas.run import Run

        found = replay_run(Run.open(run), tell)
        if as_json:
            print_json([asdict(one) for one in found])
        else:
            rows = [
                (
                    one.phase,
                    one.difference or f"{one.asked} candidates, {one.stops} decisions at rungs: all the same",
                )
                for one in found
            ]
            print_table(str(run), rows)
        if any(one.difference is not None for one in found):
            raise typer.Exit(1)


def report(
    run: RunDir,
    check: Annotated[
        int,
        typer.Option(
            "--check", metavar="N", help="Train N allocations alone and rank them against the proxy."
        ),
    ] = 0,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="TABLE", help="Show the ranking against this table on the page."),
    ] = None,
) -> None:
    """Write RUN/report.html again, with what the run holds by now."""
    with door(f"nas report {run} --check {check}" + ("" if truth is None else f" --truth {truth}")):
        from nas.run import Run

        opened = Run.open(run)
        limit_threads(opened.recipe.threads)
        from nas.methods.reporting import write_report
        from nas.progress import ConsoleProgress

        with ConsoleProgress() as progress:
            typer.echo(f"report: {write_report(opened, progress, check=check, truth=truth)}")


def rank(
    run: RunDir,
    truth: Annotated[
        Path,
        typer.Option("--truth", metavar="TABLE", help="Networks trained alone, see benchmarks/tables."),
    ],
    k: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Networks of recall and regret.")] = 3,
    as_json: Json = False,
) -> None:
    """How well a run's proxy orders networks, against a table of the same networks trained alone."""
    with door():
        from nas.methods.truth import rank_run
        from nas.proxies.tabular import read_table
        from nas.report.rank_report import COLUMNS, rank_lines, rank_rows
        from nas.run import Run

        reports = rank_run(Run.open(run), read_table(truth), k=k)
        if as_json:
            print_json([one.to_dict() for one in reports])
            return
        for one in reports:
            print_columns([one.phase, *COLUMNS[1:]], rank_rows(one))
            for line in rank_lines(one):
                typer.echo(line)
