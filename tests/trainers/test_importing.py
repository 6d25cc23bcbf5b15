"""Imports of VOC, YOLO, CSV and COCO: boxes to the pixel, splits that repeat, every mistake in one message."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from other_formats import write_csv, write_voc, write_yolo
from PIL import Image

from search_spaces.errors import ConfigError, DataError
from trainers.data.catalog import open_split
from trainers.data.found import ImportOptions
from trainers.data.importing import Imported, import_data
from trainers.recipes import DataRecipe

SETS = ("bccd-tiny", "nuclei-tiny", "coco-cc")


def picture(path: Path, size: tuple[int, int] = (40, 30), shade: int = 0) -> Path:
    """A PNG of (width, height) px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 50, 90)).save(path)
    return path


def written(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def content_of(root: Path, split: str) -> dict[str, Any]:
    return dict(json.loads((root / "annotations" / f"{split}.json").read_text(encoding="utf-8")))


def things(root: Path, split: str, *, crowds: bool = True) -> dict[str, list[tuple[str, list[float], int]]]:
    """File name -> category, box and crowd of each of its objects, in the file's order."""
    content = content_of(root, split)
    names = {one["id"]: one["name"] for one in content["categories"]}
    found: dict[str, list[tuple[str, list[float], int]]] = {}
    for image in content["images"]:
        found[image["file_name"]] = [
            (names[one["category_id"]], one["bbox"], one["iscrowd"])
            for one in content["annotations"]
            if one["image_id"] == image["id"] and (crowds or not one["iscrowd"])
        ]
    return found


def refused(source: Path, to: Path, format: str, **settings: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        import_data(source, to, format=format, **settings)
    assert not to.exists() and not list(to.parent.glob(".*.tmp"))
    return str(caught.value)


def require_equal(found: Path, root: Path, *, within: float, crowds: bool) -> None:
    for split in ("train", "val"):
        before, after = things(root, split, crowds=crowds), things(found, split, crowds=crowds)
        assert after.keys() == before.keys()
        for name, objects in before.items():
            assert [(kind, crowd) for kind, _, crowd in after[name]] == [
                (kind, crowd) for kind, _, crowd in objects
            ]
            for (_, box, _), (_, expected, _) in zip(after[name], objects, strict=True):
                corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
                wanted = [expected[0], expected[1], expected[0] + expected[2], expected[1] + expected[3]]
                assert corners == pytest.approx(wanted, abs=within), name


@pytest.mark.parametrize("name", SETS)
def test_there_and_back_through_voc(shared_data: Path, tmp_path: Path, name: str) -> None:
    write_voc(shared_data / name, tmp_path / "voc")
    found = import_data(tmp_path / "voc", tmp_path / "new", format="voc")
    # Whole pixels are all that VOC holds; coco-cc has boxes thinner than one, which the writer widens.
    within = 1.0 if name == "coco-cc" else 0.5001
    require_equal(tmp_path / "new", shared_data / name, within=within, crowds=True)
    assert found.dropped == ()
    open_split(DataRecipe(root=str(tmp_path / "new")), "train")


@pytest.mark.parametrize("name", SETS)
def test_there_and_back_through_yolo(shared_data: Path, tmp_path: Path, name: str) -> None:
    write_yolo(shared_data / name, tmp_path / "yolo")
    import_data(tmp_path / "yolo", tmp_path / "new", format="yolo")
    require_equal(tmp_path / "new", shared_data / name, within=0.02, crowds=False)


def test_there_and_back_through_polygons(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "nuclei-tiny"
    write_yolo(source, tmp_path / "yolo", polygons=True)
    import_data(tmp_path / "yolo", tmp_path / "new", format="yolo")
    before, after = (content_of(root, "train")["annotations"] for root in (source, tmp_path / "new"))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new["segmentation"][0] == pytest.approx(old["segmentation"][0], abs=0.01)
        assert new["area"] == pytest.approx(old["area"], rel=0.2, abs=3), "pixels of the polygon"
    masks = open_split(DataRecipe(root=str(tmp_path / "new"), masks=True), "train").masks
    assert masks is not None and sum(map(len, masks)) == len(after)


@pytest.mark.parametrize("name", SETS)
def test_there_and_back_through_csv(shared_data: Path, tmp_path: Path, name: str) -> None:
    write_csv(shared_data / name, tmp_path / "csv")
    import_data(tmp_path / "csv", tmp_path / "new", format="csv")
    require_equal(tmp_path / "new", shared_data / name, within=1e-6, crowds=False)


@pytest.mark.parametrize("name", SETS)
def test_coco_stays_as_it_is(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = shared_data / name
    import_data(source, tmp_path / "new", format="coco", link=True)
    require_equal(tmp_path / "new", source, within=0.0, crowds=True)
    for split in ("train", "val"):
        before, after = content_of(source, split), content_of(tmp_path / "new", split)
        assert [one["area"] for one in after["annotations"]] == [one["area"] for one in before["annotations"]]
        assert [one.get("segmentation") for one in after["annotations"]] == [
            one.get("segmentation") for one in before["annotations"]
        ]
        assert after["categories"] == before["categories"] and after["licenses"] == before["licenses"]
        assert [one["license"] for one in after["images"]] == [one["license"] for one in before["images"]]
    assert all(path.is_symlink() for path in (tmp_path / "new/images").iterdir())


OBJECT = """<object>
<name>{name}</name>
<difficult>{difficult}</difficult>
<bndbox>
<xmin>{0}</xmin>
<ymin>{1}</ymin>
<xmax>{2}</xmax>
<ymax>{3}</ymax>
</bndbox>
</object>
"""


def voc_object(*corners: object, name: str = "cat", difficult: int = 0) -> str:
    return OBJECT.format(*corners, name=name, difficult=difficult)


def voc_file(root: Path, stem: str, *objects: str, size: tuple[int, int] = (40, 30)) -> None:
    number = sum(map(ord, stem))
    picture(root / "JPEGImages" / f"{stem}.png", shade=number % 256)
    head = f"<annotation>\n<size><width>{size[0]}</width><height>{size[1]}</height></size>\n"
    written(root, f"Annotations/{stem}.xml", head + "".join(objects) + "</annotation>\n")


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    voc_file(root, "a", voc_object(1, 1, 40, 30), voc_object(5, 6, 5, 6), voc_object(2.0, 3, 10, 20.0))
    voc_file(root, "b", voc_object(1, 1, 8, 8, name="dog", difficult=1))
    found = import_data(root, tmp_path / "new", format="voc", val_share=0.5)
    boxes = {**things(tmp_path / "new", "train"), **things(tmp_path / "new", "val")}
    assert [box for _, box, _ in boxes["a.png"]] == [[0, 0, 40, 30], [4, 5, 1, 1], [1, 2, 9, 18]]
    assert boxes["b.png"] == [("dog", [0, 0, 8, 8], 1)], "difficult is a crowd"
    assert any("1 difficult object became iscrowd" in note for note in found.notes)
    edges = ImportOptions(first_pixel=0)
    import_data(root, tmp_path / "edges", format="voc", val_share=0.5, options=edges, on_bad="skip")
    boxes = {**things(tmp_path / "edges", "train"), **things(tmp_path / "edges", "val")}
    assert [box for _, box, _ in boxes["a.png"]] == [[1, 1, 39, 29], [2, 3, 8, 17]]


def test_voc_lists_make_the_splits(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    for stem in "abcde":
        voc_file(root, stem, voc_object(1, 1, 9, 9))
    lists = {"train": "a\n", "val": "b\n", "trainval": "a\nb\n", "test": "c  1\nd -1\n"}
    for name, text in lists.items():
        written(root, f"ImageSets/Main/{name}.txt", text)
    written(root, "ImageSets/Main/cat_train.txt", "e 1\n")
    found = import_data(root, tmp_path / "new", format="voc")
    assert dict(found.images) == {"train": 1, "val": 1, "test": 2}
    assert any("1 image left out" in note for note in found.notes)
    found = import_data(root, tmp_path / "paper", format="voc", train=["trainval"], val=["test"])
    assert list(things(tmp_path / "paper", "train")) == ["a.png", "b.png"]
    assert list(things(tmp_path / "paper", "val")) == ["c.png", "d.png"]
    message = refused(root, tmp_path / "no", "voc", val=["tset"])
    assert "tset" in message and "test, train, trainval, val" in message


def test_every_mistake_of_voc_is_said_with_its_line(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    voc_file(root, "a", voc_object(1, 1, "nan", 9), voc_object(9, 9, 3, 3), voc_object(50, 1, 60, 9))
    voc_file(root, "b", voc_object(1, 1, 9, 9), size=(30, 40))
    voc_file(root, "c", "<object>\n</object>\n", voc_object(1, 1, 9, 9, difficult=7))
    written(root, "Annotations/d.xml", "<annotation>\n<object>\n")
    written(root, "Annotations/e.xml", '<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation/>')
    written(root, "Annotations/f.xml", "<annotation>\n</annotation>")
    voc_file(root, "g", voc_object(1, 1, 9, 9))
    voc_file(root, "h", voc_object(2, 1, 9, 9))
    message = refused(root, tmp_path / "new", "voc")
    for words in (
        "Annotations/a.xml:9: xmax: found 'nan'",
        "Annotations/a.xml:16: box 8 8 -5 -5 px",
        "Annotations/a.xml:26: bbox",
        "Annotations/b.xml: " + str(root / "JPEGImages/b.png") + " is 40x30 px",
        "Annotations/c.xml:3: the object has no <name>",
        "Annotations/c.xml:7: difficult: found '7'; allowed are 0 and 1",
        "Annotations/d.xml: line 3: is no XML",
        "Annotations/e.xml: line 1: has a document type",
        "Annotations/f.xml: " + str(root / "JPEGImages/f.jpg") + " does not exist",
        "9 problem(s)",
        "--on-bad skip",
    ):
        assert words in message, words
    found = import_data(root, tmp_path / "new", format="voc", on_bad="skip")
    assert len(found.dropped) == 9 and sum(found.images.values()) == 4
    assert sum(found.objects.values()) == 2
    record = json.loads((tmp_path / "new/import.json").read_text(encoding="utf-8"))
    assert record["dropped"] == list(found.dropped)


def test_a_message_lists_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    voc_file(root, "a", *(voc_object(9, 9, 3, 3) for _ in range(30)))
    lines = refused(root, tmp_path / "new", "voc").splitlines()
    assert lines[0].endswith("30 problem(s)")
    assert len([line for line in lines if "a.xml" in line]) == 20
    assert "  and 10 more" in lines


def yolo_folder(root: Path) -> Path:
    for name in ("train/images/a", "train/images/b", "valid/images/c"):
        picture(root / f"{name}.png", shade=ord(name[-1]))
    written(root, "train/labels/a.txt", "0 0.5 0.5 0.5 0.2\n1 0 0 1 0 1 1 0 1\n\n")
    written(root, "valid/labels/c.txt", "1 0.0 0.5 0.5 0.5\n")
    written(root, "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [no, cat]\n")
    return root


def test_yolo_boxes_polygons_and_images_without_objects(tmp_path: Path) -> None:
    found = import_data(yolo_folder(tmp_path / "yolo"), tmp_path / "new", format="yolo")
    train = things(tmp_path / "new", "train")
    assert train == {"a.png": [("no", [10, 12, 20, 6], 0), ("cat", [0, 0, 40, 30], 0)], "b.png": []}
    assert things(tmp_path / "new", "val") == {"c.png": [("cat", [0, 7.5, 10, 15], 0)]}
    polygon = content_of(tmp_path / "new", "train")["annotations"][1]
    assert polygon["segmentation"] == [[0, 0, 40, 0, 40, 30, 0, 30]] and polygon["area"] == 1200
    assert found.categories == ("no", "cat")
    assert any("1 image without a label file" in note for note in found.notes)
    assert any("1 box reached over an edge" in note and "10 px" in note for note in found.notes)


def test_every_mistake_of_yolo_is_said_with_its_line(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "yolo")
    written(
        root,
        "train/labels/b.txt",
        "2 0.5 0.5 0.1 0.1\n0 20 15 4 4\n0 0.5 0.5 0.1\n0 0.1 0.1 0.2 0.2 0.3\n0 0.5 x 0.1 0.1\n0 0.5 0.5 0 0.1\n",
    )
    written(root, "valid/labels/gone.txt", "0 0.5 0.5 0.1 0.1\n")
    message = refused(root, tmp_path / "new", "yolo")
    for words in (
        "train/labels/b.txt:1: class 2; allowed are whole numbers from 0 to 1 (no, cat)",
        "train/labels/b.txt:2: coordinate 20; allowed are shares",
        "train/labels/b.txt:3: 4 numbers; allowed are class and box, 5",
        "train/labels/b.txt:4: 6 numbers",
        "train/labels/b.txt:5: found '0 0.5 x 0.1 0.1'",
        "train/labels/b.txt:6: box",
        "valid/labels/gone.txt: no image",
        "7 problem(s)",
    ):
        assert words in message, words


@pytest.mark.parametrize("way", ["folders", "lists", "classes", "flat"])
def test_yolo_layouts(tmp_path: Path, way: str) -> None:
    root = tmp_path / "yolo"
    between = {"folders": ("train/", "val/"), "lists": ("", ""), "classes": ("", ""), "flat": ("", "")}[way]
    for stem, folder in zip("ab", between, strict=True):
        picture(root / f"images/{folder}{stem}.jpg", shade=ord(stem))
        written(root, f"labels/{folder}{stem}.txt", "0 0.5 0.5 0.5 0.5\n")
    options = ImportOptions()
    if way == "lists":
        written(root, "train.txt", "./images/a.jpg\n")
        written(root, "val.txt", "./images/b.jpg\n")
    if way == "classes":
        options = ImportOptions(classes=("cat", "dog"))
    else:
        written(root, "classes.txt", "cat\ndog\n")
    found = import_data(root, tmp_path / "new", format="yolo", options=options, val_share=0.5)
    assert dict(found.images) == {"train": 1, "val": 1} and found.categories == ("cat", "dog")
    if way in ("folders", "lists"):
        assert list(things(tmp_path / "new", "train")) == ["a.jpg"]


def test_yolo_without_names_is_refused(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path / "yolo")
    (root / "data.yaml").unlink()
    assert "classes.txt, or --classes" in refused(root, tmp_path / "new", "yolo")


@pytest.mark.parametrize(
    ("header", "row", "options"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "{},40,30,cat,4,6,24,12", ImportOptions()),
        ("image;label;x;y;w;h", "{};cat;4;6;20;6", ImportOptions()),
        ("image,label,x,y,width,height", "{},cat,4,6,20,6", ImportOptions()),
        (
            "f,c,l,t,r,b",
            "{},cat,4,6,24,12",
            ImportOptions(
                columns={"image": "f", "class": "c", "xmin": "l", "ymin": "t", "xmax": "r", "ymax": "b"}
            ),
        ),
        ("path,x1,y1,x2,y2,class_name", "{},0.1,0.2,0.6,0.4,cat", ImportOptions(normalised=True)),
        ("path,x1,y1,x2,y2,class_name", "{},5,7,24,12,cat", ImportOptions(first_pixel=1)),
    ],
)
def test_csv_columns(tmp_path: Path, header: str, row: str, options: ImportOptions) -> None:
    for stem in "ab":
        picture(tmp_path / "csv" / f"{stem}.png", shade=ord(stem))
    text = "\n".join((header, row.format("a.png"), row.format("b.png")))
    file = written(tmp_path, "csv/boxes.csv", text)
    import_data(file, tmp_path / "new", format="csv", options=options, val_share=0.5)
    found = {**things(tmp_path / "new", "train"), **things(tmp_path / "new", "val")}
    assert found == {name: [("cat", [4, 6, 20, 6], 0)] for name in ("a.png", "b.png")}


def test_shares_in_a_csv_are_not_guessed(tmp_path: Path) -> None:
    picture(tmp_path / "csv/a.png")
    file = written(tmp_path, "csv/boxes.csv", "image,label,x1,y1,x2,y2\na.png,cat,0.1,0.1,0.6,0.6\n")
    assert "say --normalised" in refused(file, tmp_path / "new", "csv")


def test_every_mistake_of_a_csv_is_said_with_its_line(tmp_path: Path) -> None:
    picture(tmp_path / "csv/a.png")
    file = written(
        tmp_path,
        "csv/boxes.csv",
        "image,label,x1,y1,x2,y2,split\na.png,cat,1,x,9,9,train\na.png,,1,1,9,9,train\nb.png,cat,1,1,9,9,val\n"
        "a.png,cat,9,9,3,3,train\n,cat,1,1,2,2,train\na.png,cat,2,2,9,9,train\n",
    )
    message = refused(file, tmp_path / "new", "csv")
    for words in (
        "boxes.csv:2: y1: found 'x'",
        "boxes.csv:3: label: found nothing",
        f"boxes.csv:4: {tmp_path / 'csv/b.png'} does not exist",
        "boxes.csv:5: box 9 9 -6 -6 px",
        "boxes.csv:6: image: found nothing",
        "5 problem(s)",
    ):
        assert words in message, words
    file = written(tmp_path, "csv/odd.csv", "image,label,x1,y1\n")
    assert "found the columns image, label, x1, y1; needed are" in refused(file, tmp_path / "new", "csv")
    odd = ImportOptions(columns={"picture": "image", "class": "kind"})
    message = refused(file, tmp_path / "new", "csv", options=odd)
    assert "found picture, kind; allowed are image, class" in message


def coco_file(path: Path, names: list[str], categories: list[dict[str, Any]], **edit: Any) -> None:
    content: dict[str, Any] = {
        "images": [
            {"id": index, "file_name": name, "width": 40, "height": 30} for index, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": index,
                "image_id": index,
                "category_id": categories[index % len(categories)]["id"],
                "bbox": [1, 2, 3, 4],
            }
            for index in range(len(names))
        ],
        "categories": categories,
    }
    for part, entries in edit.items():
        content[part] += entries
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_coco_as_it_is_published(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    kinds = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat", "supercategory": "animal"}]
    for split, stems in (("train", "ab"), ("val", "ac")):
        for stem in stems:
            picture(root / f"{split}2017/{stem}.jpg", shade=ord(stem) + len(split))
        coco_file(root / f"annotations/instances_{split}2017.json", [f"{stem}.jpg" for stem in stems], kinds)
    written(root, "annotations/captions_train2017.json", "{}")
    found = import_data(root, tmp_path / "new", format="coco")
    assert found.categories == ("cat", "dog"), "in the order of their ids"
    content = content_of(tmp_path / "new", "train")
    assert [one["id"] for one in content["images"]] == [1, 2], "ids begin at 1"
    assert [one["id"] for one in content_of(tmp_path / "new", "val")["annotations"]] == [3, 4]
    assert content["categories"] == kinds, "ids of categories are kept"
    assert [one["file_name"] for one in content["images"]] == ["train2017/a.jpg", "train2017/b.jpg"], (
        "both splits have an a.jpg"
    )
    assert {(one["area"], one["iscrowd"]) for one in content["annotations"]} == {(12.0, 0)}
    coco_file(root / "annotations/instances_train2014.json", ["a.jpg"], kinds)
    assert "are of one split (train)" in refused(root, tmp_path / "two", "coco")


def test_coco_of_a_tool_that_counts_from_zero(tmp_path: Path) -> None:
    root = tmp_path / "export"
    kinds = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    for split, stem in (("train", "a"), ("valid", "b")):
        picture(root / split / f"{stem}.jpg", shade=ord(stem))
        coco_file(root / split / "_annotations.coco.json", [f"{stem}.jpg"], kinds)
    import_data(root, tmp_path / "new", format="coco")
    assert [one["id"] for one in content_of(tmp_path / "new", "val")["categories"]] == [1, 2]
    assert things(tmp_path / "new", "val") == {"b.jpg": [("cat", [1, 2, 3, 4], 0)]}


def test_mistakes_of_coco_are_said_with_file_and_id(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    kinds = [{"id": 1, "name": "cat"}]
    picture(root / "images/a.jpg")
    bad = {"id": 5, "image_id": 0, "category_id": 1, "bbox": [1, 2, 0, 4]}
    torn = {"id": 6, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]]}
    coco_file(root / "annotations/train.json", ["a.jpg", "b.jpg"], kinds, annotations=[bad, torn])
    message = refused(root, tmp_path / "new", "coco")
    for words in (
        "annotations/train.json: annotation id 5",
        "annotations/train.json: annotation id 6 (image id 0, a.jpg): its segmentation has a polygon",
        "annotations/train.json: image id 1",
        "3 problem(s)",
    ):
        assert words in message, words


def many(root: Path, count: int = 40) -> Path:
    """YOLO without splits: three kinds, the rarest in every tenth image; images 38 and 39 are the same file."""
    for index in range(count):
        picture(root / f"images/{index:02}.png", shade=min(index, 38))
        rare = "2 0.5 0.5 0.3 0.3\n" if index % 10 == 0 else ""
        written(root, f"labels/{index:02}.txt", f"{index % 2} 0.5 0.5 0.2 0.2\n{rare}")
    written(root, "classes.txt", "even\nodd\nrare\n")
    return root


def test_a_split_by_chance_repeats_and_has_every_class_on_both_sides(tmp_path: Path) -> None:
    source = many(tmp_path / "yolo")

    def drawn(seed: int, share: float = 0.25) -> set[str]:
        to = tmp_path / f"{seed}-{share}-{len(list(tmp_path.iterdir()))}"
        import_data(source, to, format="yolo", val_share=share, seed=seed)
        train, val = things(to, "train"), things(to, "val")
        assert not train.keys() & val.keys() and len(train) + len(val) == 40
        for inside in (train, val):
            assert {kind for objects in inside.values() for kind, _, _ in objects} == {"even", "odd", "rare"}
        assert ("38.png" in val) == ("39.png" in val), "two copies of one image stay together"
        counts = Counter(kind for objects in val.values() for kind, _, _ in objects)
        assert counts["rare"] == round(share * 4)
        return set(val)

    first = drawn(0)
    assert first == drawn(0) and first != drawn(1)
    assert abs(len(first) - 10) <= 1 and abs(len(drawn(0, 0.5)) - 20) <= 1


def test_an_image_in_two_splits_is_a_problem(tmp_path: Path) -> None:
    root = many(tmp_path / "yolo", 4)
    written(root, "train.txt", "images/00.png\nimages/01.png\n")
    written(root, "val.txt", "images/01.png\nimages/02.png\n")
    assert "train.txt:2: belongs to train and val" in refused(root, tmp_path / "new", "yolo")
    found = import_data(root, tmp_path / "new", format="yolo", on_bad="skip")
    assert dict(found.images) == {"train": 2, "val": 1}


def test_what_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = many(tmp_path / "yolo", 6)
    kept = written(tmp_path, "new/notes.txt", "mine")
    with pytest.raises(DataError, match="holds something already"):
        import_data(source, tmp_path / "new", format="yolo")
    assert kept.read_text() == "mine" and len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "empty").mkdir()
    assert import_data(source, tmp_path / "empty", format="yolo").directory == tmp_path / "empty"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(Exception, match="No space left"):
        import_data(source, tmp_path / "half", format="yolo")
    assert not (tmp_path / "half").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("images", {"id": {}, "license": 1}, "id must be an integer"),
        ("categories", {"id": []}, "id must be an integer"),
        ("annotations", {"image_id": {}}, "no image has that id"),
        ("categories", {"supercategory": float("nan")}, "NaN or infinity"),
    ],
)
def test_odd_values_of_coco_are_refused(
    tmp_path: Path, part: str, change: dict[str, Any], words: str
) -> None:
    root = tmp_path / "coco"
    for stem in "ab":
        picture(root / f"images/{stem}.png", shade=ord(stem))
    file = root / "annotations/all.json"
    coco_file(file, ["a.png", "b.png"], [{"id": 1, "name": "cat"}])
    content = json.loads(file.read_text())
    content[part][0].update(change)
    file.write_text(json.dumps(content))
    assert words in refused(root, tmp_path / "new", "coco")


def test_classes_give_ids_and_refuse_others(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    voc_file(root, "a", voc_object(1, 1, 9, 9), voc_object(1, 1, 9, 9, name="cow"))
    voc_file(root, "b", voc_object(1, 1, 9, 9, name="dog"))
    options = ImportOptions(classes=("dog", "cat"))
    assert "class 'cow'; allowed are cat, dog" in refused(root, tmp_path / "new", "voc", options=options)
    found: Imported = import_data(
        root, tmp_path / "new", format="voc", options=options, on_bad="skip", val_share=0.5
    )
    assert found.categories == ("dog", "cat") and len(found.dropped) == 1
    assert content_of(tmp_path / "new", "train")["categories"] == [
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "cat"},
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "tfrecord"}, "allowed are coco, voc, yolo, csv"),
        ({"val_share": 1.0}, "between 0 and 1"),
        ({"options": ImportOptions(first_pixel=2)}, "allowed are 0 and 1"),
        ({"options": ImportOptions(classes=("a", "a"))}, "occurs twice"),
        ({"options": ImportOptions(images=Path("nowhere"))}, "no folder nowhere"),
    ],
)
def test_settings_are_checked_first(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    assert words in refused(
        many(tmp_path / "yolo", 2), tmp_path / "new", settings.pop("format", "yolo"), **settings
    )


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "csv"])
def test_an_empty_folder_says_what_is_expected(tmp_path: Path, format: str) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path / "empty", tmp_path / "new", format)
    assert str(tmp_path / "empty") in message
    assert "does not exist" in refused(tmp_path / "none", tmp_path / "new", format)


def test_lists_that_are_no_text_are_named(tmp_path: Path) -> None:
    voc_file(tmp_path / "voc", "a", voc_object(1, 1, 9, 9))
    picture(tmp_path / "yolo/images/a.png")
    for name in ("voc/ImageSets/Main/train.txt", "yolo/train.txt", "yolo/classes.txt", "csv/boxes.csv"):
        written(tmp_path, name, "").write_bytes(b"a\xe4")
        folder = name.partition("/")[0]
        message = refused(tmp_path / folder, tmp_path / "new", folder)
        assert message.startswith(f"{tmp_path / name}: cannot be read as text") and "UTF-8" in message
        written(tmp_path, "yolo/classes.txt", "cat\n")
        (tmp_path / "yolo/train.txt").unlink(missing_ok=True)


def test_years_of_voc_come_together(tmp_path: Path) -> None:
    for year, stem in (("VOC2007", "a"), ("VOC2012", "b")):
        voc_file(tmp_path / "kit" / year, stem, voc_object(1, 1, 9, 9))
        written(tmp_path / "kit" / year, "ImageSets/Main/trainval.txt", f"{stem}\n")
    voc_file(tmp_path / "kit/VOC2007", "c", voc_object(1, 1, 9, 9))
    written(tmp_path / "kit/VOC2007", "ImageSets/Main/test.txt", "c\n")
    import_data(tmp_path / "kit", tmp_path / "new", format="voc", train=["trainval"], val=["test"])
    assert list(things(tmp_path / "new", "train")) == ["a.png", "b.png"]
    assert list(things(tmp_path / "new", "val")) == ["c.png"]
    written(tmp_path / "kit/VOC2012", "ImageSets/Main/trainval.txt", "b\ngone\n")
    message = refused(tmp_path / "kit", tmp_path / "two", "voc", train=["trainval"], val=["test"])
    assert "VOC2012/ImageSets/Main/trainval.txt:2: 'gone' has no file" in message


def test_xml_beside_its_images_and_a_path_of_another_machine(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("valid", "b")):
        picture(tmp_path / "flat" / split / f"{stem}.jpg", shade=ord(stem))
        text = f"<annotation><filename>C:\\photos\\{stem}.jpg</filename>{voc_object(1, 1, 9, 9)}</annotation>"
        written(tmp_path / "flat", f"{split}/{stem}.xml", text)
    import_data(tmp_path / "flat", tmp_path / "new", format="voc")
    assert list(things(tmp_path / "new", "train")) == ["a.jpg"]
    assert list(things(tmp_path / "new", "val")) == ["b.jpg"]


def test_turned_images_and_names_without_ending(tmp_path: Path) -> None:
    for stem in "ab":
        image = Image.open(picture(tmp_path / "csv/images" / f"{stem}.png", shade=ord(stem)))
        exif = image.getexif()
        exif[274] = 6 if stem == "a" else 1
        image.save(tmp_path / "csv/images" / f"{stem}.png", exif=exif)
    file = written(tmp_path, "csv/boxes.csv", "image_id,Label,x1,y1,x2,y2\na,cat,1,2,9,9\nb,cat,1,2,9,9\n")
    found = import_data(file, tmp_path / "new", format="csv", val_share=0.5)
    assert sum(found.images.values()) == 2
    assert any("1 image with a rotation in EXIF (a.png)" in note for note in found.notes)


def test_a_stated_size_says_how_turned_images_are_meant(tmp_path: Path) -> None:
    rows = ["image,label,x1,y1,x2,y2,width,height"]
    for stem, sides in (("a", "30,40"), ("b", "40,30")):
        image = Image.open(picture(tmp_path / "csv" / f"{stem}.png", shade=ord(stem)))
        exif = image.getexif()
        exif[274] = 6
        image.save(tmp_path / "csv" / f"{stem}.png", exif=exif)
        rows.append(f"{stem}.png,cat,1,2,9,9,{sides}")
    found = import_data(
        written(tmp_path, "csv/boxes.csv", "\n".join(rows)), tmp_path / "new", format="csv", val_share=0.5
    )
    assert any("1 image with a rotation in EXIF (b.png)" in note for note in found.notes)
    images = [one for split in ("train", "val") for one in content_of(tmp_path / "new", split)["images"]]
    assert {one["file_name"]: (one["width"], one["height"]) for one in images} == {
        "a.png": (30, 40),
        "b.png": (40, 30),
    }
    opened = [
        open_split(DataRecipe(root=str(tmp_path / "new")), split).sizes[0] for split in ("train", "val")
    ]
    assert sorted(opened) == [(30, 40), (40, 30)]


def test_splits_of_other_names_have_to_be_chosen(tmp_path: Path) -> None:
    for stem in "ab":
        picture(tmp_path / "csv" / f"{stem}.png", shade=ord(stem))
    text = "image,label,x1,y1,x2,y2,split\na.png,cat,1,2,9,9,fold1\nb.png,cat,1,2,9,9,fold2\n"
    file = written(tmp_path, "csv/boxes.csv", text)
    message = refused(file, tmp_path / "new", "csv")
    assert "no image for train, val; the source's splits are fold1, fold2" in message
    found = import_data(file, tmp_path / "new", format="csv", val=["fold2"])
    assert dict(found.images) == {"train": 1, "val": 1}
