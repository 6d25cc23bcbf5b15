"""Whoever waits while pictures are decoded is told, in every command, and never on a standard output of JSON."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.methods import planning
from nas.methods.data import read_data
from nas.methods.planning import table_jobs
from nas.methods.rehearsing import Piece, rehearse
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run
from trainers.data import checking
from trainers.data.digits import write_folder

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
# The place of the words for a person among the arguments of what opens images.
OPENERS = {"open_split": None, "read_data": 1, "planned_steps": 2, "check_folder": None}
SHORT = (
    "dilations=null",
    "stages.supernet.train.steps=1",
    "stages.supernet.recalibration_batches=1",
    "retrain.train.steps=1",
    "data.source=coco",
)


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words_of(scenes: Path, cache: Path) -> list[str]:
    return [*SHORT, f"data.root={scenes}", f"data.cache={cache}"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes of digits to learn from and two of val."""
    words = ["data.digits.val_images=2"]
    recipe = check(CRNASRecipe, apply_overrides(read_yaml(TINY), words), source="tiny.yaml")
    folder = tmp_path_factory.mktemp("scenes")
    write_folder(recipe.data, folder)
    return folder


def test_whatever_opens_images_is_given_a_way_to_speak() -> None:
    silent, spoken = [], 0
    for path in (ROOT / "nas").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in OPENERS:
                place = OPENERS[node.func.id]
                said = any(one.arg == "say" for one in node.keywords)
                said = said or (place is not None and len(node.args) > place)
                spoken += said
                silent += [] if said else [f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}"]
    assert silent == [] and spoken > 10


def test_commands_tell_that_they_decode(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cache = tmp_path / "run", tmp_path / "pixels"
    sets = [word for text in words_of(scenes, cache) for word in ("--set", text)]

    def told(*arguments: object, train: bool = False, val: bool = False, aside: bool = True) -> None:
        shutil.rmtree(cache, ignore_errors=True)
        result = nas(*arguments)
        assert result.exit_code == 0, result.output
        # A console breaks lines.
        said = " ".join((result.stderr if aside else result.stdout).split())
        assert (f"decoding 24 pictures into {cache}" in said) == train, result.output
        assert (f"decoding 2 pictures into {cache}" in said) == val, result.output
        if "--json" in arguments:
            json.loads(result.stdout)

    told("search", TINY, "--run", run, *sets, train=True, val=True)
    told("replay", run, "--json", train=True)
    told("evaluate", run, "--json", val=True)
    told("export", run, "--to", tmp_path / "bundle", "--format", "source", "--json", val=True)
    told("report", run, val=True, aside=False)
    # Six processes that import torch would take half a minute.
    monkeypatch.setattr(
        planning, "in_processes", lambda work, pieces, _: ((one, work(one)) for one in pieces)
    )
    told("plan", TINY, *sets, "--measure", "0", "--json", train=True, val=True)


def test_a_rehearsal_tells_that_it_decodes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "pixels"
    recipe = check(CRNASRecipe, apply_overrides(read_yaml(TINY), words_of(scenes, cache)), source="tiny.yaml")
    run = Run.create(tmp_path / "run", recipe)
    ((work, job),) = table_jobs(run, read_data(run.recipe))
    for name, one, val in ((work.name, job, True), ("stages: scoring", None, False)):
        shutil.rmtree(cache)
        rehearse(Piece(directory=run.directory, work=name, seconds=0.01, number=0, job=one))
        told = capsys.readouterr()
        assert "decoding 24 pictures into" in told.err and told.out == ""
        assert ("decoding 2 pictures into" in told.err) == val


def test_a_check_of_a_folder_tells_how_far_it_is(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PATIENCE", -1.0)
    result = nas("data", "check", scenes, "--json")
    assert json.loads(result.stdout)["problems"] == []
    assert (
        "train: looked at 23 of 24 pictures\n" in result.stderr and "val: looked at 1 of 2" in result.stderr
    )
