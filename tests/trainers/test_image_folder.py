"""Labelled images: what is read, what is refused, and crops that are functions of (seed, step, image)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from search_spaces.errors import DataError
from search_spaces.randomness import rng_for
from trainers.data.image_folder import ImageFolder, open_image_folder, require_same_classes
from trainers.image_batches import ImageBatches, middle, random_crop
from trainers.ranks import Ranks
from trainers.recipes import ImageFolderRecipe, TrainRecipe

CPU = torch.device("cpu")
TRAIN = TrainRecipe(steps=10, batch_size=4)


def write(
    root: Path, split: str = "train", per_class: int = 5, classes: tuple[str, ...] = ("a", "b")
) -> Path:
    """Images of noise, each of its own size."""
    rng = np.random.default_rng(len(split))
    for label, name in enumerate(classes):
        folder = root / split / name
        folder.mkdir(parents=True)
        for index in range(per_class):
            size = (40 + 5 * index, 60 - 5 * label, 3)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{index}.png")
    return root


def opened(root: Path, split: str = "train", **changes: object) -> ImageFolder:
    return open_image_folder(replace(ImageFolderRecipe(root=str(root), image_size=32), **changes), split)  # type: ignore[arg-type]


def test_classes_are_sorted_folders_and_images_keep_their_pixels(tmp_path: Path) -> None:
    root = write(tmp_path, classes=("zebra", "ant"))
    (root / "train" / ".DS_Store").write_bytes(b"")
    (root / "train/ant/.hidden.png").write_bytes(b"")
    data = opened(root)
    assert data.classes == ("ant", "zebra") and data.labels == (0,) * 5 + (1,) * 5
    assert [one.name for one in data.files[:5]] == [f"{index}.png" for index in range(5)]
    with Image.open(data.files[7]) as image:
        wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(data.pixels(7), wanted)


def test_the_digest_is_of_pixels_or_of_file_sizes(tmp_path: Path) -> None:
    root = write(tmp_path)
    digests = {check: opened(root, check=check).digest for check in (True, False)}
    assert digests[True] != digests[False]
    assert opened(root, image_size=64).digest != digests[True]
    path = root / "train/a/0.png"
    changed = np.array(Image.open(path))
    changed[0, 0] = 255 - changed[0, 0]
    Image.fromarray(changed).save(path)
    assert opened(root).digest != digests[True]
    path.write_bytes(path.read_bytes() + b"longer")
    assert opened(root, check=False).digest != digests[False]


def test_a_damaged_file_is_known_at_the_door_or_left_out(tmp_path: Path) -> None:
    root = write(tmp_path)
    broken = root / "train/a/1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (root / "train/b/notes.txt").write_text("no image")
    with pytest.raises(
        DataError, match=r"2 problem\(s\)\n.*1\.png cannot be decoded.*\n.*notes\.txt is no image"
    ) as told:
        opened(root)
    assert "data.on_bad=skip" in str(told.value)
    data = opened(root, on_bad="skip")
    assert len(data) == 9 and len(data.skipped) == 2
    # Not looked at: found when its turn comes.
    later = opened(root, on_bad="skip", check=False)
    with pytest.raises(DataError, match=r"1\.png cannot be decoded"):
        ImageBatches(later, replace(TRAIN, batch_size=10), seed=0).at(0, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: root.rename(root.with_name("moved")), "no folder .*train; a folder of labelled images"),
        (lambda root: [one.unlink() for one in (root / "train/a").iterdir()], r"train/a: no image in it"),
        (lambda root: (root / "train/a").rename(root / "a"), r"found 1 class folder\(s\), at least 2"),
    ],
)
def test_folders_that_cannot_be_used(change: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    change(root)
    with pytest.raises(DataError, match=message):
        opened(root)


def test_a_root_is_needed_and_splits_need_the_same_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: is not set"):
        open_image_folder(ImageFolderRecipe(), "train")
    root = write(write(tmp_path), "val", classes=("a", "c"))
    with pytest.raises(DataError, match=r"different class folders \(b, c\)"):
        require_same_classes(opened(root), opened(root, "val"))


# ---- batches ----------------------------------------------------------------------------------------------------


def test_batches_are_functions_of_seed_and_step(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    one, other = ImageBatches(data, TRAIN, seed=3), ImageBatches(data, TRAIN, seed=3)
    first = [one.at(step, CPU) for step in range(6)]
    for step in (4, 0, 5, 2):
        images, labels = other.at(step, CPU)
        assert torch.equal(images, first[step][0]) and labels == first[step][1]
    assert first[0][0].shape == (4, 3, 32, 32) and first[0][0].dtype == torch.uint8
    # Five steps of four are two epochs of ten images: each of them twice, by label.
    assert sorted(label for _, labels in first[:5] for label in labels) == [0] * 10 + [1] * 10
    different = ImageBatches(data, TRAIN, seed=4).at(0, CPU)[0]
    assert not torch.equal(different, first[0][0])


def test_one_image_is_cropped_anew_at_every_step(tmp_path: Path) -> None:
    data = opened(write(tmp_path, per_class=1))
    batches = ImageBatches(data, replace(TRAIN, batch_size=2), seed=0)
    seen = [images[labels.index(0)] for images, labels in (batches.at(step, CPU) for step in range(4))]
    assert all(not torch.equal(seen[0], one) for one in seen[1:])


def test_ranks_and_loaders_see_what_one_process_sees(tmp_path: Path) -> None:
    root = write(tmp_path)
    data, threaded = opened(root), opened(root, loaders=2)
    whole, ahead = ImageBatches(data, TRAIN, seed=3), ImageBatches(threaded, TRAIN, seed=3)
    parts = [ImageBatches(data, TRAIN, seed=3) for _ in range(2)]
    for step in (0, 1, 2, 5, 4):
        images, labels = whole.at(step, CPU)
        assert torch.equal(ahead.at(step, CPU)[0], images)
        found = [one.at(step, CPU, Ranks(rank=rank, count=2)) for rank, one in enumerate(parts)]
        assert torch.equal(torch.cat([part for part, _ in found]), images)
        assert [label for _, some in found for label in some] == labels


def test_micro_batches_are_parts_of_the_batch_for_ranks_and_loaders(tmp_path: Path) -> None:
    root = write(tmp_path)
    whole = ImageBatches(opened(root), TRAIN, seed=3)
    cut = ImageBatches(opened(root, loaders=2), replace(TRAIN, accumulate=2), seed=3)
    for step in range(3):
        parts = [
            cut.at(step, CPU, Ranks(rank=rank, count=2), micro)[0] for micro in range(2) for rank in range(2)
        ]
        assert torch.equal(torch.cat(parts), whole.at(step, CPU)[0])


def test_crops_are_distributed_as_torchvisions() -> None:
    recipe = ImageFolderRecipe(crop_area=(0.2, 0.6))
    ours = torch.tensor([random_crop((90, 120), recipe, rng_for(0, draw)) for draw in range(4000)]).double()
    image = torch.zeros(3, 90, 120)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(image, [0.2, 0.6], [0.75, 4 / 3]) for _ in range(4000)]
    theirs = torch.tensor(drawn).double()
    for one in (ours, theirs):
        assert ((one[:, 0] + one[:, 2] <= 90) & (one[:, 1] + one[:, 3] <= 120)).all()
    # Top, left, height, width: means within four standard errors of their difference.
    spread = (ours.var(0) / 4000 + theirs.var(0) / 4000).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * spread).all()


@pytest.mark.parametrize("size", [(10, 200), (200, 10)])
def test_an_image_that_fits_no_ratio_is_cropped_in_the_middle(size: tuple[int, int]) -> None:
    recipe = ImageFolderRecipe(crop_area=(1.0, 1.0))
    top, left, height, width = random_crop(size, recipe, rng_for(0))
    assert (height, width) == ((10, 13) if size[0] == 10 else (13, 10))
    assert (top, left) == ((0, 93) if size[0] == 10 else (93, 0))


def test_the_middle_is_evaluated() -> None:
    recipe = ImageFolderRecipe(image_size=32, crop_share=0.5)
    pixels = torch.zeros(3, 64, 100, dtype=torch.uint8)
    pixels[:, 16:48, 34:66] = 200
    assert torch.equal(middle(pixels, recipe), torch.full((3, 32, 32), 200, dtype=torch.uint8))
