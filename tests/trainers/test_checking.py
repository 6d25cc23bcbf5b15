"""A folder looked at as a whole: all that is wrong in one list, and what should be known in another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import DataError
from trainers.data.checking import check_folder

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Four images of 200x150 px in train, two in val; ``change`` edits both annotation files first."""

    def write(change: Change | None = None) -> Path:
        root = tmp_path / "data"
        (root / "images").mkdir(parents=True)
        (root / "annotations").mkdir()
        contents = {}
        for split, numbers in (("train", (1, 2, 3, 4)), ("val", (5, 6))):
            for number in numbers:
                shade = np.full((150, 200, 3), 20 * number, dtype=np.uint8)
                Image.fromarray(shade).save(root / "images" / f"{number}.png")
            contents[split] = {
                "images": [
                    {"id": number, "file_name": f"{number}.png", "width": 200, "height": 150}
                    for number in numbers
                ],
                "annotations": [
                    {
                        "id": 10 * number + which,
                        "image_id": number,
                        "category_id": 1 + which % 2,
                        "bbox": [5 * which, 5, *sides],
                        "area": sides[0] * sides[1],
                        "iscrowd": int(which == 5),
                    }
                    for number in numbers
                    for which, sides in enumerate(
                        ((31, 31), (32, 32), (95, 96), (96, 96), (10, 10), (150, 100))
                    )
                ],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
        if change is not None:
            change(contents["train"], contents["val"])
        for split, content in contents.items():
            (root / "annotations" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
        return root

    return write


def test_counts(folder: Callable[..., Path]) -> None:
    root = folder(lambda train, val: train["images"].append({"id": 7, "file_name": "7.png"}))
    Image.new("RGB", (50, 50)).save(root / "images/7.png")
    found = check_folder(root)
    train, val = found.splits
    assert (train.name, len(train.sizes), train.empty) == ("train", 5, 1)
    assert (len(train.objects), train.crowds) == (20, 4)
    assert train.by_size == (8, 8, 4), "below 32 x 32, below 96 x 96, and from there on"
    assert train.by_class == {"cat": 12, "dog": 8}
    assert (len(val.sizes), len(val.objects), val.crowds, val.empty) == (2, 10, 2, 0)
    assert found.problems == ()
    assert found.warnings == ("train: 1 class with fewer than 10 objects: dog",)


def box(train: dict[str, Any], which: int, **values: Any) -> None:
    train["annotations"][which].update(values)


def everything(train: dict[str, Any], val: dict[str, Any]) -> None:
    train["images"][0]["width"] = 640
    train["images"][1]["file_name"] = "gone.png"
    train["annotations"] += [
        {"id": 99, "image_id": 3, "category_id": 1, "bbox": [300, 5, 10, 10]},
        {"id": 30, "image_id": 3, "category_id": 1, "bbox": [3, 5, 10, 10]},
        {"id": 97, "image_id": 3, "category_id": 9, "bbox": [3, 5, 10, 10]},
        {"id": 96, "image_id": 3, "category_id": 1, "bbox": [3, 5, 0, 10]},
    ]
    val["categories"] = [{"id": 1, "name": "cow"}, {"id": 2, "name": "dog"}]


def test_all_problems_are_found_at_once(folder: Callable[..., Path]) -> None:
    root = folder(everything)
    (root / "images/6.png").write_bytes((root / "images/4.png").read_bytes()[:60])
    Image.open(root / "images/4.png").save(root / "images/5.png", optimize=True)
    problems = "\n".join(check_folder(root).problems)
    for words in (
        "annotations/train.json: image id 1: images/1.png is 200x150 px, the annotation file says 640x150",
        "annotations/train.json: image id 2: images/gone.png does not exist",
        "annotations/train.json: annotation id 99 (image id 3, 3.png): bbox [300.0, 5.0, 10.0, 10.0] covers nothing",
        "annotations/train.json: annotation id 30 (image id 3, 3.png): its id occurs twice",
        "annotations/train.json: annotation id 97 (image id 3, 3.png): category 9 is not among",
        "annotations/train.json: annotation id 96 (image id 3, 3.png): bbox [3, 5, 0, 10]",
        "annotations/val.json: image id 6: images/6.png cannot be decoded",
        "annotations/val.json: its categories are not those of train (different: 1:cat, 1:cow)",
        "the same picture is in several splits: train (4.png), val (5.png)",
    ):
        assert words in problems, words
    assert len(problems.splitlines()) == 9


def test_a_missing_or_torn_file_does_not_hide_the_rest(folder: Callable[..., Path]) -> None:
    root = folder()
    (root / "annotations/train.json").write_text("{")
    (root / "annotations/test.json").write_text('{"images": []}')
    found = check_folder(root)
    assert [split.name for split in found.splits] == ["val"]
    assert len(found.problems) == 2
    assert "annotations/train.json: not readable as JSON" in found.problems[0]
    assert "annotations/test.json: needs a list of objects" in found.problems[1]
    (root / "annotations/val.json").unlink()
    assert "annotations/val.json: is not there" in check_folder(root).problems


def suspicious(train: dict[str, Any], val: dict[str, Any]) -> None:
    for content in (train, val):
        content["categories"] += [{"id": 3, "name": "cow"}, {"id": 4, "name": "hen"}]
    box(train, 0, bbox=[-20, 5, 40, 31])
    box(train, 4, bbox=[5, 5, 1.5, 10])
    box(train, 6, category_id=3)
    train["annotations"].append({**train["annotations"][9], "id": 500})


def test_warnings(folder: Callable[..., Path]) -> None:
    root = folder(suspicious)
    turned = Image.open(root / "images/5.png")
    exif = turned.getexif()
    exif[274] = 6
    turned.save(root / "images/5.png", exif=exif)
    Image.open(root / "images/1.png").save(root / "images/2.png")
    Image.new("RGB", (9, 9)).save(root / "images/spare.png")
    found = check_folder(root)
    assert found.problems == ()
    warnings = "\n".join(found.warnings)
    for words in (
        "train: 1 box reaching over the image's edge by more than 1 px (annotation id 10, 1.png",
        "train: 1 box thinner than 2 px (annotation id 14",
        "train: 1 box annotated twice with the same class (annotation id 500",
        "train: 1 picture more than once (1.png)",
        "val: 1 image with a rotation in EXIF, which training does not apply (5.png)",
        "val: 1 class without an object, though another split has some, which gives no AP there: cow",
        "1 category without any object: hen",
        "train: 2 classes with fewer than 10 objects: dog, cow",
        "1 image file below images/ in no annotation file, spare.png",
    ):
        assert words in warnings, words
    assert len(found.warnings) == 9


def test_classes_far_apart_in_number(folder: Callable[..., Path]) -> None:
    def change(train: dict[str, Any], val: dict[str, Any]) -> None:
        del val
        for one in train["annotations"][1:]:
            one["category_id"] = 1
        box(train, 0, category_id=2)
        first = train["annotations"][1]
        for number in range(100):
            train["annotations"].append({**first, "id": 1000 + number, "bbox": [number, 5, 20, 20]})

    warnings = check_folder(folder(change)).warnings
    assert any("cat has 119 objects and dog 1" in one for one in warnings)


def test_masks_are_looked_at_where_they_are_wanted(folder: Callable[..., Path]) -> None:
    def change(train: dict[str, Any], val: dict[str, Any]) -> None:
        for one in train["annotations"] + val["annotations"]:
            x, y, width, height = one["bbox"]
            one["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
        box(train, 2, segmentation=[[1, 2, 3]])

    root = folder(change)
    assert check_folder(root).problems == ()
    (problem,) = check_folder(root, masks=True).problems
    assert "annotation id 12 (image id 1, 1.png): its segmentation has a polygon" in problem


def test_no_folder_says_what_a_folder_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nas data import"):
        check_folder(tmp_path / "none")
    (tmp_path / "some/images").mkdir(parents=True)
    with pytest.raises(DataError, match="annotations"):
        check_folder(tmp_path / "some")


@pytest.mark.parametrize("name", ["bccd-tiny", "nuclei-tiny"])
def test_the_small_sets_have_no_problem(shared_data: Path, name: str) -> None:
    found = check_folder(shared_data / name, masks=name.startswith("nuclei"))
    assert found.problems == ()
    assert [split.name for split in found.splits] == ["train", "val"]


def test_a_set_with_crowds_and_rare_classes(shared_data: Path) -> None:
    found = check_folder(shared_data / "coco-cc")
    assert found.problems == ()
    # Counts as the set's own README has them: 1304 annotations, of which 15 are crowds.
    assert sum(len(split.objects) + split.crowds for split in found.splits) == 1304
    assert sum(split.crowds for split in found.splits) == 15
    assert any("categories without any object" in warning for warning in found.warnings)
