"""``docs/extend.md`` as it stands: its files pass the contracts, are searched, killed, moved, resumed and exported."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from nas.budget import read_budget
from nas.config import check
from nas.export.bundle import load_bundle, load_detector
from nas.methods.catalog import check_search, procedure
from nas.methods.data import read_data
from nas.methods.exporting import export
from nas.methods.granting import portions_of
from nas.methods.one_phase import carry_out, check_recipe
from nas.planning import Work
from nas.progress import Silent
from nas.recipes.train_job import TrainJobRecipe
from nas.run import Run
from nas.show import description, histories, summary
from nas.targets import read_recipe
from nas.testing import check_proxy
from nas.training import evaluate_training, train_bundle
from search_spaces.errors import ConfigError, RunError
from search_spaces.families import family_of
from search_spaces.targets import load, load_file
from trainers.data.catalog import open_split

ROOT = Path(__file__).parents[1]
KILLED = """
import os, signal
import nas.methods.searching as searching
from nas.cli import main

whole = searching.search

def killed(*, on_trial, **rest):
    def note(record, history):
        on_trial(record, history)
        if record.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(on_trial=note, **rest)

searching.search = killed
main()
"""
# Nothing of ours, and nothing that we need, can be imported.
STRANGER = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nas", "search_spaces", "trainers", "torchvision", "safetensors", "pydantic"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import backbone, torch
with torch.no_grad():
    maps = backbone.load(sys.argv[1] + "/weights.safetensors")(torch.full((1, 3, 64, 64), 0.5))
torch.save(maps, sys.argv[2])
"""


Write = Callable[[Path], Path]


@pytest.fixture(scope="module")
def mine(page_of_extensions: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files in a folder."""
    return page_of_extensions(tmp_path_factory.mktemp("page") / "mine")


def begin(recipe: Path, directory: Path, *overrides: str) -> Run:
    checked = check_search(read_recipe(recipe, overrides), source=str(recipe))
    check_recipe(checked, source=str(recipe))  # type: ignore[arg-type]
    return Run.create(directory, checked)


@pytest.fixture(scope="module")
def whole(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run of the page's recipe."""
    run = begin(mine / "my_search.yaml", tmp_path_factory.mktemp("whole") / "run")
    carry_out(run, Silent())
    return run


@pytest.fixture(scope="module")
def resumed(page_of_extensions: Write, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, killed after its third trial; then its files were deleted and the run was moved, then resumed."""
    folder = tmp_path_factory.mktemp("killed")
    files = page_of_extensions(folder / "elsewhere")
    sets = ["--set", "workers=2", "--set", "retrain.rivals=[]"]
    command = ["search", "elsewhere/my_search.yaml", "--run", "run", *sets]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    shutil.rmtree(files)
    (folder / "run").rename(folder / "moved")
    run = Run.open(folder / "moved")
    carry_out(run, Silent())
    return run


def trials(run: Run) -> list[tuple[Any, ...]]:
    return [
        (phase, record.number, record.digest, record.value, record.state)
        for phase, history in histories(run).items()
        for record in history
    ]


def tables(run: Run) -> dict[str, Any]:
    return {
        str(path.relative_to(run.directory)): json.loads(path.read_text())["metrics"]
        for path in sorted(run.directory.glob("retrain/*/*/result.json"))
    }


def test_the_page_has_a_file_of_each_kind(mine: Path) -> None:
    kinds = {"space", "network", "proxy", "controller", "detector"}
    assert {path.name for path in mine.iterdir()} == {
        *(f"my_{kind}.py" for kind in kinds),
        "my_search.yaml",
        "test_mine.py",
    }


def test_its_tests_pass(mine: Path) -> None:
    tests = {name: one for name, one in vars(load_file(mine / "test_mine.py")).items() if name[:5] == "test_"}
    assert len(tests) == 4
    for test in tests.values():
        test()


def test_a_plan_calls_its_proxy_and_does_not_guess_what_it_costs(whole: Run) -> None:
    data = read_data(whole.recipe)
    works = [one for one in procedure(whole.recipe).foreseen(whole, data) if isinstance(one, Work)]
    assert [(one.name, one.macs) for one in works] == [("search: scoring", None), ("random: scoring", None)]
    seconds = procedure(whole.recipe).rehearse(whole, data, works[0].name, 0.01, Random(0))
    assert seconds and min(seconds) > 0
    with pytest.raises(
        ConfigError, match=r"budget: found 1e\+09 MACs, but nobody knows what search: scoring takes"
    ):
        portions_of(works, {}, read_budget("1e9 MACs"))


def test_its_proxy_keeps_the_contract(mine: Path) -> None:
    recipe = check_search(read_recipe(mine / "my_search.yaml"), source="my_search.yaml")
    space = load(f"{mine}/my_space.py:KernelSpace")()
    proxy = load(f"{mine}/my_proxy.py:GradientNorm")(
        train_set=open_split(recipe.data, "train"), detector=recipe.detector, seed=3
    )
    check_proxy(proxy, list(space.enumerate())[:3])


def test_its_recipe_is_searched_to_the_end(whole: Run) -> None:
    shown = summary(whole.directory)
    assert shown["state"] == "complete" and shown["scored_by"] == "my_proxy.py:GradientNorm"
    assert [trial["phase"] for trial in shown["trials"]] == ["search"] * 5 + ["random"] * 5
    assert shown["best"] == max(trial["value"] for trial in shown["trials"] if trial["phase"] == "search") > 0
    assert shown["winner"]["family"] == "my_space.py:PlainFamily"
    page = (whole.directory / "report.html").read_text()
    assert "those of my_proxy.py:GradientNorm, not AP" in page
    _, _, text = (whole.directory / "recipe.yaml").read_text().partition("\n")
    assert "target: targets/my_detector.py:Points" in text
    assert str(whole.directory.parent) not in text, "a run can be moved"


def test_killed_moved_and_resumed_by_two_workers_it_is_the_same_run(whole: Run, resumed: Run) -> None:
    assert trials(resumed) == [trial for trial in trials(whole) if trial[0] == "search"]
    assert len(tables(resumed)) == 2 and tables(resumed).items() <= tables(whole).items()
    assert resumed.read_winner().digest == whole.read_winner().digest  # type: ignore[union-attr]
    assert str(resumed.directory) in str(resumed.read_winner().family)  # type: ignore[union-attr]


def test_the_bundle_runs_where_there_is_only_torch(whole: Run, tmp_path: Path) -> None:
    bundle = whole.directory / "bundle"
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(bundle), str(tmp_path / "maps.pt")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    architecture, weights = load_bundle(bundle, trust_code=True)
    assert weights is not None and architecture.digest == whole.read_winner().digest  # type: ignore[union-attr]
    body = family_of(architecture).build(architecture)
    body.load_state_dict(weights)
    with torch.no_grad():
        expected = body.eval()(torch.full((1, 3, 64, 64), 0.5))
    found = torch.load(tmp_path / "maps.pt", weights_only=True)
    assert list(found) == list(expected) == ["c3", "c4", "c5"]
    for name, one in found.items():
        torch.testing.assert_close(one, expected[name], atol=1e-6, rtol=1e-6)


def test_a_bundle_is_described_and_trained_wherever_it_lies(mine: Path, whole: Run, tmp_path: Path) -> None:
    bundle = shutil.copytree(whole.directory / "bundle", tmp_path / "bundle")
    facts = description(str(bundle), "64x64")
    assert facts["digest"] == whole.read_winner().digest and facts["macs"] > 0  # type: ignore[union-attr]
    target = f"detector.target={mine}/my_detector.py:Points"
    data = read_recipe(ROOT / "tests/recipes/train.yaml", ["detector.name=null", target, "init=bundle"])
    recipe = check(TrainJobRecipe, data, source="train.yaml")
    metrics = train_bundle(str(bundle), recipe, tmp_path / "training", Silent())
    shutil.rmtree(bundle)
    (tmp_path / "training").rename(tmp_path / "moved")
    assert evaluate_training(tmp_path / "moved") == metrics
    folder = export(str(tmp_path / "moved")).rename(tmp_path / "detector")
    with pytest.raises(
        RunError, match=r"brings code of its own.*: my_space\.py:PlainFamily, my_detector\.py:Points"
    ):
        load_detector(folder)
    detector = load_detector(folder, trust_code=True).detector
    assert type(detector).__name__ == "Points" and not detector.training
    (tmp_path / "moved/targets/my_detector.py").write_text("")
    with pytest.raises(RunError, match=r"my_detector\.py is not the file that .* was begun with"):
        evaluate_training(tmp_path / "moved")


def test_own_files_may_be_edited_and_the_run_keeps_its_copy(mine: Path, tmp_path: Path) -> None:
    files = shutil.copytree(mine, tmp_path / "files")
    run = begin(files / "my_search.yaml", tmp_path / "run")
    assert begin(files / "my_search.yaml", tmp_path / "run") == run
    with (files / "my_network.py").open("a") as file:
        file.write("# a thought\n")
    assert Run.open(tmp_path / "run") == run
    with pytest.raises(
        RunError, match=r"files/my_network\.py has changed since .* was begun; take a new --run"
    ):
        begin(files / "my_search.yaml", tmp_path / "run")
    copy = tmp_path / "run/targets/my_network.py"
    copy.write_bytes((files / "my_network.py").read_bytes())
    with pytest.raises(
        RunError, match=r"targets/my_network\.py is not the file that .*Put the old text back"
    ):
        Run.open(tmp_path / "run")


def test_a_directory_without_recipe_is_new_whatever_was_copied(mine: Path, tmp_path: Path) -> None:
    files = shutil.copytree(mine, tmp_path / "files")
    begin(files / "my_search.yaml", tmp_path / "run")
    (tmp_path / "run/recipe.yaml").unlink()  # as after a kill before it was written
    with (files / "my_proxy.py").open("a") as file:
        file.write("# a thought\n")
    begin(files / "my_search.yaml", tmp_path / "run")
    assert Run.open(tmp_path / "run").home.joinpath("my_proxy.py").read_text().endswith("# a thought\n")


def test_a_recipe_of_a_run_begins_another_run(whole: Run, tmp_path: Path) -> None:
    again = begin(whole.directory / "recipe.yaml", tmp_path / "again")
    assert again.digest == whole.digest
    assert str(tmp_path) in str(again.recipe.detector.target)


def test_every_part_is_independent_of_the_others(mine: Path, tmp_path: Path) -> None:
    """One's own space with the house's short training, controller and detector."""
    run = begin(
        mine / "my_search.yaml",
        tmp_path / "run",
        "search.proxy={train: {steps: 2, batch_size: 4}}",
        "search.controller={name: random, budget: 2}",
        "detector={levels: [c3, c4, c5], fpn_channels: 8, head_convs: 0}",
        "retrain=null",
    )
    assert run.recipe.detector.name == "fcos"
    assert replace(run.recipe, name="x").detector.target is None
    winner = carry_out(run, Silent())
    assert winner.family.endswith("run/targets/my_space.py:PlainFamily")
    assert summary(run.directory)["scored_by"] == "AP on the held-out images"
