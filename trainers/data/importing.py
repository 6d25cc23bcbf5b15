"""From somebody's annotations to a folder in COCO form: checked, split, written whole or not at all."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from search_spaces.errors import ConfigError, DataError, RunError
from search_spaces.files import beside, put, write_atomic, writing
from trainers.data.annotations import Problems, outside_fault, read_annotations
from trainers.data.checking import is_turned
from trainers.data.coco import decoded
from trainers.data.found import Found, FoundImage, FoundObject, ImportOptions, several
from trainers.data.importers import IMPORTERS
from trainers.data.masks import mask_area, read_mask
from trainers.data.splitting import split_images

RECORD = "import.json"
"""What was imported, how, and what was left out."""

SHOWN = 20
"""Problems that one message lists; the others are counted."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has written.

    Args:
        directory: in COCO form.
        images: split -> images.
        objects: split -> objects to learn from.
        crowds: split -> crowd regions.
        categories: names in the order of their ids.
        dropped: what ``on_bad="skip"`` left out, one sentence each.
        notes: what a person should know, one sentence each.
    """

    directory: Path
    images: Mapping[str, int]
    objects: Mapping[str, int]
    crowds: Mapping[str, int]
    categories: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """An image that was decoded, its objects in px, and its (height, width)."""

    found: FoundImage
    size: tuple[int, int]


def import_data(
    source: Path,
    to: Path,
    *,
    format: str,
    options: ImportOptions | None = None,
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    val_share: float = 0.2,
    seed: int = 0,
    link: bool = False,
    on_bad: Literal["error", "skip"] = "error",
) -> Imported:
    """Write ``source`` as a folder with ``images/`` and ``annotations/{train,val}.json``, which training reads.

    Ids of images and annotations run from 1 over all splits.

    Args:
        source: folder or file.
        to: new folder; one that is there has to be empty.
        format: a name of ``IMPORTERS``.
        options: how to read it.
        train: see :func:`~trainers.data.splitting.split_images`.
        val: the same.
        val_share: of the images, where the source has no split to validate on.
        seed: of that choice.
        link: symbolic links to the images instead of copies.
        on_bad: ``error`` stops at what is wrong, ``skip`` drops and lists it.

    Raises:
        ConfigError: a format, share or number that is not allowed.
        DataError: ``source`` or ``to`` cannot be used, or the list of what is wrong with the files.
        RunError: the disk refuses the files.
    """
    options = options or ImportOptions()
    _check(source, to, format, options, val_share)
    problems = Problems(source=source, skip=on_bad == "skip", shown=SHOWN, advice="--on-bad skip")
    found = IMPORTERS[format](source, options, problems)
    notes = list(found.notes)
    ready = _ready(found, problems, notes)
    try:
        splits = split_images(
            [one.found for one in ready],
            train=train,
            val=val,
            val_share=val_share,
            seed=seed,
            problems=problems,
        )
    except DataError:
        # Where images could not be used, too few of them is not what went wrong.
        problems.settle()
        raise
    dropped = problems.settle()
    by_path = {one.found.path: one for one in ready}
    names = _file_names([image.path for inside in splits.values() for image in inside])
    used = sum(map(len, splits.values()))
    if used < len(ready):
        notes.append(f"{several(len(ready) - used, 'image')} left out: in none of the splits that were taken")
    contents = _contents(
        {split: [by_path[image.path] for image in inside] for split, inside in splits.items()}, names, found
    )
    result = Imported(
        directory=to,
        images={split: len(content["images"]) for split, content in contents.items()},
        objects={
            split: sum(not one["iscrowd"] for one in content["annotations"])
            for split, content in contents.items()
        },
        crowds={
            split: sum(one["iscrowd"] for one in content["annotations"])
            for split, content in contents.items()
        },
        categories=tuple(
            str(one["name"]) for one in sorted(found.categories, key=lambda one: int(one["id"]))
        ),
        dropped=dropped,
        notes=tuple(notes),
    )
    record = {
        "format": format,
        "source": source.name,
        "seed": seed,
        "val_share": val_share,
        "images": result.images,
        "objects": result.objects,
        "crowds": result.crowds,
        "categories": result.categories,
        "dropped": result.dropped,
        "notes": result.notes,
    }
    _write(to, contents, names, record, link=link)
    return result


def _check(source: Path, to: Path, format: str, options: ImportOptions, val_share: float) -> None:
    if format not in IMPORTERS:
        raise ConfigError(f"--format: found {format!r}; allowed are {', '.join(IMPORTERS)}")
    if not 0.0 < val_share < 1.0:
        raise ConfigError(f"--val-share: found {val_share:g}; allowed is a share between 0 and 1")
    if options.first_pixel not in (None, 0, 1):
        raise ConfigError(f"--first-pixel: found {options.first_pixel}; allowed are 0 and 1")
    if options.classes is not None and len(set(options.classes)) < len(options.classes):
        raise ConfigError(f"--classes: a name occurs twice in {', '.join(options.classes)}")
    if not source.exists():
        raise DataError(f"{source}: does not exist; name the folder or file that is to be imported")
    if options.images is not None and not options.images.is_dir():
        raise DataError(f"--images: no folder {options.images}")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise DataError(f"{to}: holds something already and is left alone; name a new folder with --to")


def _ready(found: Found, problems: Problems, notes: list[str]) -> list[_Ready]:
    """Every image decoded and every object checked; what cannot be used is a problem."""
    if not found.images:
        problems.fatal.append("found no image")
    if not found.categories:
        problems.fatal.append("found no object, so there is no category; a detector needs at least one")
    allowed = {str(category["name"]) for category in found.categories}
    ready: list[_Ready] = []
    cut: list[float] = []
    turned: list[Path] = []
    for image in found.images:
        try:
            _, size = decoded(image.path, image.size)
        except ValueError as error:
            problems.droppable.append(f"{image.where}: {image.path} {error}")
            continue
        turned += [image.path] if is_turned(image.path, size) else []
        objects = []
        for one in image.objects:
            if one.category not in allowed:
                problems.droppable.append(
                    f"{one.where}: class {one.category!r}; allowed are {', '.join(sorted(allowed)[:20])}"
                )
                continue
            try:
                kept, excess = _placed(one, size, exact=found.exact)
            except ValueError as error:
                problems.droppable.append(f"{one.where}: {error}")
                continue
            objects.append(kept)
            cut += [excess] if excess > 1.0 else []
        ready.append(_Ready(found=replace(image, objects=tuple(objects)), size=size))
    if turned:
        notes.append(
            f"{several(len(turned), 'image')} with a rotation in EXIF ({turned[0].name}), which training does not "
            "apply, for no size is stated or that of the stored pixels; where boxes were drawn on the turned picture "
            "they are off, so save it upright"
        )
    if cut:
        notes.append(
            f"{several(len(cut), 'box', 'boxes')} reached over an edge by more than 1 px and were cut there, the "
            f"farthest by {max(cut):.0f} px"
        )
    return ready


def _placed(one: FoundObject, size: tuple[int, int], *, exact: bool) -> tuple[FoundObject, float]:
    """An object in px, inside its image, and by how many px its box reached over an edge.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    height, width = size
    scale = (width, height) if one.relative else (1.0, 1.0)
    box: Box = tuple(side * scale[index % 2] for index, side in enumerate(one.box))  # type: ignore[assignment]
    if not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ValueError(
            f"box {' '.join(f'{side:g}' for side in box)} px; allowed are finite x, y, width, height with width and "
            "height above 0"
        )
    if (fault := outside_fault(box, size)) is not None:
        raise ValueError(fault)
    excess = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height, 0.0)
    if not exact:
        left, top = max(box[0], 0.0), max(box[1], 0.0)
        right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
        box = (left, top, right - left, bottom - top)
    segmentation = one.segmentation
    area = one.area
    if isinstance(segmentation, list) and one.relative:
        segmentation = [
            [round(value * scale[index % 2], 3) for index, value in enumerate(polygon)]
            for polygon in segmentation
        ]
    if segmentation is not None:
        try:
            mask = read_mask(segmentation, size)
        except ValueError as error:
            raise ValueError(f"its segmentation {error}") from error
        area = mask_area(mask) if area is None else area
    if one.relative:
        # A thousandth of a pixel is what six decimals of a share in a large image leave.
        box = tuple(round(side, 3) for side in box)  # type: ignore[assignment]
    placed = replace(
        one,
        box=box,
        relative=False,
        segmentation=segmentation,
        area=box[2] * box[3] if area is None else area,
    )
    return placed, 0.0 if exact else excess


def _file_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name of each image below ``images/``: its own, or with folders before it where two would be the same."""
    if len({path.name.lower() for path in paths}) == len(paths):
        return {path: path.name for path in paths}
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return {path: path.absolute().relative_to(common).as_posix() for path in paths}


def _contents(
    splits: Mapping[str, Sequence[_Ready]], names: Mapping[Path, str], found: Found
) -> dict[str, dict[str, Any]]:
    """The annotation file of every split."""
    ids = {str(category["name"]): category["id"] for category in found.categories}
    contents: dict[str, dict[str, Any]] = {}
    image_id = annotation_id = 0
    for split, inside in splits.items():
        images, annotations = [], []
        for one in inside:
            image_id += 1
            images.append(
                {
                    "id": image_id,
                    "file_name": names[one.found.path],
                    "width": one.size[1],
                    "height": one.size[0],
                    **one.found.extra,
                }
            )
            for thing in one.found.objects:
                annotation_id += 1
                annotations.append(
                    {
                        "id": annotation_id,
                        "image_id": image_id,
                        "category_id": ids[thing.category],
                        "bbox": list(thing.box),
                        "area": thing.area,
                        "iscrowd": int(thing.crowd),
                        **({} if thing.segmentation is None else {"segmentation": thing.segmentation}),
                    }
                )
        contents[split] = {
            **found.head,
            "images": images,
            "annotations": annotations,
            "categories": [dict(category) for category in found.categories],
        }
    return contents


def _write(
    to: Path,
    contents: Mapping[str, Mapping[str, Any]],
    names: Mapping[Path, str],
    record: Mapping[str, Any],
    *,
    link: bool,
) -> None:
    """The folder, put in its place when it is whole."""
    temporary = beside(to.absolute())
    try:
        for split, content in contents.items():
            try:
                text = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
            except ValueError as error:
                # Objects are checked; what is kept beside them is not.
                raise DataError(
                    f"annotations/{split}.json cannot be written ({error}): `info`, `licenses` or a category of the "
                    "source holds NaN or infinity; take them out"
                ) from error
            path = temporary / "annotations" / f"{split}.json"
            written = Problems(source=path, skip=False)
            read_annotations(text, written)
            written.settle()
            write_atomic(path, text)
        for path, name in names.items():
            target = temporary / "images" / name
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                if link:
                    target.symlink_to(path.resolve())
                else:
                    shutil.copyfile(path, target)
        write_atomic(temporary / RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
        try:
            # Only an empty folder can be replaced so; one that somebody has filled meanwhile stays.
            put(temporary, to.absolute())
        except RunError as error:
            raise RunError(f"{to}: cannot be put in place ({error}); name a new folder with --to") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
