"""What a reader of somebody's format finds, before it becomes COCO: images, objects, and where each of them stands."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""How people call their splits -> how the house calls them."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a person may say about the files that are read.

    Args:
        classes: names of the categories in the order of their ids; where left out, what the files say.
        images: folder of the images, where it is not found by itself.
        first_pixel: number of an image's first pixel. With 1 corners are pixels that belong to the box, with 0 they
            are its edges. ``None``: 1 for VOC, 0 for CSV; the other formats leave no choice.
        columns: of a CSV file, role -> name in the header.
        normalised: coordinates of a CSV file are shares of the image's sides.
    """

    classes: tuple[str, ...] | None = None
    images: Path | None = None
    first_pixel: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    normalised: bool = False


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """One object as its file has it.

    Args:
        where: file and line, or file and id.
        category: its name.
        box: x, y, width, height; not yet checked.
        relative: box and polygons are shares of the image's sides instead of px.
        crowd: not learned from, and neither a hit nor a miss in evaluation.
        area: in px; that of mask or box when None.
        segmentation: polygons or run lengths, not yet checked.
    """

    where: str
    category: str
    box: tuple[float, float, float, float]
    relative: bool = False
    crowd: bool = False
    area: float | None = None
    segmentation: object = None


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """One image as its file names it.

    Args:
        where: file and line, or file and id.
        path: of the image file, which may not be there.
        splits: the source's own names of the splits that it belongs to; empty where the source has none.
        size: (height, width) that the annotations state.
        objects: what it shows.
        extra: further keys of COCO that are kept.
    """

    where: str
    path: Path
    splits: frozenset[str] = frozenset()
    size: tuple[int, int] | None = None
    objects: tuple[FoundObject, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Found:
    """All of a source.

    Args:
        images: in the source's order.
        categories: as COCO has them, with their ids.
        exact: boxes are kept as they are; else what reaches over an edge is cut off.
        head: ``info`` and ``licenses`` of COCO, where the source has them.
        notes: what a person should know about how it was read, one sentence each.
    """

    images: tuple[FoundImage, ...]
    categories: tuple[Mapping[str, Any], ...]
    exact: bool = False
    head: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def numbered(names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """Categories with ids from 1 in the order given."""
    return tuple({"id": index, "name": name} for index, name in enumerate(names, start=1))


def image_files(folder: Path) -> list[Path]:
    """All image files in and below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def text_of(path: Path) -> str:
    """The text of a file that a source cannot be read without.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from error


def several(number: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
