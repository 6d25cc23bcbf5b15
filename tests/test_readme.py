"""What the README shows works: its Python runs, its commands and recipes exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from nas.cli import app
from nas.config import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for line in README.splitlines() if line.startswith("nas ")]


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out.split()
    assert printed[0] == re.search(r"print\(space\.size\)  # (\d+)", README)[1]  # type: ignore[index]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[:30])
def test_its_commands_exist(line: str) -> None:
    """Parsed by the command line itself, not run."""
    _, name, *arguments = shlex.split(line, comments=True)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert name in commands, f"there is no command nas {name}"
    commands[name].make_context(name, arguments)


def test_its_recipes_and_pages_are_there() -> None:
    assert len(COMMANDS) >= 8
    shown = {*re.findall(r"examples/recipes/\w+\.yaml", README)}
    assert shown
    for path in shown:
        assert read_yaml(ROOT / path)["name"]
    for path in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / path).exists(), path
