"""COCO under any file names: ``instances_train2017.json`` beside ``train2017/``, exports of tools, and so on."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from search_spaces.errors import DataError
from trainers.data.annotations import Annotations, BoxEntry, Problems, read_annotations
from trainers.data.found import SPLIT_NAMES, Found, FoundImage, FoundObject, ImportOptions, numbered

# Of COCO's own archives: other tasks than boxes.
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_FOLDER = """COCO looks like one of these:
  DIR/annotations/instances_train2017.json, instances_val2017.json   DIR/train2017/, DIR/val2017/
  DIR/annotations/train.json, val.json                               DIR/images/
  DIR/train/_annotations.coco.json and the images beside it
or name one annotation file as SOURCE"""


def read_coco(source: Path, options: ImportOptions, problems: Problems) -> Found:
    """An annotation file, or those of a folder; a file is of the split that its name, or its folder's, contains.

    Boxes, areas, crowds and segmentations stay as they are. Ids of categories stay where they are 1 and above and
    every file gives a name the same one; else categories are numbered anew.

    Raises:
        DataError: no annotation file, two of one split, or one that is not of COCO's form.
    """
    files = _files(source)
    root = source if source.is_dir() else source.parent
    images: dict[Path, FoundImage] = {}
    categories: dict[str, dict[str, Any]] = {}
    head: dict[str, Any] = {}
    kept = True
    for path, split in files.items():
        content = path.read_bytes()
        here = Problems(source=path, skip=problems.skip)
        read = read_annotations(content, here)
        name = _short(path, root)
        problems.fatal += [f"{name}: {one}" for one in here.fatal]
        problems.droppable += [f"{name}: {one}" for one in here.droppable]
        data: Mapping[str, Any] = json.loads(content)
        head = head or {key: data[key] for key in ("info", "licenses") if key in data}
        for entry in data["categories"]:
            if (label := str(entry.get("name", entry.get("id")))) not in categories:
                known = {key: entry[key] for key in ("id", "name", "supercategory") if key in entry}
                categories[label] = {**known, "name": label}
            kept &= categories[label].get("id") == entry.get("id")
        if len({one.name for one in read.categories}) < len(read.categories):
            problems.fatal.append(f"{name}: two categories have the same name")
        for image in _images(read, data, path, split, root, options):
            if (other := images.get(image.path)) is not None:
                problems.droppable.append(f"{image.where}: {other.where} names the same file")
            images.setdefault(image.path, image)
    ids = [entry.get("id") for entry in categories.values()]
    kept &= all(isinstance(one, int) and one >= 1 for one in ids) and len(set(ids)) == len(ids)
    listed = tuple(categories.values()) if kept else _renumbered(categories)
    return Found(
        images=tuple(images.values()),
        categories=listed if options.classes is None else numbered(options.classes),
        exact=True,
        head=head,
    )


def _renumbered(categories: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple({**entry, "id": index} for index, entry in enumerate(categories.values(), start=1))


def _images(
    read: Annotations,
    data: Mapping[str, Any],
    path: Path,
    split: str | None,
    root: Path,
    options: ImportOptions,
) -> list[FoundImage]:
    names = {category.id: category.name for category in read.categories}
    licences = {
        one["id"]: one["license"]
        for one in data["images"]
        if "license" in one and isinstance(one.get("id"), int)
    }
    boxes: dict[int, list[BoxEntry]] = {}
    for box in read.boxes:
        boxes.setdefault(box.image_id, []).append(box)
    folders = _folders(path, root, split, options)
    name = _short(path, root)
    return [
        FoundImage(
            where=f"{name}: image id {image.id}",
            path=_image(image.file_name, folders),
            splits=frozenset(() if split is None else (split,)),
            size=image.size,
            objects=tuple(
                FoundObject(
                    where=f"{name}: annotation id {box.id} (image id {image.id}, {image.file_name})",
                    category=names[box.category_id],
                    box=box.box,
                    crowd=box.crowd,
                    area=box.area,
                    segmentation=box.segmentation or None,
                )
                for box in boxes.get(image.id, ())
            ),
            extra={"license": licences[image.id]} if image.id in licences else {},
        )
        for image in read.images
    ]


def _folders(path: Path, root: Path, split: str | None, options: ImportOptions) -> list[Path]:
    """Where the images of an annotation file may be, likely places first."""
    if options.images is not None:
        return [options.images]
    # instances_train2017 has its images in train2017.
    names = [path.stem.rpartition("_")[2], path.stem, *([split] if split else [])]
    bases = [root, root / "images", path.parent, path.parent.parent]
    folders = [base / name for base in bases for name in names] + [root / "images", path.parent, root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _image(file_name: str, folders: list[Path]) -> Path:
    # Some tools write the folder into file_name, others do not.
    for name in dict.fromkeys((file_name, PurePosixPath(file_name).name)):
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    return folders[0] / file_name


def _files(source: Path) -> dict[Path, str | None]:
    """Annotation file -> its split; None where neither its name nor its folder's says one."""
    if source.is_file():
        return {source: _split(source)}
    for pattern in ("annotations/*.json", "*.json", "*/*.json"):
        found = [path for path in sorted(source.glob(pattern)) if not path.name.startswith(_OTHER_TASKS)]
        if pattern == "*.json":
            # An import of ours has a record there; other tools keep settings.
            found = [path for path in found if path.name != "import.json"]
        if found:
            break
    else:
        raise DataError(f"{source}: holds no COCO annotation file; {_FOLDER}")
    splits = {path: _split(path) for path in found}
    for path, split in splits.items():
        same = [other.name for other, name in splits.items() if name == split and other != path]
        if same:
            raise DataError(
                f"{source}: {path.name} and {', '.join(same)} are of one split ({split or 'none named'}); name the one "
                "that you mean as SOURCE, or keep the others elsewhere"
            )
    return splits


def _split(path: Path) -> str | None:
    # "validation" contains "val" and so on, and a file's own name says more than its folder's.
    for text in (path.stem.lower(), path.parent.name.lower()):
        for name in ("train", "val", "test"):
            if name in text:
                return SPLIT_NAMES[name]
    return None


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
