"""The command line: each command loads, calls one library function and prints one table."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from nas.cli.data import data
from nas.cli.deploying import benchmark, predict
from nas.cli.networks import describe, erf, export, spaces
from nas.cli.searching import plan, rank, replay, report, resume, search, show
from nas.cli.training import evaluate, pretrain, train

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Neural architecture search for detection backbones: search, prove, export and train.",
)
# In the order in which they are needed, which is that of `nas --help`.
for _command in (
    search,
    plan,
    resume,
    show,
    replay,
    rank,
    report,
    describe,
    spaces,
    erf,
    export,
    pretrain,
    train,
    evaluate,
    predict,
    benchmark,
):
    app.command()(_command)
app.add_typer(data)


def main() -> None:
    """Entry point of the ``nas`` script."""
    run: Callable[[], Any] = app
    run()
    sys.exit(0)
