"""Every example runs as its first line says; the numbered ones one after the other, each with what came before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas.config import read_yaml
from nas.methods.catalog import check_search
from nas.methods.exporting import export

ROOT = Path(__file__).parents[1]
NUMBERED = sorted((ROOT / "examples").glob("[0-9]*.py"))
HANGS = 300
"""Seconds after which an example is taken to hang: each takes less than a minute where nothing else runs."""
TOPICS = ("describe", "sample", "cost", "search", "resume", "export", "retrain", "deploy")
MADE = {
    "04_search": ("search/report.html", "search/winner.yaml"),
    "06_export": ("bundle/backbone.py", "bundle/export.json", "bundle/detector.safetensors"),
    "07_retrain": ("retrained/result.json",),
    "08_deploy": ("predicted/predictions.json",),
}
# Of those before it, so that each of them can be tested alone.
NEEDS = {
    "05_resume": ("04_search",),
    "06_export": ("04_search",),
    "07_retrain": ("04_search", "06_export"),
    "08_deploy": ("04_search", "06_export"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def run(example: Path, *arguments: Path) -> str:
    done = subprocess.run(
        [sys.executable, example, *arguments],
        capture_output=True,
        text=True,
        cwd=arguments[0],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


def test_there_is_one_of_each() -> None:
    assert [path.stem for path in NUMBERED] == [
        f"{at:02}_{topic}" for at, topic in enumerate(TOPICS, start=1)
    ]
    for path in NUMBERED:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert f"python examples/{path.name}" in first, "how to run it stands in the first line"


@pytest.mark.parametrize("example", NUMBERED, ids=lambda path: path.stem)
def test_numbered_example_runs(example: Path, folder: Path) -> None:
    for name in NEEDS.get(example.stem, ()):
        if not made_by(name, folder):
            run(ROOT / "examples" / f"{name}.py", folder)
    said = run(example, folder)
    assert made_by(example.stem, folder)
    if example.stem == "05_resume":
        assert "of them as they were" in said


def made_by(name: str, folder: Path) -> bool:
    """Whether all is there that an example writes."""
    return all((folder / one).is_file() for one in MADE.get(name, ()))


def test_a_search_with_a_score_of_ones_own(tmp_path: Path) -> None:
    assert "trials" in run(ROOT / "examples/own_score.py", tmp_path)


def test_a_bundle_needs_nothing_but_torch(tmp_path: Path) -> None:
    export("scr_resnet18", tmp_path / "bundle")
    assert "c5" in run(ROOT / "examples/use_a_bundle.py", tmp_path / "bundle")


def test_the_first_search_is_a_recipe_like_any_other() -> None:
    path = ROOT / "examples/recipes/first_search.yaml"
    assert check_search(read_yaml(path), source=str(path)).name == "first_search"
