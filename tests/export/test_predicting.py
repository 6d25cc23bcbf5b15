"""``nas predict``: what the training's evaluation finds, on any picture, in its own pixels."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from tiny_training import RECIPE
from typer.testing import CliRunner, Result

import nas.predicting
from nas.cli import app
from nas.export.bundle import load_detector
from nas.pictures import find_pictures, open_upright
from nas.predicting import predict
from search_spaces.errors import ConfigError, DataError, RunError
from trainers.data.catalog import open_split
from trainers.data.digits import write_folder
from trainers.data.masks import decode_masks
from trainers.data.sizing import AS_STORED
from trainers.evaluate import detect

CPU = "cpu"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes of the training as files; those of ``val`` have names that begin with it."""
    root = tmp_path_factory.mktemp("scenes")
    write_folder(RECIPE.data, root)
    return root / "images"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *(str(one) for one in arguments), "--device", CPU])


def read(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text()), json.loads((out / "images.json").read_text())


def boxes(out: Path, image: int = 1) -> np.ndarray[Any, Any]:
    return np.array([[*one["bbox"], one["score"]] for one in read(out)[0] if one["image_id"] == image])


def test_it_finds_what_the_evaluation_finds(bundle: Path, scenes: Path, tmp_path: Path) -> None:
    found = predict(bundle, [scenes], tmp_path / "out", threshold=0.0, batch=3, device=CPU)
    results, images = read(tmp_path / "out")
    assert (found.images, found.detections) == (12, len(results)) and results
    val = open_split(RECIPE.data, "val")
    expected = detect(load_detector(bundle).detector, val, batch_size=4, device=torch.device(CPU))
    numbers = {Path(one["file_name"]).name: one["id"] for one in images["images"]}
    for name, image_id in zip(val.file_names, val.image_ids, strict=True):
        ours = [one for one in results if one["image_id"] == numbers[name]]
        theirs = sorted(
            (one for one in expected if one["image_id"] == image_id), key=lambda one: -one["score"]
        )
        assert [one["category_id"] for one in ours] == [one["category_id"] for one in theirs]
        np.testing.assert_allclose(
            [[*one["bbox"], one["score"]] for one in ours],
            [[*one["bbox"], one["score"]] for one in theirs],
            atol=1e-3,
        )
    assert images["categories"] == [{"id": 2, "name": "1"}, {"id": 8, "name": "7"}]
    for one in images["images"]:
        with Image.open(tmp_path / "out" / one["drawn"]) as copy:
            assert copy.size == (one["width"], one["height"]) == (64, 64)


def test_the_batch_changes_nothing_and_the_threshold_leaves_out(
    bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    for batch in (1, 5):
        predict(bundle, [scenes], tmp_path / f"{batch}", threshold=0.0, batch=batch, device=CPU)
    one, five = (read(tmp_path / name)[0] for name in ("1", "5"))
    assert [(x["image_id"], x["category_id"]) for x in one] == [
        (x["image_id"], x["category_id"]) for x in five
    ]
    np.testing.assert_allclose([x["bbox"] for x in one], [x["bbox"] for x in five], atol=1e-3)
    scores = sorted(x["score"] for x in one)
    middle = scores[len(scores) // 2]
    found = predict(bundle, [scenes], tmp_path / "some", threshold=middle, device=CPU)
    assert found.detections == sum(score >= middle for score in scores) < len(scores)


def test_pycocotools_reads_the_predictions(mask_bundle: Path, scenes: Path, tmp_path: Path) -> None:
    first = sorted(scenes.iterdir())[0]
    picture = Image.open(first).resize((100, 60))
    picture.save(tmp_path / "wide.png")
    predict(mask_bundle, [tmp_path / "wide.png"], tmp_path / "out", threshold=0.0, device=CPU)
    results, images = read(tmp_path / "out")
    truth = COCO()
    truth.dataset = {**images, "annotations": []}
    truth.createIndex()
    assert len(truth.loadRes(str(tmp_path / "out/predictions.json")).anns) == len(results) == 5
    masks = decode_masks([one["segmentation"] for one in results], (60, 100))
    for one, mask in zip(results, masks, strict=True):
        x, y, width, height = one["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 100 + 1e-6 and y + height <= 60 + 1e-6
        rows, columns = np.nonzero(mask.numpy())
        if len(rows):
            assert x - 2 <= columns.min() and columns.max() <= x + width + 2
            assert y - 2 <= rows.min() and rows.max() <= y + height + 2
    with Image.open(tmp_path / "out" / images["images"][0]["drawn"]) as copy:
        assert copy.size == (100, 60) and copy.convert("RGB").tobytes() != picture.convert("RGB").tobytes()


def test_orientation_is_heeded(bundle: Path, scenes: Path, tmp_path: Path) -> None:
    first = sorted(scenes.iterdir())[0]
    with Image.open(first) as opened:
        upright = opened.convert("RGB").crop((0, 0, 64, 48))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for looking at
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    assert open_upright(tmp_path / "b.png").tobytes() == upright.tobytes()
    predict(bundle, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", threshold=0.0, device=CPU)
    assert read(tmp_path / "out")[1]["images"][1]["width"] == 64
    np.testing.assert_allclose(boxes(tmp_path / "out", 1), boxes(tmp_path / "out", 2), atol=1e-4)


@pytest.mark.parametrize("form", ["L", "RGBA", "P", "1", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_is_read(form: str, tmp_path: Path) -> None:
    grey = np.arange(64 * 40, dtype=np.uint16).reshape(40, 64) % 256
    if form == "I;16":
        picture = Image.fromarray(grey * np.uint16(257))
    else:
        picture = Image.fromarray(grey.astype(np.uint8)).convert("RGB").convert(form)
    name = tmp_path / ("x.jpg" if form == "CMYK" else "x.png")
    picture.save(name)
    found = open_upright(name)
    assert (found.mode, found.size) == ("RGB", (64, 40))
    if form in ("L", "I;16", "RGBA", "LA"):
        assert np.array_equal(np.asarray(found)[..., 1], grey)


def test_pictures_of_other_shapes_are_fitted_as_in_training(bundle: Path, tmp_path: Path) -> None:
    for name, size in (("tall", (20, 150)), ("wide", (200, 33)), ("dot", (1, 1))):
        Image.new("RGB", size, (90, 40, 200)).save(tmp_path / f"{name}.png")
    found = predict(bundle, [tmp_path], tmp_path / "out", threshold=0.0, device=CPU)
    results, images = read(tmp_path / "out")
    assert found.images == 3
    sizes = {one["id"]: (one["width"], one["height"]) for one in images["images"]}
    for one in results:
        width, height = sizes[one["image_id"]]
        x, y, w, h = one["bbox"]
        assert min(x, y, w, h) >= 0 and x + w <= width + 1e-6 and y + h <= height + 1e-6


def spoil(folder: Path, scenes: Path) -> Path:
    """A folder of one good picture, six bad ones and a text."""
    folder.mkdir()
    good = sorted(scenes.iterdir())[0]
    shutil.copy(good, folder / "good.png")
    whole = good.read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "pickle.png").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.")
    Image.new("F", (8, 8)).save(folder / "float.tiff")
    (folder / "flipped.png").write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    (folder / "notes.txt").write_text("left alone")
    return folder


def test_all_bad_pictures_are_listed_before_anything_is_spent(
    bundle: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = spoil(tmp_path / "mixed", scenes)
    result = command(bundle, folder, tmp_path / "none.png", "--out", tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert result.stderr.startswith("error: 7 of 8 cannot be used:") and "Traceback" not in result.output
    for name, reason in {
        "cut.png": "cut short",
        "empty.jpg": "is empty",
        "text.png": "no picture that Pillow knows",
        "pickle.png": "no picture that Pillow knows",
        "float.tiff": "pixel mode F has no fixed range",
        "flipped.png": "",
        "none.png": "No such file",
    }.items():
        lines = [line for line in result.stderr.splitlines() if f"/{name}:" in line]
        assert len(lines) == 1 and reason in lines[0]
    assert "--on-bad skip" in result.stderr and "notes.txt" not in result.stderr
    result = command(bundle, folder, "--out", tmp_path / "out", "--on-bad", "skip")
    assert result.exit_code == 0, result.output
    assert "on 1 pictures, 1 other files" in result.stdout and result.stderr.count("left out: ") == 6
    assert [Path(one["file_name"]).name for one in read(tmp_path / "out")[1]["images"]] == ["good.png"]


def test_pictures_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for width in (1001, 2001):  # above Pillow's warning, and above its error
        Image.new("1", (width, 1)).save(tmp_path / "bomb.png")
        with pytest.raises(
            DataError, match=r"bomb\.png: .*1,?001.*allowed are 1,000|.*2001.*allowed are 1,000"
        ):
            open_upright(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_upright(tmp_path / "bomb.png").size == (2001, 1)


def test_programs_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "program.eps")
    shutil.copy(tmp_path / "program.eps", tmp_path / "disguised.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "paper.pdf")
    with pytest.raises(DataError, match=r"1 of 1 cannot be used:\n.*disguised\.png: is no picture"):
        find_pictures([tmp_path])
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    found = find_pictures([tmp_path], "skip")
    assert (found.pictures, found.others) == ((tmp_path / "good.png",), 2)


def test_pictures_of_many_sizes_do_not_wait_for_each_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        Image.new("RGB", (200 + 40 * index, 300)).save(tmp_path / f"{index}.png")
    loaded = replace(load_detector(bundle), fit=AS_STORED)
    monkeypatch.setattr(nas.predicting, "load_detector", lambda *_, **__: loaded)
    opened, found = nas.predicting.open_upright, nas.predicting._found
    waiting: list[int] = [0]

    def counted(path: Path) -> Image.Image:
        waiting.append(waiting[-1] + 1)
        return opened(path)

    def looked(loaded: Any, some: Any, *others: Any) -> Any:
        waiting.append(waiting[-1] - len(some))
        return found(loaded, some, *others)

    monkeypatch.setattr(nas.predicting, "open_upright", counted)
    monkeypatch.setattr(nas.predicting, "_found", looked)
    monkeypatch.setattr(nas.predicting, "_WAITING", 1)
    assert predict(bundle, [tmp_path], tmp_path / "out", batch=2, device=CPU).images == 6
    assert (max(waiting), waiting[-1]) == (2, 0)


def test_folders_without_a_picture_and_wrong_options(bundle: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        find_pictures([tmp_path / "a"], "skip")
    (tmp_path / "a/x.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        predict(bundle, [scenes], tmp_path / "a", device=CPU)
    for options, text in (
        ({"batch": 0}, "--batch"),
        ({"threshold": 1.5}, "--threshold"),
        ({"device": "x"}, "device"),
    ):
        with pytest.raises(ConfigError, match=text):
            predict(bundle, [scenes], tmp_path / "out", **{"device": CPU, **options})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_json_for_scripts(bundle: Path, scenes: Path, tmp_path: Path) -> None:
    result = command(bundle, scenes, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["images"], data["skipped"]) == (12, [])
    assert data["detections"] == len(read(tmp_path / "out")[0])
