"""``nas data``: import and check from the command line, and mistakes that end in a sentence."""

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
    assert f"nas data check {tmp_path / 'new'}" in result.stdout
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


@pytest.fixture
def folder(yolo: Path, tmp_path: Path) -> Path:
    to = tmp_path / "folder"
    assert nas("data", "import", yolo, "--format", "yolo", "--to", to).exit_code == 0
    return to


def test_check_of_a_folder_without_problems(folder: Path) -> None:
    result = nas("data", "check", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "nothing is wrong"
    assert "train       8" in result.stdout and "dog" in result.stdout


def test_check_names_every_problem_and_ends_with_1(folder: Path) -> None:
    (folder / "images/4.png").unlink()
    path = folder / "annotations/train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0
    path.write_text(json.dumps(content))
    result = nas("data", "check", folder)
    assert result.exit_code == 1
    assert "2 problem(s)" in result.stdout
    assert "problem: annotations/train.json: annotation id 1" in result.stdout
    result = nas("data", "check", folder, "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)["problems"]) == 2


def test_check_against_a_detector(folder: Path, tmp_path: Path) -> None:
    detector = ("--detector", "fcos", "--levels", "c3,c4", "--backbone", "resnet18")
    page = tmp_path / "pages/check.html"
    result = nas("data", "check", folder, *detector, "--to", page, "--set", "data.image_size=256")
    assert result.exit_code == 0, result.output
    # 32 px at 64 px wide images are 128 px at 256 px, whose centre is 64 px from the sides: within 4 to 8 of c4's 16.
    assert (
        "c4 (stride 16) has field enough: it sees 211 px in theory, four in five of its objects (10)"
        in result.stdout
    )
    text = page.read_text(encoding="utf-8")
    assert "c4 (stride 16) has field enough" in text and "CR-NAS, section 1" in text
    assert text.count("<image ") == 10, "every image shows something, and there are fewer than 12"
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    result = nas("data", "check", folder, *detector, "--json")
    found = json.loads(result.stdout)
    assert [level["level"] for level in found["pyramid"]["levels"]] == ["c3", "c4"]
    assert found["pyramid"]["backbone"] == "resnet18" and "pictures" not in found
    assert found["length_percentiles"]["50"] == 32
    result = nas("data", "check", folder, "--detector", "fcos", "--levels", "c9")
    assert (
        result.exit_code == 0 and "levels: detector.levels: the backbone has no level ['c9']" in result.stdout
    )


def test_check_with_a_recipe_takes_its_detector_size_and_baseline(folder: Path) -> None:
    recipe = Path(__file__).parents[1] / "examples/recipes/crnas_bccd.yaml"
    result = nas("data", "check", folder, "--recipe", recipe)
    assert result.exit_code == 0, result.output
    assert "fcos over the search's baseline, images resized to 160 px on the longest side" in result.stdout
    train = Path(__file__).parents[1] / "examples/recipes/train_fcos.yaml"
    result = nas("data", "check", folder, "--recipe", train, "--backbone", "resnet18")
    assert "fcos over resnet18, images resized to 320 px" in result.stdout
    result = nas("data", "check", folder, "--detector", "focs")
    assert result.exit_code == 2 and "name" in result.stderr and "'focs'" in result.stderr


def test_pictures_follow_the_seed_and_names_are_escaped(yolo: Path, tmp_path: Path) -> None:
    options = ("--format", "yolo", "--classes", "<b>cat</b>,dog")
    assert nas("data", "import", yolo, "--to", tmp_path / "new", *options).exit_code == 0
    pages = []
    for number, seed in enumerate((0, 0, 1)):
        page = tmp_path / f"{number}.html"
        assert nas("data", "check", tmp_path / "new", "--to", page, "--seed", seed).exit_code == 0
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0] == pages[1] != pages[2]
    assert "<b>cat" not in pages[0] and "&lt;b&gt;cat" in pages[0]
