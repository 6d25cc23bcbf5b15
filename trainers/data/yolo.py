"""YOLO text: one line an object, ``class cx cy w h`` or ``class x1 y1 x2 y2 ...``, in shares of the image's sides."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import DataError
from trainers.data.annotations import Problems
from trainers.data.found import (
    SPLIT_NAMES,
    Found,
    FoundImage,
    FoundObject,
    ImportOptions,
    image_files,
    numbered,
    several,
    text_of,
)

_BOX = 5
_POINTS = 3
# Corners that a tool has rounded may lie a little outside; pixels lie far outside.
_ROOM = 0.01
_NAME_FILES = ("classes.txt", "obj.names", "names.txt")
_FOLDER = """YOLO text looks like one of these:
  DIR/data.yaml                        names, and train: and val: folders or lists of images
  DIR/images/{train,val}/  DIR/labels/{train,val}/   and data.yaml or classes.txt
  DIR/{train,valid}/images/  DIR/{train,valid}/labels/
  DIR/images/  DIR/labels/             perhaps with train.txt and val.txt"""


def read_yolo(source: Path, options: ImportOptions, problems: Problems) -> Found:
    """Images of a folder or of a ``data.yaml``, and the label file of each.

    A line of more than five numbers is a polygon and its box the polygon's; where ``data.yaml`` has ``kpt_shape``, it
    is a box and key points, which are left out. An image without a label file shows no object.

    Raises:
        DataError: no image, no names of classes, or a ``data.yaml`` or a list that cannot be read.
    """
    root, settings = _settings(source)
    names = options.classes or _names(root, settings)
    sets = _sets(root, settings, options, problems)
    images: dict[Path, FoundImage] = {}
    splits: dict[Path, set[str]] = {}
    labels: set[Path] = set()
    unlabelled = 0
    for split, paths in sets.items():
        for where, path in paths:
            splits.setdefault(path, set()).update(() if split is None else (split,))
            if path in images:
                continue
            label = _label(path)
            objects: list[FoundObject] = []
            if label is None:
                unlabelled += 1
            else:
                labels.add(label)
                objects = _objects(label, root, names, "kpt_shape" in settings, problems)
            images[path] = FoundImage(where=where, path=path, objects=tuple(objects))
    if not images:
        raise DataError(f"{source}: found no image; {_FOLDER}")
    _orphans(labels, root, problems)
    notes = []
    if unlabelled:
        notes.append(f"{several(unlabelled, 'image')} without a label file: taken as images without objects")
    return Found(
        images=tuple(
            FoundImage(where=one.where, path=path, splits=frozenset(splits[path]), objects=one.objects)
            for path, one in images.items()
        ),
        categories=numbered(names),
        notes=tuple(notes),
    )


def _settings(source: Path) -> tuple[Path, Mapping[str, Any]]:
    """Folder and content of ``data.yaml``; empty where there is none."""
    if source.is_file():
        candidates, root = [source], source.parent
    else:
        candidates, root = sorted([*source.glob("*.yaml"), *source.glob("*.yml")]), source
    for path in candidates:
        try:
            # Every scalar as text: to YAML 1.1 the class name `no` would be false.
            data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{path}: cannot be read as YAML ({error})") from error
        if isinstance(data, dict) and "names" in data:
            return root, data
        if source.is_file():
            raise DataError(f"{path}: has no `names`, a list of the classes' names; {_FOLDER}")
    return root, {}


def _names(root: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers.

    Raises:
        DataError: none are given, or one is missing.
    """
    names = settings.get("names")
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    if isinstance(names, dict) and names:
        missing = [number for number in range(len(names)) if str(number) not in names]
        if missing:
            raise DataError(
                f"data.yaml: names: found the numbers {', '.join(names)}; needed are all from 0 to {len(names) - 1}"
            )
        return tuple(str(names[str(number)]) for number in range(len(names)))
    for path in (root / name for name in _NAME_FILES):
        if path.is_file():
            return tuple(line.strip() for line in text_of(path).splitlines() if line.strip())
    raise DataError(
        f"{root}: the names of the classes are needed: `names` in data.yaml, a file classes.txt, or --classes"
    )


_Sets = dict[str | None, list[tuple[str, Path]]]


def _sets(root: Path, settings: Mapping[str, Any], options: ImportOptions, problems: Problems) -> _Sets:
    """Split -> (where it is named, image); the split is None where there are none."""
    if options.images is not None:
        return {None: _listed_folder(options.images)}
    found: _Sets = {}
    for split in SPLIT_NAMES:
        if (entries := settings.get(split)) and split in settings:
            for entry in entries if isinstance(entries, list) else [entries]:
                found.setdefault(split, []).extend(_entry(str(entry), root, settings, problems))
    if found:
        return found
    for split in SPLIT_NAMES:
        for folder in (root / "images" / split, root / split / "images"):
            if folder.is_dir():
                found.setdefault(split, []).extend(_listed_folder(folder))
        if (path := root / f"{split}.txt").is_file():
            found.setdefault(split, []).extend(_list_file(path, root, problems))
    if found:
        return found
    return {None: _listed_folder(root / "images" if (root / "images").is_dir() else root)}


def _entry(entry: str, root: Path, settings: Mapping[str, Any], problems: Problems) -> list[tuple[str, Path]]:
    """Images of one value of ``train`` or ``val``: a folder, or a file that lists images."""
    home = root / str(settings.get("path") or "")
    # Roboflow writes ../train/images into a data.yaml that lies beside train/.
    candidates = [home / entry, root / entry, root / entry.removeprefix("../")]
    for path in candidates:
        if path.is_dir():
            return _listed_folder(path)
        if path.is_file():
            return _list_file(path, path.parent, problems)
    problems.fatal.append(f"data.yaml: {entry!r} is neither a folder nor a list of images")
    return []


def _listed_folder(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in image_files(folder)]


def _list_file(path: Path, root: Path, problems: Problems) -> list[tuple[str, Path]]:
    found = []
    for line, text in enumerate(text_of(path).splitlines(), start=1):
        if not (name := text.strip()):
            continue
        candidates = [root / name, root / "images" / name]
        image = next((one for one in candidates if one.is_file()), None)
        if image is None:
            problems.droppable.append(f"{path.name}:{line}: no image {name}")
        else:
            found.append((f"{path.name}:{line}", image))
    return found


def _label(image: Path) -> Path | None:
    """``labels/`` in place of the last ``images/`` of the path, or beside the image."""
    parts = list(image.with_suffix(".txt").parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    beside = image.with_suffix(".txt")
    if places:
        parts[places[-1]] = "labels"
        if (path := Path(*parts)).is_file():
            return path
    return beside if beside.is_file() else None


def _orphans(used: set[Path], root: Path, problems: Problems) -> None:
    """Label files without an image, in the folders from which labels were read."""
    for folder in sorted({label.parent for label in used if "labels" in label.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in used and path.name not in _NAME_FILES:
                problems.droppable.append(f"{_short(path, root)}: no image of that name belongs to a split")


def _objects(
    label: Path, root: Path, names: tuple[str, ...], key_points: bool, problems: Problems
) -> list[FoundObject]:
    where = _short(label, root)
    try:
        text = label.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        problems.droppable.append(f"{where}: cannot be read as text ({error})")
        return []
    found = []
    for line, words in enumerate(map(str.split, text.splitlines()), start=1):
        if not words:
            continue
        try:
            found.append(_object(f"{where}:{line}", words, names, key_points))
        except ValueError as error:
            problems.droppable.append(f"{where}:{line}: {error}")
    return found


def _object(where: str, words: list[str], names: tuple[str, ...], key_points: bool) -> FoundObject:
    """One line.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"found {' '.join(words)[:60]!r}; allowed are numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"found {' '.join(words)[:60]!r}; allowed are finite numbers")
    number, values = numbers[0], numbers[1:]
    if number != int(number) or not 0 <= number < len(names):
        raise ValueError(
            f"class {words[0]}; allowed are whole numbers from 0 to {len(names) - 1} ({', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''})"
        )
    if key_points:
        values = values[: _BOX - 1]
    odd = [value for value in values if not -_ROOM <= value <= 1 + _ROOM]
    if odd:
        raise ValueError(f"coordinate {odd[0]:g}; allowed are shares of the image's sides, from 0 to 1")
    name = names[int(number)]
    if len(values) == _BOX - 1:
        x, y, width, height = values
        return FoundObject(
            where=where, category=name, box=(x - width / 2, y - height / 2, width, height), relative=True
        )
    if len(values) < 2 * _POINTS or len(values) % 2:
        raise ValueError(
            f"{len(words)} numbers; allowed are class and box, {_BOX}, or class and polygon, x and y of at least "
            f"{_POINTS} points"
        )
    polygon = [min(max(value, 0.0), 1.0) for value in values]
    xs, ys = polygon[0::2], polygon[1::2]
    return FoundObject(
        where=where,
        category=name,
        box=(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)),
        relative=True,
        segmentation=[polygon],
    )


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
