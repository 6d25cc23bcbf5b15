"""Writers of Pascal VOC, YOLO text and CSV, from a folder in COCO form: the way back that imports are tested with."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def splits_of(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((root / "annotations").glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def objects_of(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    for image in content["images"]:
        yield image, [one for one in content["annotations"] if one["image_id"] == image["id"]]


def names_of(content: dict[str, Any]) -> dict[int, str]:
    return {one["id"]: one["name"] for one in content["categories"]}


def write_voc(root: Path, to: Path) -> None:
    """Corners rounded to whole pixels that belong to the box, counted from 1; crowds are difficult."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (to / part).mkdir(parents=True)
    for split, content in splits_of(root):
        names, listed = names_of(content), []
        for image, inside in objects_of(content):
            stem = Path(image["file_name"]).stem
            listed.append(stem)
            shutil.copyfile(root / "images" / image["file_name"], to / "JPEGImages" / image["file_name"])
            lines = [
                "<annotation>",
                f"<filename>{image['file_name']}</filename>",
                f"<size><width>{image['width']}</width><height>{image['height']}</height></size>",
            ]
            for one in inside:
                x, y, width, height = one["bbox"]
                left, top = round(x) + 1, round(y) + 1
                corners = (left, top, max(round(x + width), left), max(round(y + height), top))
                tags = "".join(
                    f"<{tag}>{value}</{tag}>"
                    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
                )
                lines += [
                    "<object>",
                    f"<name>{names[one['category_id']]}</name><difficult>{one['iscrowd']}</difficult>",
                    f"<bndbox>{tags}</bndbox>",
                    "</object>",
                ]
            lines.append("</annotation>")
            (to / "Annotations" / f"{stem}.xml").write_text("\n".join(lines), encoding="utf-8")
        (to / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")


def write_yolo(root: Path, to: Path, *, polygons: bool = False) -> None:
    """``images/SPLIT``, ``labels/SPLIT`` and a ``data.yaml``; crowds, which YOLO has not, are left out."""
    names: list[str] = []
    for split, content in splits_of(root):
        ids = {one["id"]: index for index, one in enumerate(content["categories"])}
        names = [one["name"] for one in content["categories"]]
        (to / "images" / split).mkdir(parents=True)
        (to / "labels" / split).mkdir(parents=True)
        for image, inside in objects_of(content):
            shutil.copyfile(root / "images" / image["file_name"], to / "images" / split / image["file_name"])
            wide, high = image["width"], image["height"]
            lines = []
            for one in inside:
                if one["iscrowd"]:
                    continue
                if polygons:
                    values = [
                        value / (high if index % 2 else wide)
                        for index, value in enumerate(one["segmentation"][0])
                    ]
                else:
                    x, y, width, height = one["bbox"]
                    values = [(x + width / 2) / wide, (y + height / 2) / high, width / wide, height / high]
                lines.append(f"{ids[one['category_id']]} " + " ".join(f"{value:.6f}" for value in values))
            label = to / "labels" / split / f"{Path(image['file_name']).stem}.txt"
            label.write_text("\n".join(lines), encoding="utf-8")
    listed = "".join(f"  {index}: {name}\n" for index, name in enumerate(names))
    (to / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnames:\n{listed}", encoding="utf-8"
    )


def write_csv(root: Path, to: Path) -> None:
    """``train.csv`` and ``val.csv`` of corners in px beside ``images/``; crowds are left out."""
    shutil.copytree(root / "images", to / "images")
    for split, content in splits_of(root):
        names = names_of(content)
        with (to / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for image, inside in objects_of(content):
                head = [image["file_name"], image["width"], image["height"]]
                kept = [one for one in inside if not one["iscrowd"]]
                for one in kept:
                    x, y, width, height = one["bbox"]
                    writer.writerow([*head, names[one["category_id"]], x, y, x + width, y + height])
                if not kept:
                    writer.writerow([*head, "", "", "", "", ""])
