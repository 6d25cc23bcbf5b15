"""``nas data``: imports from the command line, and mistakes that end in a sentence."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from nas.cli import app


def nas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Ten images of 64x48 px, each with one object; every second is a dog."""
    root = tmp_path / "yolo"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(10):
        Image.new("RGB", (64, 48), (20 * index, 90, 90)).save(root / f"images/{index}.png")
        (root / f"labels/{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.5 0.25\n")
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def test_import_says_what_it_has_written(yolo: Path, tmp_path: Path) -> None:
    result = nas("data", "import", yolo, "--format", "yolo", "--to", tmp_path / "new", "--val-share", "0.4")
    assert result.exit_code == 0, result.output
    assert "2 categories: cat, dog" in result.stdout
    assert f"data.root={tmp_path / 'new'}" in result.stdout
    result = nas("data", "import", yolo, "--format", "yolo", "--to", tmp_path / "json", "--json")
    found = json.loads(result.stdout)
    assert found["images"] == {"train": 8, "val": 2} and found["objects"] == found["images"]
    assert found["dropped"] == []


def test_import_refuses_in_sentences(yolo: Path, tmp_path: Path) -> None:
    (yolo / "labels/3.txt").write_text("7 0.5 0.5 0.5 0.25\n")
    result = nas("data", "import", yolo, "--format", "yolo", "--to", tmp_path / "new")
    assert result.exit_code == 2 and result.stdout == ""
    assert "labels/3.txt:1: class 7; allowed are whole numbers from 0 to 1 (cat, dog)" in result.stderr
    result = nas(
        "data", "import", yolo, "--format", "yolo", "--to", tmp_path / "new", "--on-bad", "skip", "--link"
    )
    assert result.exit_code == 0 and "dropped: labels/3.txt:1: class 7" in result.stdout
    for options, words in (
        (("--on-bad", "ignore"), "--on-bad: found 'ignore'; allowed are error and skip"),
        (("--columns", "image"), "--columns: found 'image'; allowed is ROLE=NAME"),
        (("--classes", ","), "--classes: found no name"),
    ):
        result = nas("data", "import", yolo, "--format", "yolo", "--to", tmp_path / "other", *options)
        assert result.exit_code == 2 and words in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "hen\n\ncow\n"),
        ("names.yaml", "names: [hen, cow]"),
        ("n.yml", "names: {0: hen, 1: cow}"),
    ],
)
def test_classes_from_a_file(yolo: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    result = nas(
        "data", "import", yolo, "--format", "yolo", "--to", tmp_path / "new", "--classes", tmp_path / name
    )
    assert "2 categories: hen, cow" in result.stdout, result.output
