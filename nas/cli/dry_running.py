"""What ``nas train --dry-run`` prints."""

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.door import print_columns, print_json, print_table
from nas.saying import tell


def print_dry_run(bundle: str, recipe: Any, given: Mapping[str, Any], title: str, as_json: bool) -> None:
    """Work a training out and print it.

    Args:
        bundle: as of the command.
        recipe: checked.
        given: the options of a dry run, by the arguments of :func:`nas.dry_run.dry_run`.
        title: of the table.
        as_json: one object instead of tables.
    """
    from nas.dry_run import dry_run
    from nas.dry_run_lines import dry_run_lines

    found = dry_run(bundle, recipe, **given, say=tell)
    if as_json:
        print_json(found.to_dict())
        return
    facts, columns, rows, foot = dry_run_lines(found)
    print_table(title, facts)
    print_columns(columns, rows)
    for line in foot:
        typer.echo(line)
