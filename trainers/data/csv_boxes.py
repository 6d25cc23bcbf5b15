"""CSV of boxes: one row an object, its columns found by their names or told."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from search_spaces.errors import DataError
from trainers.data.annotations import Problems
from trainers.data.found import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    Found,
    FoundImage,
    FoundObject,
    ImportOptions,
    numbered,
    several,
    text_of,
)

_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "filename", "file_name", "file", "image_path", "path", "img", "image_id"),
    "class": ("class", "label", "category", "class_name", "name"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "x": ("x",),
    "y": ("y",),
    "w": ("w", "width"),
    "h": ("h", "height"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "split": ("split", "set", "subset"),
}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("x", "y", "w", "h")
_SEPARATORS = (",", ";", "\t")

ROLES = tuple(_NAMES)
"""What a column can hold; ``width`` and ``height`` are the image's."""


def read_csv(source: Path, options: ImportOptions, problems: Problems) -> Found:
    """A CSV file, or the files of a folder, of which each is a split where it is called so (``train.csv``).

    ``xmin, ymin, xmax, ymax`` are the edges of a box, counted from 0; with ``first_pixel=1`` they are pixels as in
    Pascal VOC. ``x, y`` is the corner at the top left. Nothing is guessed from the values: shares of the image's sides
    are read as such only with ``normalised``. A row whose box is empty is an image without objects.

    Raises:
        DataError: no file, or columns that are missing.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.csv"))
    if not files:
        raise DataError(
            f"{source}: holds no file *.csv; name the file, or a folder with train.csv and val.csv"
        )
    objects: dict[Path, list[FoundObject]] = {}
    splits: dict[Path, set[str]] = {}
    first: dict[Path, tuple[str, tuple[int, int] | None]] = {}
    categories: dict[str, None] = {}
    largest = 0.0
    for file in files:
        columns, rows = _rows(file, options)
        for line, row in rows:
            where = f"{file.name}:{line}"
            if not (name := row.get(columns["image"], "").strip()):
                problems.droppable.append(f"{where}: {columns['image']}: found nothing; needed is an image")
                continue
            path = _image(name, file, options)
            first.setdefault(path, (where, _size(row, columns)))
            found_in = splits.setdefault(path, set())
            if "split" in columns and (split := row.get(columns["split"], "").strip().lower()):
                found_in.add(split)
            elif file.stem.lower() in SPLIT_NAMES:
                found_in.add(file.stem.lower())
            inside = objects.setdefault(path, [])
            try:
                found = _object(where, row, columns, options)
            except ValueError as error:
                problems.droppable.append(f"{where}: {error}")
                continue
            if found is not None:
                inside.append(found)
                categories.setdefault(found.category)
                largest = max(largest, *found.box)
    count = sum(map(len, objects.values()))
    if count and not options.normalised and largest <= 1.0:
        problems.fatal.append(
            f"no coordinate is above 1, so these are hardly pixels ({several(count, 'box', 'boxes')}); if they are "
            "shares of the image's sides, say --normalised"
        )
    names = options.classes or tuple(sorted(categories))
    return Found(
        images=tuple(
            FoundImage(
                where=where,
                path=path,
                splits=frozenset(splits[path]),
                size=size,
                objects=tuple(objects[path]),
            )
            for path, (where, size) in first.items()
        ),
        categories=numbered(names),
    )


def _rows(file: Path, options: ImportOptions) -> tuple[dict[str, str], list[tuple[int, dict[str, str]]]]:
    """Role -> name in the header, and the rows with the line in which each ends.

    Raises:
        DataError: unreadable, or columns that are missing.
    """
    text = text_of(file)
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    reader = csv.reader(text.splitlines(), delimiter=separator)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _columns(header, options.columns, file)
        rows = [
            (reader.line_num, dict(zip(header, row, strict=False)))
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: is no CSV ({error})") from error
    return columns, rows


def _columns(header: list[str], told: Mapping[str, str], file: Path) -> dict[str, str]:
    """Role -> name in the header."""
    unknown = [role for role in told if role not in _NAMES]
    absent = [name for name in told.values() if name not in header]
    if unknown or absent:
        raise DataError(
            f"{file}:1: --columns: found {', '.join(unknown + absent)}; allowed are {', '.join(_NAMES)}, each = one of "
            f"{', '.join(header)}"
        )
    by_lower = {name.lower(): name for name in reversed(header)}
    found = dict(told)
    for role, names in _NAMES.items():
        if role not in found and (hit := next((name for name in names if name in by_lower), None)):
            found[role] = by_lower[hit]
    corners = all(role in found for role in _CORNERS)
    sides = all(role in found for role in _SIDES)
    if "image" not in found or "class" not in found or not (corners or sides):
        raise DataError(
            f"{file}:1: found the columns {', '.join(header) or 'none'}; needed are an image, a class and either "
            "xmin, ymin, xmax, ymax or x, y, w, h. Say which is which with: --columns image=NAME,class=NAME,..."
        )
    if corners:
        return {role: name for role, name in found.items() if role not in _SIDES}
    # With x, y, w, h a column `width` is the box's unless another one is.
    taken = {found[role] for role in _SIDES}
    return {
        role: name
        for role, name in found.items()
        if role not in _CORNERS and not (role in ("width", "height") and name in taken)
    }


def _object(
    where: str, row: Mapping[str, str], columns: Mapping[str, str], options: ImportOptions
) -> FoundObject | None:
    """One row's object; None for an image without.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    roles = _CORNERS if "xmin" in columns else _SIDES
    cells = {role: row.get(columns[role], "").strip() for role in (*roles, "class")}
    if not any(cells[role] for role in roles):
        return None
    if not cells["class"]:
        raise ValueError(f"{columns['class']}: found nothing; needed is the name of a class")
    values = []
    for role in roles:
        try:
            values.append(float(cells[role]))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise ValueError(f"{columns[role]}: found {cells[role]!r}; allowed is a finite number")
    a, b, c, d = values
    first = 0 if options.normalised else options.first_pixel or 0
    if roles is _CORNERS:
        box = (a - first, b - first, c - a + first, d - b + first)
    else:
        box = (a - first, b - first, c, d)
    return FoundObject(where=where, category=cells["class"], box=box, relative=options.normalised)


def _size(row: Mapping[str, str], columns: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        height, width = (int(float(row[columns[role]])) for role in ("height", "width"))
    except (KeyError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _image(name: str, file: Path, options: ImportOptions) -> Path:
    folders = [options.images] if options.images else [file.parent, file.parent / "images"]
    if not options.images and file.stem.lower() in SPLIT_NAMES:
        folders.append(file.parent / file.stem)
    # An image_id often goes without the file's ending.
    bare = Path(name).suffix.lower() not in IMAGE_SUFFIXES
    names = [name, *(name + suffix for suffix in IMAGE_SUFFIXES if bare)]
    found = (folder / one for one in names for folder in folders if (folder / one).is_file())
    return next(found, folders[0] / name)
