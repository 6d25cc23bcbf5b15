"""Labelled images in folders: ``root/{train,val}/CLASS/*.jpg``, decoded when they are asked for."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from search_spaces.errors import DataError
from trainers.data.coco import DAMAGED, resized, to_rgb
from trainers.data.sizing import AS_STORED
from trainers.recipes import ImageFolderRecipe

_FOLDER = """a folder of labelled images looks like this:
  DIR/train/CLASS/*.jpg   the images of one class, for each class
  DIR/val/CLASS/*.jpg     the same classes; read for accuracy only
name it with: --set data.root=DIR"""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """One split of labelled images.

    Args:
        recipe: sizes and crops.
        files: of every image, class after class, by name.
        labels: position of each image's class among ``classes``.
        classes: names of the folders, sorted.
        digest: of names, labels and either all pixels or the files' sizes.
        skipped: what ``on_bad=skip`` left out, one sentence each.
    """

    recipe: ImageFolderRecipe
    files: tuple[Path, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    classes: tuple[str, ...]
    digest: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels are 0 to one less."""
        return len(self.classes)

    def pixels(self, index: int) -> Tensor:
        """An image as stored, bytes (3, H, W).

        Raises:
            DataError: it cannot be decoded; names the file.
        """
        return decoded(self.files[index])


def open_image_folder(recipe: ImageFolderRecipe, split: str) -> ImageFolder:
    """List one split, and look at every image where the recipe says so.

    Raises:
        DataError: a missing folder, a class without images, or the list of files that are no images.
    """
    folder = _split_folder(recipe, split)
    classes = tuple(sorted(one.name for one in _visible(folder) if one.is_dir()))
    if len(classes) < 2:
        raise DataError(f"{folder}: found {len(classes)} class folder(s), at least 2 are needed; {_FOLDER}")
    problems: list[str] = []
    files: list[Path] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    for label, name in enumerate(classes):
        before = len(files)
        for path in sorted(_visible(folder / name)):
            try:
                content = _identity(path, check=recipe.check)
            except DataError as error:
                problems.append(str(error))
                continue
            digest.update(f"{name}/{path.name} ".encode() + content)
            files.append(path)
            labels.append(label)
        if len(files) == before:
            raise DataError(f"{folder / name}: no image in it ({', '.join(_SUFFIXES)}); {_FOLDER}")
    if problems and recipe.on_bad == "error":
        lines = [f"{folder}: {len(problems)} problem(s)", *(f"  {one}" for one in problems[:_SHOWN])]
        lines += [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError("\n".join([*lines, "correct them, or leave them out with: --set data.on_bad=skip"]))
    return ImageFolder(
        recipe=recipe,
        files=tuple(files),
        labels=tuple(labels),
        classes=classes,
        # How much is cropped off is no part of the images, but decides what is learned from them.
        digest=hashlib.sha256(f"{digest.hexdigest()} {recipe.image_size}".encode()).hexdigest(),
        skipped=tuple(problems),
    )


def require_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """A label has to mean the same in both splits.

    Raises:
        DataError: naming the classes that one of them lacks.
    """
    odd = sorted({*train.classes} ^ {*val.classes})
    if odd:
        raise DataError(
            f"train and val have different class folders ({', '.join(odd[:_SHOWN])}); give both the same"
        )


def decoded(path: Path) -> Tensor:
    """The pixels of a file, bytes (3, H, W).

    Raises:
        DataError: it is no image, or damaged.
    """
    try:
        with Image.open(path) as image:
            pixels = resized(to_rgb(image), AS_STORED)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist any more; restore it, or begin anew without it") from error
    except DAMAGED as error:
        raise DataError(f"{path} cannot be decoded ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _split_folder(recipe: ImageFolderRecipe, split: str) -> Path:
    if recipe.root is None:
        raise DataError(f"data.root: is not set; {_FOLDER}")
    folder = Path(recipe.root).expanduser() / split
    if not folder.is_dir():
        raise DataError(f"data.root: no folder {folder}; {_FOLDER}")
    return folder


def _visible(folder: Path) -> Iterator[Path]:
    return (one for one in folder.iterdir() if not one.name.startswith("."))


def _identity(path: Path, *, check: bool) -> bytes:
    """What of a file goes into the digest.

    Raises:
        DataError: no image.
    """
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        raise DataError(f"{path} is no image file; allowed are {', '.join(_SUFFIXES)}")
    if check:
        return hashlib.sha256(decoded(path).numpy().tobytes()).digest()
    return str(path.stat().st_size).encode()
