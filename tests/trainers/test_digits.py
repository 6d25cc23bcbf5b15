"""The embedded set: deterministic, disjoint, and of all sizes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search_spaces.errors import DataError
from trainers.data import digits
from trainers.data.catalog import open_split
from trainers.recipes import DataRecipe, DigitsRecipe

pytest.importorskip("sklearn", reason="scikit-learn ships the digits")

SMALL = DataRecipe(source="digits", digits=DigitsRecipe(train_images=60, val_images=12))


def test_equal_recipes_give_equal_scenes() -> None:
    first, second = open_split(SMALL, "train"), open_split(SMALL, "train")
    assert torch.equal(first.images, second.images) and first.digest == second.digest
    assert first.ground_truth == second.ground_truth
    other = open_split(replace(SMALL, digits=replace(SMALL.digits, seed=1)), "train")
    assert other.digest != first.digest and not torch.equal(first.images, other.images)


def test_sides_spread_over_the_range_and_boxes_lie_inside() -> None:
    data = open_split(SMALL, "train")
    assert data.image_size == (128, 128) and data.num_classes == 10
    boxes = torch.cat([target["boxes"] for target in data.targets])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert boxes.min() >= 0 and boxes.max() <= 128
    assert 11 <= sides.min() < 16 and 75 < sides.max() <= 97
    assert {int(label) for target in data.targets for label in target["labels"]} == set(range(10))
    assert all(1 <= len(target["labels"]) <= 6 for target in data.targets)


def test_train_and_val_share_no_digit_and_no_id() -> None:
    drawings = {
        split: {one.tobytes() for one in digits._drawings(split, SMALL.digits)[0]}
        for split in ("train", "val")
    }
    assert len(drawings["train"] & drawings["val"]) <= 2, "equal pictures of different writers are possible"
    train, val = (open_split(SMALL, split) for split in ("train", "val"))
    assert not set(train.image_ids) & set(val.image_ids)
    ids = [{one["id"] for one in data.ground_truth["annotations"]} for data in (train, val)]
    assert not ids[0] & ids[1]


def test_a_written_folder_reads_back_to_the_same_set(tmp_path: Path) -> None:
    digits.write_folder(SMALL, tmp_path / "digits")
    for split in ("train", "val"):
        composed = open_split(SMALL, split)
        read = open_split(DataRecipe(root=str(tmp_path / "digits")), split)
        assert torch.equal(composed.images, read.images)
        assert composed.ground_truth == read.ground_truth
        assert composed.categories == read.categories


def test_scenes_can_be_resized() -> None:
    data = open_split(replace(SMALL, image_size=64), "val")
    assert data.image_size == (64, 64)
    assert data.sizes[0] == (128, 128) and data.scales[0].tolist() == [0.5, 0.5]


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no split 'test'"):
        open_split(SMALL, "test")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'vertebra\[demo\]'"):
        open_split(SMALL, "train")
