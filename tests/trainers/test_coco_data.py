"""COCO folders: what a set holds, and one clear sentence for everything that can be wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from search_spaces.errors import DataError
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out, require_same_categories
from trainers.recipes import DataRecipe

Change = Callable[[dict[str, Any]], None]
Folder = Callable[..., Path]


def opened(root: Path, **settings: Any) -> DetectionSet:
    return open_split(DataRecipe(root=str(root), **settings), "train")


def test_a_set_as_stored(coco_folder: Folder) -> None:
    data = opened(coco_folder())
    assert len(data) == 3
    assert data.images.dtype == torch.uint8
    assert data.image_size == (96, 128)  # 80 and 100 px rounded up to multiples of 32
    assert data.image_ids == (10, 11, 12)
    assert [(one.id, one.name) for one in data.categories] == [(3, "cat"), (7, "dog")]
    assert data.skipped == ()
    first = data.targets[0]
    assert first["labels"].tolist() == [1, 0]
    assert first["boxes"].tolist() == [[10, 5, 30, 15], [90, 40, 100, 50]], (
        "the second is clipped to the image"
    )
    assert data.images[0, :, :50, :100].eq(200).all()
    assert data.images[0, :, 50:].eq(0).all() and data.images[0, :, :, 100:].eq(0).all()


def test_crowds_are_for_evaluation_only_and_empty_images_stay(coco_folder: Folder) -> None:
    data = opened(coco_folder())
    assert data.targets[1]["labels"].tolist() == [1]
    assert data.targets[2]["boxes"].shape == (0, 4)
    assert data.num_objects == 3
    crowds = [one for one in data.ground_truth["annotations"] if one["iscrowd"]]
    assert [one["id"] for one in crowds] == [3]
    areas = {one["id"]: one["area"] for one in data.ground_truth["annotations"]}
    assert areas[2] == 1.0, "a missing area is that of the box"


@pytest.mark.parametrize(
    ("image_size", "canvas", "scale"),
    [(64, (64, 64), 0.64), ((64, 96), (64, 96), 0.96), ((50, 200), (64, 224), 1.0), (200, (224, 224), 2.0)],
)
def test_resizing_keeps_the_aspect_ratio(
    coco_folder: Folder, image_size: int | tuple[int, int], canvas: tuple[int, int], scale: float
) -> None:
    data = opened(coco_folder(), image_size=image_size)
    assert data.image_size == canvas
    assert data.scales[0].tolist() == pytest.approx([scale, scale])
    assert data.targets[0]["boxes"][0].tolist() == pytest.approx(
        [10 * scale, 5 * scale, 30 * scale, 15 * scale]
    )
    assert data.ground_truth["annotations"][0]["bbox"] == [10, 5, 20, 10], "evaluation is in original px"
    assert data.sizes == ((50, 100), (80, 60), (40, 40))


def turn(root: Path, orientation: int) -> None:
    """Let a.png, 100x50 px, ask viewers for an orientation; its upper left corner is black."""
    pixels = np.full((50, 100, 3), 200, dtype=np.uint8)
    pixels[:10, :20] = 0
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    image.save(root / "images/a.png", exif=exif)


@pytest.mark.parametrize("orientation", [3, 6])
def test_annotations_are_of_the_stored_pixels_whatever_exif_says(
    coco_folder: Folder, orientation: int
) -> None:
    root = coco_folder()
    turn(root, orientation)
    data = opened(root)
    assert data.sizes[0] == (50, 100) and data.images[0, :, :10, :20].eq(0).all()
    assert data.targets[0]["boxes"].tolist() == [[10, 5, 30, 15], [90, 40, 100, 50]]


def test_a_picture_is_turned_where_its_annotations_state_the_turned_size(coco_folder: Folder) -> None:
    root = coco_folder(edit("images", 0, width=50, height=100))
    turn(root, 6)
    # The second box lies right of the turned picture.
    data = opened(root, on_bad="skip")
    assert data.sizes[0] == (100, 50)
    assert data.images[0, :, :20, 40:50].eq(0).all(), "a quarter clockwise: the corner is at the upper right"
    assert data.images[0, :, :100, :50].sum() == 3 * 200 * (100 * 50 - 10 * 20)
    assert data.targets[0]["boxes"].tolist() == [[10, 5, 30, 15]]


def edit(part: str, index: int, **values: Any) -> Change:
    return lambda content: content[part][index].update(values)


def repeat(part: str, index: int) -> Change:
    return lambda content: content[part].append(dict(content[part][index]))


BAD: dict[str, tuple[Change, tuple[str, ...], int, int]] = {
    # name: (edit, words of the message, images left by skip, boxes left by skip)
    "missing image": (
        edit("images", 0, file_name="gone.png"),
        ("image id 10", "gone.png", "does not exist"),
        2,
        1,
    ),
    "folder as image": (edit("images", 0, file_name="sub"), ("image id 10", "cannot be decoded"), 2, 1),
    "climbing path": (
        edit("images", 1, file_name="../../b.jpg"),
        ("image id 11", "leads out of images/"),
        2,
        2,
    ),
    "hidden climb": (
        edit("images", 1, file_name="sub/../../x"),
        ("image id 11", "leads out of images/"),
        2,
        2,
    ),
    "absolute path": (
        edit("images", 1, file_name="/etc/passwd"),
        ("image id 11", "leads out of images/"),
        2,
        2,
    ),
    "drive path": (edit("images", 1, file_name="C:\\x.png"), ("image id 11", "leads out of images/"), 2, 2),
    "backslash climb": (
        edit("images", 1, file_name="..\\x.png"),
        ("image id 11", "leads out of images/"),
        2,
        2,
    ),
    "no file name": (edit("images", 1, file_name=""), ("image id 11", "no file name"), 2, 2),
    "zero byte": (edit("images", 1, file_name="a\0.png"), ("image id 11", "no file name"), 2, 2),
    "name of number": (edit("images", 1, file_name=5), ("image id 11", "no file name"), 2, 2),
    "id of text": (edit("images", 2, id="12"), ("c.png", "id must be an integer", "'12'"), 2, 3),
    "other size": (edit("images", 0, width=640), ("image id 10", "100x50", "640x50"), 2, 1),
    "twice the image id": (repeat("images", 0), ("image id 10", "occurs twice"), 3, 3),
    "twice the box id": (repeat("annotations", 0), ("annotation id 0", "a.png", "occurs twice"), 3, 3),
    "box id of text": (edit("annotations", 0, id="x"), ("annotation id 'x'", "integer"), 3, 2),
    "zero width": (
        edit("annotations", 0, bbox=[1, 1, 0, 5]),
        ("annotation id 0", "a.png", "[1, 1, 0, 5]"),
        3,
        2,
    ),
    "negative height": (edit("annotations", 0, bbox=[1, 1, 5, -5]), ("annotation id 0", "above 0"), 3, 2),
    "not a number": (
        edit("annotations", 0, bbox=[1, 1, float("nan"), 5]),
        ("annotation id 0", "finite"),
        3,
        2,
    ),
    "three numbers": (
        edit("annotations", 0, bbox=[1, 1, 5]),
        ("annotation id 0", "four finite numbers"),
        3,
        2,
    ),
    "no box": (edit("annotations", 0, bbox=None), ("annotation id 0", "None"), 3, 2),
    "outside": (
        edit("annotations", 0, bbox=[100, 1, 5, 5]),
        ("annotation id 0", "covers nothing", "100x50"),
        3,
        2,
    ),
    "unknown category": (edit("annotations", 0, category_id=99), ("annotation id 0", "category 99"), 3, 2),
    "image id of a list": (
        edit("annotations", 0, image_id=[10]),
        ("annotation id 0", "image id [10]", "no image"),
        3,
        2,
    ),
    "unknown image": (
        edit("annotations", 0, image_id=99),
        ("annotation id 0", "image id 99", "no image"),
        3,
        2,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_every_problem_is_one_clear_error_or_is_skipped_and_counted(coco_folder: Folder, name: str) -> None:
    change, words, images, boxes = BAD[name]
    root = coco_folder(change)
    with pytest.raises(DataError) as caught:
        opened(root)
    text = str(caught.value)
    assert "train.json: 1 problem(s)" in text, text
    assert "data.on_bad=skip" in text
    for word in words:
        assert word in text
    data = opened(root, on_bad="skip")
    assert len(data.skipped) == 1 and words[0] in data.skipped[0]
    assert (len(data), data.num_objects) == (images, boxes)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.95])
def test_a_truncated_image_is_found_at_any_length(coco_folder: Folder, share: float) -> None:
    root = coco_folder()
    for name, number in (("a.png", 10), ("sub/b.jpg", 11)):
        path = root / "images" / name
        with Image.open(path) as image:
            noise = np.random.default_rng(0).integers(0, 256, (*image.size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"image id {number}: .*cannot be decoded"):
            opened(root)
        path.write_bytes(whole)


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_what_cannot_be_skipped(coco_folder: Folder, on_bad: str) -> None:
    root = coco_folder()
    path = root / "annotations" / "train.json"
    whole = path.read_text(encoding="utf-8")
    for broken, words in (
        (whole[:100], "not readable as JSON"),
        ("", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[]", "a JSON object"),
        (whole.replace('"images"', '"pictures"'), "'images'"),
        (json.dumps({"images": [1], "annotations": [], "categories": []}), "'images'"),
        (whole.replace('"id": 7', '"id": 3'), "category id 3 occurs twice"),
        (json.dumps({"images": [], "annotations": [], "categories": []}), "'categories' is empty"),
        (json.dumps({"images": [], "annotations": [], "categories": [{"id": 1}]}), "no usable image"),
    ):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(DataError, match=words):
            opened(root, on_bad=on_bad)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="not readable as JSON"):
        opened(root, on_bad=on_bad)


def test_many_problems_come_together_and_the_list_is_cut(coco_folder: Folder) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"] += [
            {"id": 100 + index, "image_id": 10, "category_id": 3, "bbox": [1, 1, 0, 0]} for index in range(14)
        ]

    with pytest.raises(DataError) as caught:
        opened(coco_folder(change))
    text = str(caught.value)
    assert "14 problem(s)" in text and "and 4 more" in text
    assert text.count("annotation id") == 10


def test_the_error_without_a_folder_says_what_one_looks_like(tmp_path: Path, coco_folder: Folder) -> None:
    for recipe, words in (
        (DataRecipe(), "data.root: is not set"),
        (DataRecipe(root=str(tmp_path / "nowhere")), "no folder"),
        (DataRecipe(root=str(tmp_path)), "holds no folder images/"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            open_split(recipe, "train")
        assert "annotations/train.json" in str(caught.value)
        assert "--set data.root=DIR" in str(caught.value)
    with pytest.raises(DataError, match=r"val\.json: cannot be read"):
        open_split(DataRecipe(root=str(coco_folder())), "val")


def test_pixel_modes(coco_folder: Folder) -> None:
    root = coco_folder()
    path = root / "images" / "c.png"
    Image.fromarray(np.full((40, 40), 200, dtype=np.uint8)).save(path)
    assert opened(root).images[2, :, :40, :40].eq(200).all()
    Image.fromarray(np.full((40, 40), 200 * 256, dtype=np.uint16)).save(path)
    assert opened(root).images[2, :, :40, :40].eq(200).all(), "16 bits are scaled, not clipped"
    Image.fromarray(np.full((40, 40, 4), 90, dtype=np.uint8)).save(path)
    assert opened(root).images[2, :, :40, :40].eq(90).all()
    Image.fromarray(np.full((40, 40), 1e6, dtype=np.float32)).save(path, format="TIFF")
    with pytest.raises(DataError, match="pixel mode F"):
        opened(root)


def test_too_many_pixels_for_memory_are_refused_before_decoding(coco_folder: Folder) -> None:
    with pytest.raises(DataError, match=r"need .* GiB"):
        opened(coco_folder(), image_size=1_000_000)


def test_the_digest_follows_what_was_read(coco_folder: Folder) -> None:
    root = coco_folder()
    data = opened(root)
    assert data.digest == opened(root).digest
    assert data.digest != opened(root, image_size=64).digest
    assert data.digest != data.subset([0, 1]).digest != data.subset([1, 0]).digest
    path = root / "annotations" / "train.json"
    path.write_text(path.read_text(encoding="utf-8").replace("dog", "hog"), encoding="utf-8")
    assert data.digest != opened(root).digest


def test_a_subset_carries_its_own_ground_truth(coco_folder: Folder) -> None:
    data = opened(coco_folder())
    part = data.subset([2, 0])
    assert part.image_ids == (12, 10) and part.file_names == ("c.png", "a.png")
    assert torch.equal(part.images, data.images[[2, 0]])
    assert {one["image_id"] for one in part.ground_truth["annotations"]} == {10}
    assert part.sizes == ((40, 40), (50, 100))
    run = data.subset(range(1, 3))
    assert run.images.data_ptr() == data.images[1].data_ptr(), "neighbours are a view"
    with pytest.raises(DataError, match="at least one image"):
        data.subset([])


def test_hold_out_is_disjoint_whole_and_fixed_by_the_seed(squares: Callable[..., DetectionSet]) -> None:
    data = squares(10, 32)
    rest, held = hold_out(data, 0.3, 5)
    assert len(held) == 3 and len(rest) == 7
    assert sorted(rest.image_ids + held.image_ids) == sorted(data.image_ids)
    assert hold_out(data, 0.3, 5)[1].image_ids == held.image_ids
    assert any(hold_out(data, 0.3, seed)[1].image_ids != held.image_ids for seed in range(3))
    assert len(hold_out(data, 0.001, 0)[1]) == 1 and len(hold_out(data, 0.999, 0)[0]) == 1
    with pytest.raises(DataError, match="at least 2"):
        hold_out(data.subset([0]), 0.5, 0)


def test_splits_must_name_the_same_categories(
    coco_folder: Folder, squares: Callable[..., DetectionSet]
) -> None:
    data = opened(coco_folder())
    require_same_categories(data, data.subset([0]))
    with pytest.raises(DataError, match=r"3:cat.*|.*7:dog"):
        require_same_categories(data, squares(2, 32))


@pytest.mark.parametrize(
    ("name", "images", "objects", "classes"),
    [("bccd-tiny", 48, None, 3), ("nuclei-tiny", 32, None, 1), ("coco-cc", 116, None, 80)],
)
def test_real_folders_open(shared_data: Path, name: str, images: int, objects: None, classes: int) -> None:
    data = opened(shared_data / name, image_size=128)
    assert (len(data), data.num_classes) == (images, classes)
    boxes = torch.cat([target["boxes"] for target in data.targets])
    assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= 128
    crowds = sum(one["iscrowd"] for one in data.ground_truth["annotations"])
    assert data.num_objects + crowds == len(data.ground_truth["annotations"])
    assert (crowds > 0) == (name == "coco-cc")
