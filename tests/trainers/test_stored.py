"""Decoded pictures in a file: the same set as in memory, written once, whole or not at all."""

import copy
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from search_spaces.errors import DataError
from trainers.batches import Batches
from trainers.data import coco, stored
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out
from trainers.data.digits import write_folder
from trainers.data.stored import StoredImages
from trainers.ranks import Ranks
from trainers.recipes import DataRecipe, DigitsRecipe, TrainRecipe

CPU = torch.device("cpu")
Folder = Callable[..., Path]


def opened(root: Path, cache: Path | None = None, **settings: Any) -> DetectionSet:
    place = None if cache is None else str(cache)
    return open_split(DataRecipe(root=str(root), cache=place, **settings), "train")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Twelve scenes of digits with masks, 96 px."""
    root = tmp_path / "scenes"
    scene = DigitsRecipe(train_images=12, val_images=2, image_size=96)
    write_folder(DataRecipe(source="digits", digits=scene, masks=True), root)
    return root


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(coco, "decoded", no)


@pytest.mark.parametrize("image_size", [None, 64, 100, (64, 96), (50, 200)])
def test_it_is_the_set_that_memory_holds(
    coco_folder: Folder, tmp_path: Path, image_size: int | tuple[int, int] | None
) -> None:
    root = coco_folder()
    kept, found = (opened(root, cache, image_size=image_size) for cache in (None, tmp_path / "cache"))
    assert isinstance(kept.images, torch.Tensor) and isinstance(found.images, StoredImages)
    assert found.digest == kept.digest
    assert found.images.shape == kept.images.shape and found.image_size == kept.image_size
    assert torch.equal(found.images[:], kept.images)
    assert (found.sizes, found.file_names, found.ground_truth) == (
        kept.sizes,
        kept.file_names,
        kept.ground_truth,
    )
    assert torch.equal(found.scales, kept.scales)
    for one, other in zip(found.targets, kept.targets, strict=True):
        assert torch.equal(one["boxes"], other["boxes"]) and torch.equal(one["labels"], other["labels"])


def test_any_index_copies_what_a_tensor_would(scenes: Path, tmp_path: Path) -> None:
    kept, found = opened(scenes).images, opened(scenes, tmp_path).images
    chosen = [5, 0, 5, -1]
    assert torch.equal(found[chosen], kept[chosen])
    assert torch.equal(found[torch.tensor(chosen)], kept[chosen])
    assert torch.equal(found[-2], kept[-2]) and torch.equal(found[3:7], kept[3:7])
    assert found[:0].shape == kept[:0].shape
    with pytest.raises(IndexError):
        found[12]
    found[0].fill_(7)
    assert torch.equal(found[0], kept[0]), "a copy may be written to"


def test_parts_of_it_share_the_file(scenes: Path, tmp_path: Path) -> None:
    kept, found = opened(scenes, masks=True), opened(scenes, tmp_path, masks=True)
    for one, other in zip(hold_out(found, 0.3, 4), hold_out(kept, 0.3, 4), strict=True):
        assert isinstance(one.images, StoredImages) and isinstance(found.images, StoredImages)
        assert one.images.file == found.images.file and one.digest == other.digest
        assert torch.equal(one.images[:], other.images[:])
        again = one.subset([1, 0])
        assert torch.equal(again.images[:], other.images[[1, 0]])
        assert torch.equal(again.target(0)["masks"], other.target(1)["masks"])
    assert found.image_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.pixels"))


def test_batches_are_the_same_for_all_ranks_and_passes(scenes: Path, tmp_path: Path) -> None:
    recipe = TrainRecipe(steps=4, batch_size=4, accumulate=2, flip=True, scale_jitter=(0.6, 1.4))
    kept, found = (Batches(data, recipe, seed=3) for data in (opened(scenes), opened(scenes, tmp_path)))
    for step in range(4):
        for micro in range(2):
            for rank in range(2):
                ranks = Ranks(rank=rank, count=2)
                one, other = (batches.at(step, CPU, ranks, micro) for batches in (found, kept))
                assert torch.equal(one[0], other[0])
                assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(one[1], other[1], strict=True))


def test_what_comes_next_is_announced(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = TrainRecipe(steps=4, batch_size=4, accumulate=2)
    batches = Batches(opened(scenes, tmp_path), recipe, seed=3)
    announced: list[list[int]] = []
    monkeypatch.setattr(StoredImages, "soon", lambda _, indices: announced.append(list(indices)))
    for step in range(2):
        for micro in range(2):
            batches.at(step, CPU, micro=micro)
    order = [index for step in range(3) for index in batches.indices(step)]
    assert announced == [order[start : start + 2] for start in (2, 4, 6, 8)]


def test_it_is_decoded_once(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(scenes, tmp_path)
    forbid_decoding(monkeypatch)
    again = opened(scenes, tmp_path)
    assert again.digest == first.digest and torch.equal(again.images[:], first.images[:])
    handed_on = copy.copy(again.images)
    assert handed_on._opened == [] and torch.equal(handed_on[:], first.images[:]), (
        "who gets it opens the file itself"
    )


def test_other_pictures_or_sizes_are_another_file(scenes: Path, tmp_path: Path) -> None:
    first = opened(scenes, tmp_path)
    assert opened(scenes, tmp_path, image_size=64).image_size == (64, 64)
    path = scenes / "images" / first.file_names[3]
    Image.fromarray(np.zeros((96, 96, 3), dtype=np.uint8)).save(path)
    changed = opened(scenes, tmp_path)
    assert changed.digest == opened(scenes).digest != first.digest
    assert changed.images[3].sum() == 0


@pytest.mark.parametrize("damage", ["cut", "no record", "torn record", "other version"])
def test_what_is_not_whole_is_decoded_again(scenes: Path, tmp_path: Path, damage: str) -> None:
    wanted = opened(scenes, tmp_path).images[:]
    (pixels,), (record,) = tmp_path.glob("*.pixels"), tmp_path.glob("*.json")
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "no record":
        record.unlink()
    elif damage == "torn record":
        record.write_bytes(record.read_bytes()[:100])
    else:
        record.write_text(json.dumps(json.loads(record.read_bytes()) | {"version": 0}))
    assert torch.equal(opened(scenes, tmp_path).images[:], wanted)


def _open_and_count(root: Path, cache: Path, decoded: Path) -> None:
    real = coco.decoded

    def counted(*given: Any) -> Any:
        with decoded.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return real(*given)

    coco.decoded = counted
    opened(root, cache)


def test_of_two_processes_one_decodes_and_a_killed_one_leaves_nothing(scenes: Path, tmp_path: Path) -> None:
    cache, decoded = tmp_path / "cache", tmp_path / "decoded"
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=_open_and_count, args=(scenes, cache, decoded))
    killed.start()
    while not decoded.exists():
        time.sleep(0.01)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert not list(cache.glob("*.pixels")) and not list(cache.glob("*.json"))
    decoded.unlink()
    both = [context.Process(target=_open_and_count, args=(scenes, cache, decoded)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    assert len(decoded.read_text()) == 12
    assert not list(cache.glob("*.part"))


def test_who_waits_is_told(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    recipe = DataRecipe(root=str(scenes), cache=str(tmp_path))
    open_split(recipe, "train", say=heard.append)
    assert len(heard) == 1 and heard[0].startswith(f"decoding 12 pictures into {tmp_path}, up to 0.0 GiB")
    open_split(recipe, "train", say=heard.append)
    assert len(heard) == 1, "what is whole is read without a word"
    (lock,), (record,) = tmp_path.glob("*.lock"), tmp_path.glob("*.json")
    record.unlink()
    with lock.open("w") as file:
        stored.fcntl.flock(file, stored.fcntl.LOCK_EX)

        def let_go(_: float) -> None:
            stored.fcntl.flock(file, stored.fcntl.LOCK_UN)

        monkeypatch.setattr(stored.time, "sleep", let_go)
        open_split(recipe, "train", say=heard.append)
    assert len(heard) == 3 and "another process decodes" in heard[1]


def test_bad_pictures_are_named_and_dropped_as_in_memory(
    coco_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = coco_folder()
    (root / "images/a.png").write_bytes(b"no picture")
    (root / "images/c.png").unlink()
    texts = []
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(DataError) as caught:
            opened(root, cache)
        texts.append(str(caught.value))
    assert (
        texts[0] == texts[1] and "a.png cannot be decoded" in texts[0] and "c.png does not exist" in texts[0]
    )
    kept = opened(root, on_bad="skip")
    forbid_decoding(monkeypatch)
    found = opened(root, tmp_path / "cache", on_bad="skip")
    assert found.digest == kept.digest and found.skipped == kept.skipped
    assert torch.equal(found.images[:], kept.images[:])


def test_what_passes_is_not_taken_for_a_bad_picture(
    coco_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, real = coco_folder(), Image.open

    def busy(path: Any, *rest: Any, **named: Any) -> Any:
        if Path(path).name == "a.png":
            raise OSError(24, "Too many open files")
        return real(path, *rest, **named)

    monkeypatch.setattr(Image, "open", busy)
    with pytest.raises(DataError, match=r"a.png cannot be decoded .*Too many open files.*start again"):
        opened(root, tmp_path / "cache", on_bad="skip")
    monkeypatch.setattr(Image, "open", real)
    found = opened(root, tmp_path / "cache", on_bad="skip")
    assert len(found) == 3 and found.skipped == ()


def test_room_that_a_killed_process_took_is_there_again(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(scenes, tmp_path)
    (pixels,) = tmp_path.glob("*.pixels")
    part = pixels.with_suffix(".part")
    pixels.rename(part)
    real, seen = shutil.disk_usage, []
    monkeypatch.setattr(
        stored.shutil, "disk_usage", lambda folder: seen.append(part.exists()) or real(folder)
    )
    assert len(opened(scenes, tmp_path)) == 12
    assert seen == [False]


def test_without_room_nothing_is_decoded(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_decoding(monkeypatch)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 10, 10))
    with pytest.raises(
        DataError, match=r"data.cache: .* has 0.0 GiB free, and 12 decoded pictures need up to"
    ):
        opened(scenes, tmp_path)


def test_a_disk_that_fills_is_a_sentence_and_leaves_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored.os, "fsync", full)
    with pytest.raises(DataError, match=r"data.cache: .*No space left on device"):
        opened(scenes, tmp_path)
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.pixels"))


def test_a_file_in_the_folders_place_is_a_sentence(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data.cache: .*file cannot be used"):
        opened(scenes, tmp_path / "file")


def test_memory_is_counted_for_all_processes_of_a_machine(coco_folder: Folder, tmp_path: Path) -> None:
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Of three images a third of the memory, which one process may hold and two may not.
    side = int((present / 3 / 9) ** 0.5)
    recipe = DataRecipe(root=str(coco_folder()), image_size=(side, side))
    with pytest.raises(DataError, match=r"in 2 processes, each with a copy of its own.*--set data.cache=DIR"):
        open_split(recipe, "train", copies=2)


def test_real_photos_are_those_of_memory(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "bccd-tiny"
    kept, found = opened(root, image_size=128), opened(root, tmp_path, image_size=128)
    chosen = Random(0).sample(range(len(kept)), 5)
    assert found.digest == kept.digest and torch.equal(found.images[chosen], kept.images[chosen])
