"""What every command shares: its door, its options and how it prints.

Nothing heavy is imported before a command needs it, so that ``nas --help`` answers at once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.errors import LostRank, VertebraError, out_of_memory
from search_spaces.files import refused

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe field, e.g. data.root=DIR."),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


@contextmanager
def door(resume: str | Callable[[], str] | None = None) -> Iterator[None]:
    """A person's mistake ends in its sentences and exit code 2, Ctrl-C in the line that resumes and 130."""
    try:
        yield
    except (VertebraError, MemoryError, OSError, RuntimeError) as error:
        if (sentence := _sentence(error)) is None:
            raise
        command = resume() if callable(resume) else resume
        where = f" on rank {os.environ['RANK']}" if follows() else ""
        again = f": {command}" if ranks_of_torchrun() == 1 else " the same torchrun command"
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


def ranks_of_torchrun() -> int:
    """Of how many ranks torchrun has started this process as one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def follows() -> bool:
    """Whether this is another rank than the first, which alone speaks."""
    return ranks_of_torchrun() > 1 and os.environ["RANK"] != "0"


def print_json(data: Any) -> None:
    """One object, for scripts."""
    typer.echo(json.dumps(data, indent=1))


def print_table(title: str, rows: list[tuple[str, str]]) -> None:
    """Names in bold, what there is to say beside them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(f"[bold]{name}", value)
    Console().print(table)


def print_columns(columns: list[str], rows: list[list[str]]) -> None:
    """The first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A narrow terminal would cut figures off.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def limit_threads(threads: int) -> None:
    """Before torch is imported, for OpenMP reads this once."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
