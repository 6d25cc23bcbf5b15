"""COCO annotation files read with suspicion: every entry is checked, every problem is a sentence."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

from search_spaces.errors import DataError
from trainers.data.detection_set import NOT_STATED, Category
from trainers.data.masks import Rle

_SHOWN = 10
_LONGEST = 200

# Original px. Thinner boxes lose their width when corners are rounded to float32.
_SMALLEST_SIDE = 0.01


@dataclass(kw_only=True)
class Problems:
    """Problems of one split, collected so that a person sees them together.

    Args:
        source: the annotation file, or what is imported, named in the message.
        skip: drop what is bad instead of stopping.
        shown: problems that a message lists; the others are counted.
        advice: how a person drops what is bad.
    """

    source: Path
    skip: bool
    shown: int = _SHOWN
    advice: str = "--set data.on_bad=skip"
    fatal: list[str] = field(default_factory=list)
    droppable: list[str] = field(default_factory=list)

    def settle(self) -> tuple[str, ...]:
        """What was dropped.

        Raises:
            DataError: there is a problem that may not, or cannot, be skipped.
        """
        if self.fatal or (self.droppable and not self.skip):
            found = self.fatal + self.droppable
            lines = [f"{self.source}: {len(found)} problem(s)", *(f"  {one}" for one in found[: self.shown])]
            if len(found) > self.shown:
                lines.append(f"  and {len(found) - self.shown} more")
            if self.fatal:
                lines.append("correct the annotation file; these cannot be skipped")
            else:
                lines.append(f"correct them, or drop them with: {self.advice}")
            raise DataError("\n".join(lines))
        return tuple(self.droppable)


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """One image of the file; ``size`` is (height, width), None where the file does not state it."""

    id: int
    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class BoxEntry:
    """One annotation; ``box`` is x, y, width, height in original px, with positive sides.

    ``segmentation`` is what the file says, not yet checked; ``mask``, where masks are wanted, of the original image.
    """

    id: int
    image_id: int
    category_id: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    segmentation: object = None
    mask: Rle | None = None


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The usable entries of one annotation file, and the licence of its images as it states it."""

    categories: tuple[Category, ...]
    images: tuple[ImageEntry, ...]
    boxes: tuple[BoxEntry, ...]
    licence: str = NOT_STATED


def read_annotations(content: bytes, problems: Problems) -> Annotations:
    """Parse and check one file; what is wrong goes to ``problems``.

    Raises:
        DataError: no JSON, or not of COCO's form, so that nothing below could be checked.
    """
    data = _parse(content, problems.source)
    categories = _categories(data["categories"], problems)
    images = _images(data["images"], problems)
    # Boxes of an entry that was reported above would only repeat its problem.
    reported = {one.get("id") for one in data["images"] if isinstance(one.get("id"), int)}
    boxes = _boxes(
        data["annotations"],
        {one.id: one for one in images},
        {category.id for category in categories},
        {one for one in reported if isinstance(one, int)},
        problems,
    )
    return Annotations(categories=categories, images=images, boxes=boxes, licence=_licence(data))


def outside_fault(box: tuple[float, float, float, float], size: tuple[int, int]) -> str | None:
    """What is wrong with a box that has no area inside its image; None for any other.

    Args:
        box: x, y, width, height in px.
        size: (height, width) of the image in px.
    """
    x, y, width, height = box
    inside_x = min(x + width, size[1]) - max(x, 0.0)
    inside_y = min(y + height, size[0]) - max(y, 0.0)
    if min(inside_x, inside_y) >= _SMALLEST_SIDE:
        return None
    return f"bbox {list(box)} covers nothing of its image of {size[1]}x{size[0]} px"


def _parse(content: bytes, source: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{source}: not readable as JSON ({error}); the file may be cut off, fetch it again"
        ) from error
    if not isinstance(data, dict):
        raise DataError(f"{source}: COCO annotations are a JSON object; found {type(data).__name__}")
    for key in ("images", "annotations", "categories"):
        part = data.get(key)
        if not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
            raise DataError(f"{source}: needs a list of objects under {key!r}; found {type(part).__name__}")
    return data


def _licence(data: Mapping[str, Any]) -> str:
    """Names and addresses of the licences that images carry, of all that are listed where images name none."""
    listed = data.get("licenses")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    carried = [one["license"] for one in data["images"] if isinstance(one.get("license"), int | str)]
    known = [one for one in entries if not carried or one.get("id") in carried]
    texts = [_licence_text(one.get("name"), one.get("url")) for one in known]
    if not any(texts) and isinstance(info := data.get("info"), dict):
        texts = [_licence_text(info.get("license") or info.get("licence"), None)]
    return "; ".join(dict.fromkeys(one for one in texts if one)) or NOT_STATED


def _licence_text(name: object, url: object) -> str:
    name, url = (one.strip()[:_LONGEST] if isinstance(one, str) else "" for one in (name, url))
    return f"{name} ({url})" if name and url else name or url


def _categories(entries: list[dict[str, Any]], problems: Problems) -> tuple[Category, ...]:
    seen: dict[int, Category] = {}
    for entry in entries:
        number = entry.get("id")
        if not _is_id(number):
            problems.fatal.append(f"category {entry.get('name')!r}: id must be an integer; found {number!r}")
        elif number in seen:
            problems.fatal.append(
                f"category id {number} occurs twice ({seen[number].name!r}, {entry.get('name')!r})"
            )
        else:
            seen[number] = Category(id=number, name=str(entry.get("name", number)))
    if not entries:
        problems.fatal.append("'categories' is empty; a detector needs at least one")
    return tuple(seen[number] for number in sorted(seen))


def _images(entries: list[dict[str, Any]], problems: Problems) -> tuple[ImageEntry, ...]:
    seen: dict[int, ImageEntry] = {}
    for entry in entries:
        number, name = entry.get("id"), entry.get("file_name")
        if not _is_id(number):
            problems.droppable.append(f"image {name!r}: id must be an integer; found {number!r}")
        elif number in seen:
            problems.droppable.append(
                f"image id {number} occurs twice ({seen[number].file_name!r}, {name!r})"
            )
        elif (fault := _name_fault(name)) is not None:
            problems.droppable.append(f"image id {number}: file_name {name!r} {fault}")
        else:
            assert isinstance(name, str)
            seen[number] = ImageEntry(id=number, file_name=name, size=_size(entry))
    return tuple(seen.values())


def _name_fault(name: object) -> str | None:
    if not isinstance(name, str) or not name or "\0" in name:
        return "is no file name"
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            return "leads out of images/; allowed are paths below it"
    return None


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _boxes(
    entries: list[dict[str, Any]],
    images: Mapping[int, ImageEntry],
    categories: set[int],
    reported: set[int],
    problems: Problems,
) -> tuple[BoxEntry, ...]:
    seen: set[int] = set()
    boxes: list[BoxEntry] = []
    for entry in entries:
        number, image_id, category = entry.get("id"), entry.get("image_id"), entry.get("category_id")
        where = f"annotation id {number!r} (image id {image_id!r}"
        if _is_id(image_id) and image_id in images:
            where += f", {images[image_id].file_name}"
        where += ")"
        if not _is_id(number):
            problems.droppable.append(f"{where}: id must be an integer")
        elif number in seen:
            problems.droppable.append(f"{where}: its id occurs twice")
        elif not _is_id(image_id) or image_id not in images:
            if not _is_id(image_id) or image_id not in reported:
                problems.droppable.append(f"{where}: no image has that id")
        elif not _is_id(category) or category not in categories:
            problems.droppable.append(f"{where}: category {category!r} is not among the file's categories")
        elif (box := _box(entry.get("bbox"))) is None:
            problems.droppable.append(
                f"{where}: bbox {entry.get('bbox')!r}; allowed are four finite numbers x, y, width, height "
                "with width and height above 0"
            )
        else:
            area = entry.get("area")
            boxes.append(
                BoxEntry(
                    id=number,
                    image_id=image_id,
                    category_id=category,
                    box=box,
                    area=float(area) if _is_number(area) else box[2] * box[3],
                    crowd=bool(entry.get("iscrowd", 0)),
                    segmentation=entry.get("segmentation"),
                )
            )
        if _is_id(number):
            seen.add(number)
    return tuple(boxes)


def _box(value: object) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(part) for part in value):
        return None
    x, y, width, height = (float(part) for part in value)
    return (x, y, width, height) if width > 0 and height > 0 else None


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
