"""A folder in COCO form looked at as a whole: everything that is wrong with it, and what its splits hold."""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from search_spaces.errors import DataError
from trainers.data.annotations import Annotations, BoxEntry, Problems, outside_fault, read_annotations
from trainers.data.coco import DAMAGED, decoded
from trainers.data.found import image_files, several
from trainers.data.masks import read_mask
from trainers.data.stored import PATIENCE, Say

SIZES = ("small", "medium", "large")
"""COCO's, by area: below 32 x 32 px, below 96 x 96 px, and the others."""

_NEEDED = ("train", "val")
_BOUNDS = (32.0**2, 96.0**2)
_THIN = 2.0
_FEW = 10
_UNEVEN = 100
_ORIENTATION = 274


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What one split holds; objects are boxes to learn from, crowds not counted.

    Args:
        name: of its annotation file.
        annotations: what can be used of that file.
        sizes: image id -> (height, width) of the images that could be decoded.
        objects: boxes to learn from, in such images.
        crowds: crowd regions.
        by_class: name -> objects, for every category.
        by_size: objects of each of ``SIZES``.
        empty: images without an object.
    """

    name: str
    annotations: Annotations
    sizes: Mapping[int, tuple[int, int]]
    objects: tuple[BoxEntry, ...]
    crowds: int
    by_class: Mapping[str, int]
    by_size: tuple[int, int, int]
    empty: int


@dataclass(frozen=True, kw_only=True)
class FolderCheck:
    """What was found.

    Args:
        splits: in the order train, val, others.
        problems: what training refuses or drops, and images that are in two splits.
        warnings: what it takes, although a person should know.
    """

    splits: tuple[SplitFacts, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check_folder(root: Path, *, masks: bool = False, say: Say | None = None) -> FolderCheck:
    """Read and decode all of a folder in COCO form, one image at a time.

    Args:
        root: with ``images/`` and ``annotations/*.json``.
        masks: segmentations have to be usable too.
        say: takes lines for a person who waits while a split's pictures are decoded.

    Raises:
        DataError: there is no such folder.
    """
    for folder in (root, root / "images", root / "annotations"):
        if not folder.is_dir():
            raise DataError(
                f"no folder {folder}; a data folder has images/ and annotations/{{train,val}}.json. Other formats "
                "become one with: nas data import SOURCE --format voc|yolo|csv|coco --to DIR"
            )
    names = [*_NEEDED, *sorted({path.stem for path in root.glob("annotations/*.json")} - {*_NEEDED})]
    problems: list[str] = []
    warnings: list[str] = []
    splits: list[SplitFacts] = []
    pictures: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        source = root / "annotations" / f"{name}.json"
        if not source.is_file():
            problems.append(f"annotations/{name}.json: is not there")
            continue
        try:
            splits.append(_split(root, name, masks, pictures, problems, warnings, say or (lambda _: None)))
        except DataError as error:
            problems.append(str(error).replace(f"{root}/", ""))
    _same_categories(splits, problems)
    _same_pictures(pictures, problems, warnings)
    _balance(splits, warnings)
    named = {entry.file_name for split in splits for entry in split.annotations.images}
    unnamed = [
        path
        for path in image_files(root / "images")
        if path.relative_to(root / "images").as_posix() not in named
    ]
    if unnamed:
        warnings.append(
            f"{several(len(unnamed), 'image file')} below images/ in no annotation file, {unnamed[0].name} for one"
        )
    return FolderCheck(splits=tuple(splits), problems=tuple(problems), warnings=tuple(warnings))


def _split(
    root: Path,
    name: str,
    masks: bool,
    pictures: dict[str, list[tuple[str, str]]],
    problems: list[str],
    warnings: list[str],
    say: Say,
) -> SplitFacts:
    """One annotation file and its images; what is wrong is added to the lists, pixels' digests to ``pictures``."""
    source = root / "annotations" / f"{name}.json"
    # Everything is wanted, so nothing is settled.
    here = Problems(source=source, skip=True)
    annotations = read_annotations(source.read_bytes(), here)
    sizes: dict[int, tuple[int, int]] = {}
    turned: list[str] = []
    spoken = time.monotonic()
    for place, entry in enumerate(annotations.images):
        if time.monotonic() - spoken > PATIENCE:
            spoken = time.monotonic()
            say(f"{name}: looked at {place:,} of {len(annotations.images):,} pictures")
        path = root / "images" / entry.file_name
        try:
            pixels, size = decoded(path, entry.size)
        except ValueError as error:
            here.droppable.append(f"image id {entry.id}: images/{entry.file_name} {error}")
            continue
        sizes[entry.id] = size
        digest = hashlib.sha256(f"{size} ".encode() + pixels.tobytes()).hexdigest()
        pictures.setdefault(digest, []).append((name, entry.file_name))
        if is_turned(path, size):
            turned.append(entry.file_name)
    inside = _usable(annotations, sizes, masks, here)
    problems += [f"annotations/{name}.json: {one}" for one in here.fatal + here.droppable]
    objects = tuple(box for box in inside if not box.crowd)
    if not objects:
        problems.append(f"annotations/{name}.json: no object that can be used; AP is not defined there")
    file_names = {entry.id: entry.file_name for entry in annotations.images}
    _odd_boxes(name, objects, sizes, file_names, warnings)
    if turned:
        warnings.append(
            f"{name}: {several(len(turned), 'image')} with a rotation in EXIF, which training does not apply "
            f"({turned[0]}), for the annotations state no size or that of the stored pixels; boxes drawn in a viewer "
            "that applies it are off"
        )
    counts = Counter(box.category_id for box in objects)
    areas = [sum(box.area >= bound for bound in _BOUNDS) for box in objects]
    return SplitFacts(
        name=name,
        annotations=annotations,
        sizes=sizes,
        objects=objects,
        crowds=len(inside) - len(objects),
        by_class={category.name: counts[category.id] for category in annotations.categories},
        by_size=(areas.count(0), areas.count(1), areas.count(2)),
        empty=len(sizes.keys() - {box.image_id for box in objects}),
    )


def _usable(
    annotations: Annotations, sizes: Mapping[int, tuple[int, int]], masks: bool, problems: Problems
) -> list[BoxEntry]:
    """Boxes of decoded images that training can use."""
    file_names = {entry.id: entry.file_name for entry in annotations.images}
    usable = []
    for box in annotations.boxes:
        if box.image_id not in sizes:
            continue
        fault = outside_fault(box.box, sizes[box.image_id])
        if fault is None and masks:
            try:
                read_mask(box.segmentation, sizes[box.image_id])
            except ValueError as error:
                fault = f"its segmentation {error}"
        if fault is None:
            usable.append(box)
        else:
            where = f"annotation id {box.id} (image id {box.image_id}, {file_names[box.image_id]})"
            problems.droppable.append(f"{where}: {fault}")
    return usable


def _odd_boxes(
    name: str,
    objects: tuple[BoxEntry, ...],
    sizes: Mapping[int, tuple[int, int]],
    file_names: Mapping[int, str],
    warnings: list[str],
) -> None:
    def warn(found: list[BoxEntry], what: str) -> None:
        if found:
            first = found[0]
            warnings.append(
                f"{name}: {several(len(found), 'box', 'boxes')} {what} (annotation id {first.id}, "
                f"{file_names[first.image_id]}, {[round(side, 2) for side in first.box]})"
            )

    def over(box: BoxEntry) -> float:
        (x, y, width, height), (bottom, right) = box.box, sizes[box.image_id]
        return max(-x, -y, x + width - right, y + height - bottom)

    warn([box for box in objects if over(box) > 1.0], "reaching over the image's edge by more than 1 px")
    warn([box for box in objects if min(box.box[2:]) < _THIN], f"thinner than {_THIN:g} px")
    seen: set[Any] = set()
    twice = []
    for box in objects:
        key = (box.image_id, box.category_id, box.box)
        if key in seen:
            twice.append(box)
        seen.add(key)
    warn(twice, "annotated twice with the same class")


def is_turned(path: Path, size: tuple[int, int]) -> bool:
    """Whether an image file asks viewers to turn or mirror it, which was not done when it was read.

    Args:
        path: of the file.
        size: (height, width) as :func:`trainers.data.coco.decoded` gave it.
    """
    try:
        with Image.open(path) as image:
            as_stored = size == (image.size[1], image.size[0])
            return as_stored and image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except DAMAGED:
        return False


def _same_categories(splits: list[SplitFacts], problems: list[str]) -> None:
    for split in splits[1:]:
        first = splits[0]
        if split.annotations.categories != first.annotations.categories:
            one, other = ({f"{c.id}:{c.name}" for c in s.annotations.categories} for s in (first, split))
            problems.append(
                f"annotations/{split.name}.json: its categories are not those of {first.name} (different: "
                f"{', '.join(sorted(one ^ other)[:10])}); give both files the same list"
            )


def _same_pictures(
    pictures: Mapping[str, list[tuple[str, str]]], problems: list[str], warnings: list[str]
) -> None:
    """Pictures of the same pixels: across splits results are too good, within one it only counts twice."""
    for places in pictures.values():
        if len({split for split, _ in places}) > 1:
            where = ", ".join(f"{split} ({name})" for split, name in places)
            problems.append(f"the same picture is in several splits: {where}; keep it in one")
    within: dict[str, list[str]] = {}
    for places in pictures.values():
        for split, count in Counter(split for split, _ in places).items():
            if count > 1:
                within.setdefault(split, []).append(next(name for home, name in places if home == split))
    for split, names in within.items():
        warnings.append(f"{split}: {several(len(names), 'picture')} more than once ({', '.join(names[:3])})")


def _balance(splits: list[SplitFacts], warnings: list[str]) -> None:
    """Classes that are missing somewhere, rare or far apart in number."""
    by_name = {split.name: split for split in splits}
    for split in splits:
        absent = [name for name, count in split.by_class.items() if not count]
        elsewhere = [
            name for name in absent if any(other.by_class.get(name) for other in splits if other is not split)
        ]
        if elsewhere:
            what = "cannot be learned" if split.name == "train" else "gives no AP there"
            warnings.append(
                f"{split.name}: {several(len(elsewhere), 'class', 'classes')} without an object, though another split "
                f"has some, which {what}: {_listed(elsewhere)}"
            )
    nowhere = [
        name
        for name in (splits[0].by_class if splits else ())
        if not any(split.by_class.get(name) for split in splits)
    ]
    if nowhere:
        warnings.append(
            f"{several(len(nowhere), 'category', 'categories')} without any object: {_listed(nowhere)}"
        )
    if (train := by_name.get("train")) is None:
        return
    present = {name: count for name, count in train.by_class.items() if count}
    few = [name for name, count in present.items() if count < _FEW]
    if few:
        warnings.append(
            f"train: {several(len(few), 'class', 'classes')} with fewer than {_FEW} objects: {_listed(few)}"
        )
    if present and max(present.values()) >= _UNEVEN * min(present.values()):
        most, least = max(present, key=lambda one: present[one]), min(present, key=lambda one: present[one])
        warnings.append(
            f"train: classes are uneven, {most} has {present[most]} objects and {least} {present[least]}; AP is a mean "
            "over classes"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
