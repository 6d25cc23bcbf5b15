"""Pascal VOC: one XML file an image (Everingham et al. 2010), read with the line of every entry."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

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

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FOLDER = """Pascal VOC looks like this:
  DIR/Annotations/*.xml
  DIR/JPEGImages/*.jpg
  DIR/ImageSets/Main/{train,val,trainval,test}.txt   names without ending; may be left out"""


def read_voc(source: Path, options: ImportOptions, problems: Problems) -> Found:
    """Every XML file below ``Annotations/``, or below ``source`` where there is no such folder.

    Corners are pixels that belong to the box and are counted from 1 (development kit of VOC2007), so the box is
    xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1. ``first_pixel=0`` reads them as edges instead.

    A difficult object becomes a crowd: VOC's evaluation counts it neither as found nor as missed, which COCO's does
    for crowds only, and training leaves both out.

    Raises:
        DataError: no XML file at all, or a list of images that is no text.
    """
    roots = _roots(source)
    categories: dict[str, None] = {}
    images: list[FoundImage] = []
    difficult = zeros = 0
    for root in roots:
        lists = _lists(root, source, problems)
        for path in sorted(
            (root / "Annotations" if (root / "Annotations").is_dir() else root).rglob("*.xml")
        ):
            where = str(path.relative_to(source))
            try:
                annotation = _parse(path)
            except ValueError as error:
                problems.droppable.append(f"{where}: {error}")
                continue
            objects = []
            for element in annotation.all("object"):
                found = _object(element, where, options, problems)
                if found is None:
                    continue
                objects.append(found)
                difficult += found.crowd
                zeros += min(found.box[:2]) < 0
                categories.setdefault(found.category)
            splits = lists.get(path.stem, [])
            if not lists and (name := path.relative_to(root).parts[0]) in SPLIT_NAMES:
                splits = [name]
            images.append(
                FoundImage(
                    where=where,
                    path=_image(path, annotation, root, options),
                    splits=frozenset(splits),
                    size=_size(annotation),
                    objects=tuple(objects),
                )
            )
    notes = []
    if difficult:
        notes.append(
            f"{several(difficult, 'difficult object')} became iscrowd: not learned from, "
            "neither hit nor miss in evaluation"
        )
    if zeros:
        notes.append(
            f"{several(zeros, 'box', 'boxes')} begin at pixel 0, though VOC counts from 1; if these files count "
            "from 0, import them with --first-pixel 0"
        )
    names = options.classes or tuple(sorted(categories))
    return Found(images=tuple(images), categories=numbered(names), notes=tuple(notes))


@dataclass(kw_only=True)
class _Element:
    """An XML element, its line and its text."""

    tag: str
    line: int
    text: str = ""
    children: list["_Element"] = field(default_factory=list)

    def all(self, tag: str) -> Iterator["_Element"]:
        return (child for child in self.children if child.tag == tag)

    def get(self, tag: str) -> "_Element | None":
        return next(self.all(tag), None)


def _parse(path: Path) -> _Element:
    """The root element.

    Raises:
        ValueError: unreadable, no XML, or another root; the rest of a sentence.
    """
    root = _Element(tag="", line=0)
    open_elements = [root]
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        element = _Element(tag=tag, line=parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(tag: str) -> None:
        del tag
        element = open_elements.pop()
        element.text = element.text.strip()

    def text(data: str) -> None:
        open_elements[-1].text += data

    def doctype(*_: object) -> None:
        # A document type can define text that grows without bound, or read other files.
        raise ValueError(f"line {parser.CurrentLineNumber}: has a document type; Pascal VOC files have none")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: is no XML ({expat.ErrorString(error.code)})") from error
    found = root.children[0]
    if found.tag != "annotation":
        raise ValueError(
            f"line {found.line}: found <{found.tag}>; a Pascal VOC file begins with <annotation>"
        )
    return found


def _object(element: _Element, where: str, options: ImportOptions, problems: Problems) -> FoundObject | None:
    """One object; None, and a problem, where it cannot be read."""
    at = f"{where}:{element.line}"
    name = element.get("name")
    if name is None or not name.text:
        problems.droppable.append(f"{at}: the object has no <name>")
        return None
    corners = element.get("bndbox")
    if corners is None:
        problems.droppable.append(f"{at}: {name.text} has no <bndbox>")
        return None
    values = []
    for corner in _CORNERS:
        entry = corners.get(corner)
        number = None if entry is None else _number(entry.text)
        if number is None:
            line = corners.line if entry is None else entry.line
            text = "nothing" if entry is None else repr(entry.text)
            problems.droppable.append(f"{where}:{line}: {corner}: found {text}; allowed is a finite number")
            return None
        values.append(number)
    flag = element.get("difficult")
    if flag is not None and flag.text not in ("", "0", "1"):
        problems.droppable.append(f"{where}:{flag.line}: difficult: found {flag.text!r}; allowed are 0 and 1")
        return None
    first = 1 if options.first_pixel is None else options.first_pixel
    xmin, ymin, xmax, ymax = values
    return FoundObject(
        where=f"{where}:{corners.line}",
        category=name.text,
        box=(xmin - first, ymin - first, xmax - xmin + first, ymax - ymin + first),
        crowd=flag is not None and flag.text == "1",
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _size(annotation: _Element) -> tuple[int, int] | None:
    """(height, width); None where it is missing or, as some tools write it, 0."""
    size = annotation.get("size")
    sides = [
        None if size is None or (entry := size.get(side)) is None else _number(entry.text)
        for side in ("height", "width")
    ]
    return (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None


def _image(path: Path, annotation: _Element, root: Path, options: ImportOptions) -> Path:
    """The image file of an XML file: that of its name, or the one that ``<filename>`` says."""
    folders = [
        folder
        for folder in (options.images, root / "JPEGImages", root / "images", path.parent)
        if folder is not None and folder.is_dir()
    ]
    stated = annotation.get("filename")
    # Only the name: paths in these files are those of the annotator's machine.
    name = "" if stated is None else stated.text.replace("\\", "/").rpartition("/")[2]
    names = [*([name] if Path(name).suffix.lower() in IMAGE_SUFFIXES else [])]
    names += [path.stem + suffix for end in IMAGE_SUFFIXES for suffix in (end, end.upper())]
    for folder in folders:
        for one in sorted(names, key=lambda one: Path(one).stem != path.stem):
            if (folder / one).is_file():
                return folder / one
    return folders[0] / (name or f"{path.stem}.jpg")


def _lists(root: Path, source: Path, problems: Problems) -> dict[str, list[str]]:
    """Name of an image -> the lists of ``ImageSets/Main`` that hold it; empty without lists.

    Lists of one class (``cat_train.txt``) say which images show it and are not read.
    """
    found: dict[str, list[str]] = {}
    for split in (*SPLIT_NAMES, "trainval"):
        path = root / "ImageSets/Main" / f"{split}.txt"
        if not path.is_file():
            continue
        for line, text in enumerate(text_of(path).splitlines(), start=1):
            if not (words := text.split()):
                continue
            if not (root / "Annotations" / f"{words[0]}.xml").is_file():
                problems.droppable.append(
                    f"{path.relative_to(source)}:{line}: {words[0]!r} has no file Annotations/{words[0]}.xml"
                )
            found.setdefault(words[0], []).append(split)
    return found


def _roots(source: Path) -> list[Path]:
    """``source``, or the years (VOC2007, VOC2012) in it."""
    years = [] if (source / "Annotations").is_dir() else sorted(source.glob("*/Annotations"))
    roots = [year.parent for year in years] or [source]
    if not any(next(root.rglob("*.xml"), None) for root in roots):
        raise DataError(f"{source}: holds no XML file; {_FOLDER}")
    return roots
