"""The command line: quick to answer, JSON that scripts can rely on, and mistakes that end in a sentence."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.export.bundle import load_detector
from nas.export.manifest import read_manifest
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
TRAIN = ROOT / "tests/recipes/train.yaml"
SPACES = [
    f"crnas.{network}.{kind}"
    for kind in ("stages", "dilations")
    for network in ("resnet18", "resnet50", "resnet101", "resnext50", "resnext101", "mobilenetv2")
] + [f"spinenet.{network}" for network in ("r23_sp30", "r0_sp53", "spinenet49", "spinenet49_mobile")]
# The shortest whole run: one phase, one step of everything.
SHORT = (
    "dilations=null",
    "stages.supernet.train.steps=1",
    "stages.supernet.recalibration_batches=1",
    "retrain.train.steps=1",
    "data.digits.val_images=2",
)


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sets(overrides: Sequence[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]


def data_of(*arguments: object) -> Any:
    result = nas(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """What a person reads who made a mistake."""
    result = nas(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ") and result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "short"
    directory.mkdir()
    (directory / "notes.txt").write_text("a folder without recipe.yaml counts as new")
    result = nas("search", TINY, "--run", directory, *sets(SHORT))
    assert result.exit_code == 0, result.output
    assert f"nas show {directory}" in result.stdout
    return directory


def test_help_names_every_command() -> None:
    text = nas("--help").stdout
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert {"plan", "search", "resume", "show", "train", "evaluate", "report"} < names
    assert all(name in text for name in names)


@pytest.mark.parametrize("module", ["nas.cli", "nas.config", "nas.recipes.search"])
def test_nothing_heavy_is_imported_before_a_command_needs_it(module: str) -> None:
    heavy = ("torch", "torchvision", "optuna", "numpy", "sklearn", "pycocotools")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_describe_json() -> None:
    found = data_of("describe", "resnet18", "--input", "224x224")
    assert found.keys() >= {"params", "macs", "levels"}
    assert isinstance(found["params"], int) and isinstance(found["macs"], int)
    assert list(found["levels"]) == ["c2", "c3", "c4", "c5"]
    assert found["levels"]["c5"]["channels"] == 512 and found["levels"]["c5"]["stride"] == 32
    wide = data_of("describe", "scr_resnet18", "--input", "800x1088")
    assert wide["macs"] > found["macs"] and wide["input"] == [800, 1088]
    assert data_of("describe", "resnet18")["macs"] == found["macs"], "224x224 when nothing is said"


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "scr_resnet18", "scr_resnet50"])
def test_described_architectures_have_names(name: str) -> None:
    assert data_of("describe", name)["params"] > 10**7


def test_spaces_json() -> None:
    sizes = {name: data_of("spaces", name)["size"] for name in SPACES}
    assert all(isinstance(size, int) for size in sizes.values())
    assert [sizes[f"crnas.{name}.stages"] for name in ("resnet18", "resnet50", "resnet101")] == [9, 153, 374]
    assert sizes["crnas.resnet18.dilations"] == 3**8 and sizes["crnas.resnet101.dilations"] == 3**33
    found = data_of("spaces", "crnas.resnet18.stages")
    assert found["genes"]["blocks"]["size"] == 9 and found["name"] == "crnas.resnet18.stages"
    assert found["distinct"] == 9
    spinenet = data_of("spaces", "spinenet.r0_sp53")
    assert spinenet["size"] == 435_456_000 * 1_062_485_424_000_000_000
    assert spinenet["distinct"] is None and "distinct" not in nas("spaces", "spinenet.spinenet49").output
    listed = data_of("spaces")
    assert {space["name"] for space in listed} == set(SPACES)


def test_show_json(finished: Path) -> None:
    found = data_of("show", finished)
    assert found.keys() >= {"state", "winner", "best", "cost", "trials"}
    assert found["state"] == "complete"
    assert len(found["trials"]) == 6
    for number, trial in enumerate(found["trials"]):
        assert trial.keys() >= {"number", "phase", "digest", "value", "state"}
        assert (trial["number"], trial["phase"], trial["state"]) == (number, "stages", "complete")
    assert found["best"] == max(trial["value"] for trial in found["trials"])
    assert found["winner"]["digest"] in {trial["digest"] for trial in found["trials"]}
    assert (finished / "notes.txt").exists()


def test_show_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    Run.create(tmp_path, check(CRNASRecipe, read_yaml(TINY), source="tiny"))
    found = data_of("show", tmp_path)
    assert (found["state"], found["winner"], found["best"], found["trials"]) == ("new", None, None, [])
    assert nas("show", tmp_path).exit_code == 0


def test_evaluate_json(finished: Path) -> None:
    found = data_of("evaluate", finished)
    assert found.keys() >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert all(isinstance(found[name], float) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))


def test_tables_for_people(finished: Path) -> None:
    for arguments in (
        ["show", finished],
        ["describe", "resnet50"],
        ["spaces"],
        ["evaluate", finished],
    ):
        result = nas(*arguments)
        assert result.exit_code == 0 and result.stdout.strip(), result.output


def test_searching_again_in_a_finished_directory_changes_nothing(finished: Path) -> None:
    before = (finished / "study.log").read_bytes()
    assert nas("search", TINY, "--run", finished, *sets(SHORT)).exit_code == 0
    assert nas("resume", finished).exit_code == 0
    assert (finished / "study.log").read_bytes() == before


def test_export_report_and_train(finished: Path, tmp_path: Path) -> None:
    few_formats = ["--format", "source", "--format", "mmdet"]
    exported = nas("export", finished, "--to", tmp_path / "bundle", *few_formats)
    assert exported.exit_code == 0
    assert "mmdet/vertebra_mmdet.py" in exported.output
    assert "2 images of val" in " ".join(exported.output.split())
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.kind == "detector" and {"winner", "baseline"} == set(manifest.about["scores"])
    assert manifest.about["search"]["stages_candidates"] == 6 and manifest.about["training"]["images"] == 4
    assert load_detector(tmp_path / "bundle").categories[1].name == "7"
    assert nas("report", finished).exit_code == 0
    few = sets(["train.epochs=null", "train.steps=1", "data.digits.val_images=2", "train.evaluate_every=0"])
    found = data_of("train", tmp_path / "bundle", TRAIN, "--run", tmp_path / "trained", *few)
    assert found.keys() >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert data_of("evaluate", tmp_path / "trained") == found
    assert data_of("describe", tmp_path / "bundle")["digest"] == data_of("describe", finished)["digest"]


@pytest.mark.parametrize("name", ["bccd", "nuclei", "aquarium"])
def test_real_images_without_a_folder(name: str, tmp_path: Path) -> None:
    recipe = ROOT / f"examples/recipes/crnas_{name}.yaml"
    run = tmp_path / "run"
    extra = sets(["device=cpu"])
    for overrides in ([], [f"data.root={tmp_path / 'nowhere'}"], [f"data.root={tmp_path}"]):
        text = refused("search", recipe, "--run", run, *extra, *sets(overrides))
        assert "data.root" in text and "--set data.root=DIR" in text
        for part in ("images/", "annotations/train.json", "annotations/val.json"):
            assert part in text, "the error says what such a folder looks like"
        assert not run.exists(), "nothing is written before the recipe is known to work"


def test_config_errors_come_all_at_once_before_anything_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = ["sede=1", "stages.controller.budget=x", "data.digits.seed=a"]
    text = refused("search", TINY, "--run", run, *sets(overrides))
    for words in (f"{TINY}: sede", "did you mean 'seed'", "stages.controller.budget", "data.digits.seed"):
        assert words in text
    text = refused("search", TINY, "--run", run, *sets(["device=tpu9", "stages.controller.name=greddy"]))
    assert f"{TINY}: device" in text and "did you mean 'greedy'" in text
    refused("search", TINY, "--run", run, "--set", "detector.levels=[c1]")
    refused("search", TINY, "--run", run, "--set", "seed.x=1", "--set", "nonsense")
    refused("search", tmp_path / "none.yaml", "--run", run)
    assert not run.exists()


def test_a_file_where_the_run_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot make the run directory" in refused("search", TINY, "--run", tmp_path / "file")


def test_another_recipe_in_the_directory(finished: Path) -> None:
    assert "another recipe" in refused("search", TINY, "--run", finished)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe", "resnet8"], "did you mean resnet18"),
        (["describe", "resnet18", "--input", "224"], "800x1088"),
        (["describe", "resnet18", "--input", "8x8"], "at least 32"),
        (["describe", "{tmp}"], "neither winner.yaml nor architecture.json"),
        (["describe", "{tmp}/list.json"], "holds no architecture"),
        (["spaces", "crnas.resnet19.stages"], "crnas.resnet18.stages"),
        (["show", "{tmp}"], "no recipe.yaml"),
        (["resume", "{tmp}/none"], "nas search RECIPE --run"),
        (["report", "{tmp}"], "no recipe.yaml"),
        (["evaluate", "{tmp}"], "nas train"),
        (["export", "nobody", "--to", "{tmp}/x"], "unknown architecture"),
        (["export", "resnet18", "--to", "{tmp}/x", "--format", "onxx"], "--format: found 'onxx'"),
        (["export", "{begun}", "--to", "{tmp}/x"], "nas resume"),
        (["evaluate", "{begun}"], "nas resume"),
        (["train", "resnet18", "{tmp}/list.json", "--run", "{tmp}/x"], "mapping"),
        (["train", "resnet18", str(TRAIN), "--run", "{tmp}/x", "--set", "data.source=coco"], "images/"),
        (["train", "nobody", str(TRAIN), "--run", "{tmp}/x"], "unknown architecture"),
        (["train", "resnet18", str(TINY), "--run", "{tmp}/x"], "train: is missing"),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value[:3]) if isinstance(value, list) else "",
)
def test_every_mistake_ends_in_a_sentence_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "list.json").write_text("[1]")
    begun = tmp_path / "begun"
    Run.create(begun, check(CRNASRecipe, apply_overrides(read_yaml(TINY), []), source="tiny"))
    text = refused(*(word.format(tmp=tmp_path, begun=begun) for word in arguments))
    assert words in text
    assert not (tmp_path / "x").exists()


def test_a_command_without_its_arguments_is_told_so() -> None:
    for arguments in (["search"], ["search", "x.yaml"], ["nonsense"], ["show", "--jsn"]):
        result = nas(*arguments)
        assert result.exit_code == 2 and "Usage" in result.output and "Traceback" not in result.output


def test_exit_code_2_without_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas.cli", "resume", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.startswith("error: ") and "Traceback" not in found.stderr
