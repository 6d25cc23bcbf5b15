"""``data.orientation: either``: limits of the shorter and the longer side, and batches padded to their pictures."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import apply_overrides, check
from nas.methods.catalog import check_search
from nas.targets import read_recipe
from search_spaces.errors import ConfigError, DataError
from search_spaces.recipe import FieldError
from trainers.batches import Batches
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.data.made_up import made_up_set
from trainers.data.sizing import AS_STORED, Fit
from trainers.data.stored import StoredImages
from trainers.detectors.catalog import build_detector
from trainers.epochs import Epochs, GroupedEpochs
from trainers.evaluate import detect
from trainers.loop import Trainer
from trainers.ranks import Ranks
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe

CPU = torch.device("cpu")
Folder = Callable[..., Path]
LYING, STANDING, SQUARE = 0, 1, 2


def opened(root: Path, cache: Path | None = None, **settings: Any) -> DetectionSet:
    given = {"image_size": (64, 96), "orientation": "either", "cache": None if cache is None else str(cache)}
    return open_split(DataRecipe(root=str(root), **{**given, **settings}), "train")


@pytest.fixture
def mixed(tmp_path: Path, coco_folder: Folder) -> Path:
    """Ten pictures of 48x96 px and five of 96x48, one object with a mask in each, in an order by chance."""
    standing = (2, 3, 7, 11, 14)

    def change(annotations: dict[str, Any]) -> None:
        annotations["images"], annotations["annotations"] = [], []
        for number in range(15):
            height, width = (96, 48) if number in standing else (48, 96)
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            annotations["images"].append(
                {"id": number + 1, "file_name": f"{number}.png", "width": width, "height": height}
            )
            right, bottom = width - 4, height - 8
            annotations["annotations"].append(
                {
                    "id": number + 1,
                    "image_id": number + 1,
                    "category_id": 3,
                    "bbox": [10, 5, right - 10, bottom - 5],
                    "segmentation": [[10, 5, right, 5, right, bottom, 10, bottom]],
                    "iscrowd": 0,
                }
            )

    root = coco_folder(change)
    for file in tmp_path.glob("*.png"):
        file.rename(root / "images" / file.name)
    return root


@pytest.mark.parametrize("size", [(800, 1333), (1333, 800)])
@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((360, 640), (750, 1333)),
        ((500, 500), (800, 800)),
    ],
)
def test_limits_of_the_shorter_and_the_longer_side(
    size: tuple[int, int], stored: tuple[int, int], wanted: tuple[int, int]
) -> None:
    fit = Fit(size, either_way=True)
    assert fit.resized(stored) == wanted
    assert fit.resized(stored[::-1]) == wanted[::-1]
    assert fit.canvas is None and fit.room == (1333, 1333) and fit.most_pixels == 800 * 1333


def test_a_fixed_size_makes_a_portrait_smaller() -> None:
    fit = Fit((800, 1333))
    assert fit.resized((640, 480)) == (800, 600) and fit.canvas == fit.room == (800, 1333)
    assert Fit(100).resized((50, 200)) == (25, 100) and Fit(100).room == (100, 100)
    assert AS_STORED.resized((7, 9)) == (7, 9) and AS_STORED.room is None and AS_STORED.most_pixels is None


def test_a_set_of_either_orientation(coco_folder: Folder, tmp_path: Path) -> None:
    root = coco_folder()
    data, found = opened(root), opened(root, tmp_path / "cache")
    assert [data.content(index) for index in range(3)] == [(48, 96), (85, 64), (64, 64)]
    assert data.image_size == (96, 96) and data.sides == (64, 96) and data.digest == found.digest
    assert [data.padded_size([index]) for index in range(3)] == [(64, 96), (96, 64), (64, 96)]
    assert data.padded_size([LYING, SQUARE]) == data.usual_size == (64, 96)
    assert data.padded_size([LYING, STANDING]) == (96, 96)
    assert [list(some) for some in data.batches(1)] == [[LYING], [SQUARE], [STANDING]]
    assert [list(some) for some in data.batches(8)] == [[LYING, SQUARE], [STANDING]]
    assert data.targets[LYING]["boxes"][0].tolist() == pytest.approx([9.6, 4.8, 28.8, 14.4])
    assert isinstance(found.images, StoredImages)
    for chosen in ([LYING], [LYING, SQUARE], [SQUARE, STANDING, LYING]):
        size = data.padded_size(chosen)
        batch = data.padded(chosen, size)
        assert torch.equal(batch, data.images[chosen][:, :, : size[0], : size[1]])
        assert torch.equal(batch, found.padded(chosen, size))
        larger = data.padded(chosen, (160, 128))
        assert larger.shape[2:] == (160, 128) and torch.equal(larger, found.padded(chosen, (160, 128)))
        assert torch.equal(larger[:, :, : size[0], : size[1]], batch) and larger.sum() == batch.sum()
    one = data.subset([STANDING])
    assert one.sides == (64, 96) and one.usual_size == (96, 64)


def test_a_set_of_one_size_is_padded_to_it(coco_folder: Folder) -> None:
    data = opened(coco_folder(), orientation="fixed")
    assert data.sides is None and data.image_size == (64, 96)
    assert data.padded_size([STANDING]) == data.usual_size == (64, 96)
    assert [list(some) for some in data.batches(2)] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("kept", "size"), [([LYING, SQUARE], (64, 96)), ([STANDING], (96, 64)), ([0, 1], (96, 96))]
)
def test_images_have_room_for_the_orientations_that_there_are(
    coco_folder: Folder, kept: list[int], size: tuple[int, int]
) -> None:
    def change(annotations: dict[str, Any]) -> None:
        annotations["images"] = [annotations["images"][place] for place in kept]
        known = {image["id"] for image in annotations["images"]}
        annotations["annotations"] = [one for one in annotations["annotations"] if one["image_id"] in known]

    data = opened(coco_folder(change))
    assert data.image_size == size and data.sides == (64, 96)


def test_memory_is_counted_for_the_orientations_that_there_are(
    coco_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * 3 * 2 * 70 * 96}
    monkeypatch.setattr("trainers.data.coco.os.sysconf", pages.__getitem__)

    root = coco_folder()
    with pytest.raises(DataError, match="3 images at 96x96 px need"):
        opened(root)
    file = root / "annotations" / "train.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    del known["images"][STANDING]
    file.write_text(json.dumps({**known, "annotations": []}), encoding="utf-8")
    assert len(opened(root)) == 2


def test_groups_take_every_image_as_often_as_without() -> None:
    kinds = [index % 7 in (0, 3) for index in range(50)]
    groups, plain = GroupedEpochs(kinds, 4, seed=5), Epochs(50, seed=5)
    window, mixed = 50 // 4, 0
    for start in range(0, 5 * window, window):
        batches = [groups.batch(step) for step in range(start, start + window)]
        assert all(len(batch) == 4 for batch in batches)
        taken = Counter(image for batch in batches for image in batch)
        assert taken == Counter(plain.image(place) for place in range(4 * start, 4 * (start + window)))
        blends = [batch for batch in batches if len({kinds[image] for image in batch}) > 1]
        assert len(blends) <= 1
        mixed += len(blends)
        first = [kinds[batch[0]] for batch in batches]
        assert sorted(first) != first, "batches of a kind do not come in a row"
    assert mixed, "a window's kinds do not divide by four throughout"
    again = GroupedEpochs(kinds, 4, seed=5)
    assert [again.batch(step) for step in (30, 2)] == [groups.batch(step) for step in (30, 2)]
    assert GroupedEpochs(kinds, 4, seed=6).batch(0) != groups.batch(0)


def test_fewer_images_than_a_batch() -> None:
    groups = GroupedEpochs([True, False], 5, seed=0)
    assert Counter(groups.batch(0) + groups.batch(1)) == {0: 5, 1: 5}


def test_batches_are_padded_to_their_orientation(mixed: Path, tmp_path: Path) -> None:
    recipe = TrainRecipe(steps=8, batch_size=5, flip=True)
    data, found = opened(mixed, masks=True), opened(mixed, tmp_path / "cache", masks=True)
    sizes: Counter[tuple[int, ...]] = Counter()
    # Three windows of an epoch each, of ten lying and five standing.
    for step in range(9):
        images, targets = Batches(data, recipe, seed=1).at(step, CPU)
        others, _ = Batches(found, recipe, seed=1).at(step, CPU)
        assert torch.equal(images, others)
        sizes[images.shape[2:]] += 1
        for target in targets:
            x1, y1, x2, y2 = target["boxes"][0].round().int().tolist()
            assert target["masks"].shape[1:] == images.shape[2:]
            inside = target["masks"][0, y1:y2, x1:x2]
            assert inside.all() and int(target["masks"].sum()) == inside.numel(), (
                "masks move with their boxes"
            )
    assert sizes == {(64, 96): 6, (96, 64): 3}


def test_a_batch_is_the_same_for_any_number_of_ranks(mixed: Path) -> None:
    data, recipe = (
        opened(mixed),
        TrainRecipe(steps=8, batch_size=6, accumulate=1, flip=True, sizes=(1.0, 1.5)),
    )
    for step in range(6):
        whole, targets = Batches(data, recipe, seed=2).at(step, CPU)
        parts = [Batches(data, recipe, seed=2).at(step, CPU, Ranks(rank=rank, count=2)) for rank in range(2)]
        assert torch.equal(whole, torch.cat([images for images, _ in parts]))
        own = [one for _, some in parts for one in some]
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, own, strict=True))


def test_a_training_and_what_it_finds(mixed: Path, tiny_backbone: Callable[..., torch.nn.Module]) -> None:
    data = opened(mixed)
    detector = build_detector(
        DetectorRecipe(name="fcos", fpn_channels=8, levels=("c3", "c4"), score_threshold=0.0),
        tiny_backbone(),
        data.num_classes,
        data.image_size,
        seed=0,
    )
    recipe = TrainRecipe(steps=6, batch_size=4, lr=0.01)
    Trainer(detector=detector, data=data, recipe=recipe, seed=0, directory=None, device=CPU).run()
    together = detect(detector, data, batch_size=4, device=CPU)
    assert {one["image_id"] for one in together} == set(data.image_ids)
    order = [one["image_id"] for one in together]
    assert order == sorted(order), "in the order of the set, whatever was looked at first"
    for size in (1, 3, 16):
        other = detect(detector, data, batch_size=size, device=CPU)
        assert [one["image_id"] for one in other] == order
        for one, same in zip(together, other, strict=True):
            assert one["score"] == pytest.approx(same["score"], abs=1e-5)
            assert one["bbox"] == pytest.approx(same["bbox"], abs=1e-3)


def test_what_does_not_go_with_it() -> None:
    with pytest.raises(
        FieldError, match=r"orientation.*either.*fixed without an image_size of \[height, width\]"
    ):
        DataRecipe(image_size=64, orientation="either")
    sets = ["data.image_size=[64, 96]", "data.orientation=either"]
    recipe = Path(__file__).parents[1] / "recipes" / "tiny.yaml"
    with pytest.raises(ConfigError, match=r"data\.orientation: found 'either'; allowed is fixed in a search"):
        check_search(read_recipe(recipe, sets), source="tiny.yaml")
    data = apply_overrides({}, sets)["data"]
    assert check(DataRecipe, data, source="mine.yaml").fit == Fit((64, 96), either_way=True)


def test_noise_in_place_of_images_has_the_size_of_most() -> None:
    data = made_up_set(DataRecipe(image_size=(64, 96), orientation="either"), images=2, classes=3)
    assert data.image_size == data.usual_size == (64, 96)
