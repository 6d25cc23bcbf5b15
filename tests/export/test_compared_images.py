"""On which images of ``val`` a file is compared, as a person says it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_training import RECIPE as TINY
from tiny_training import trained
from typer.testing import CliRunner

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.export.detector import load_detector
from nas.export.formats import export_formats, read_report
from nas.export.subject import REAL_IMAGES, bundled
from nas.methods.exporting import export
from nas.predicting import predict
from nas.recipes.train_job import TrainJobRecipe
from nas.resolve import read_architecture
from nas.training import TrainingJob, train_to_completion
from nas.training_files import CLASSIFIER, TRAINING
from search_spaces.errors import ConfigError, DataError
from trainers.data.catalog import open_split
from trainers.data.digits import write_folder
from trainers.data.sizing import Fit
from trainers.data.stored import StoredImages
from trainers.evaluate import coco_metrics, detect
from trainers.recipes import DataRecipe

RECIPE = Path(__file__).parents[1] / "recipes/train.yaml"
VAL = 20


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of one step whose val has twenty images."""
    words = [
        "train.epochs=null",
        "train.steps=1",
        "train.evaluate_every=0",
        f"data.digits.val_images={VAL}",
    ]
    recipe = check(TrainJobRecipe, apply_overrides(read_yaml(RECIPE), words), source=str(RECIPE))
    folder = tmp_path_factory.mktemp("training")
    train_to_completion(
        TrainingJob(architecture=read_architecture("resnet18"), recipe=recipe, directory=folder)
    )
    return folder


def compared(training: Path, to: Path, *words: Any) -> list[dict[str, Any]]:
    words = ("export", training, "--to", to, "--format", "source", *words)
    result = CliRunner().invoke(app, [str(one) for one in words])
    assert result.exit_code == 0, result.output
    return list(read_report(to)["artefacts"])


def test_as_many_images_of_val_as_one_says(training: Path, tmp_path: Path) -> None:
    folder = export(str(training), tmp_path / "bundle")
    data = check(
        TrainJobRecipe,
        apply_overrides(read_yaml(RECIPE), [f"data.digits.val_images={VAL}"]),
        source=str(RECIPE),
    ).data
    for images, count, on in (
        (None, REAL_IMAGES, f"16 of {VAL} images of val"),
        (3, 3, f"3 of {VAL} images of val"),
        (500, VAL, f"{VAL} images of val"),
        ("all", VAL, f"{VAL} images of val"),
    ):
        one = bundled(folder, data, images=images)  # type: ignore[arg-type]
        assert len(one.images) == count and one.on == on
        assert one.data is not None and len(one.data) == count
        assert len(one.few) == min(count, REAL_IMAGES)
    assert one.on_few == "16 images of val", "backbones are compared on a few, whose maps fit into memory"
    (source,) = (item for item in compared(training, tmp_path / "all", "--images", "all") if item["checks"])
    assert source["on"] == "16 images of val"


def test_a_split_in_a_file_is_compared_a_few_images_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a val of 5000 photos the padded pixels would be 27 GB."""
    scenes = replace(TINY.data, digits=replace(TINY.data.digits, val_images=VAL))
    write_folder(scenes, tmp_path / "scenes")
    folder = export(str(trained(tmp_path / "training", TINY)))
    held = DataRecipe(root=str(tmp_path / "scenes"))
    asked: list[int] = []
    read = StoredImages.padded

    def counting(self: StoredImages, chosen: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        asked.append(len(chosen))
        return read(self, chosen, size)

    monkeypatch.setattr(StoredImages, "padded", counting)
    one = bundled(folder, replace(held, cache=str(tmp_path / "cache")), images="all")
    assert isinstance(one.images, StoredImages) and asked == []
    backbone, whole, _ = export_formats(one, folder, ["torch_export"]).artefacts
    # Backbones see the first sixteen, detectors all of them, and some again at another size.
    assert max(asked) <= REAL_IMAGES and sum(asked) == REAL_IMAGES + VAL + 7
    assert (backbone.on, whole.on) == ("16 images of val", f"{VAL} images of val")
    values = {check.of: check.values for check in whole.checks}
    assert values.keys() == {"boxes", "scores", "AP"} and one.detector is not None
    val = open_split(held, "val")
    scored = coco_metrics(val, detect(one.detector, val, device=torch.device("cpu"))).AP
    assert values["AP"] == pytest.approx((scored, scored), abs=1e-4)


def test_pictures_of_either_orientation_are_compared_at_their_sizes(tmp_path: Path) -> None:
    """A detector that was trained on lying and standing pictures meets both, padded as in its training."""
    scenes = replace(TINY.data, digits=replace(TINY.data.digits, val_images=9, image_size=128))
    folder = tmp_path / "scenes"
    write_folder(scenes, folder)
    for split in ("train", "val"):
        file = folder / "annotations" / f"{split}.json"
        known = json.loads(file.read_text(encoding="utf-8"))
        for image in known["images"]:
            # The lower or the right part is cut off; every second one lies.
            image["height" if image["id"] % 2 else "width"] = 80
            with Image.open(folder / "images" / image["file_name"]) as picture:
                picture.crop((0, 0, image["width"], image["height"])).save(
                    folder / "images" / image["file_name"]
                )
        sides = {image["id"]: (image["width"], image["height"]) for image in known["images"]}
        known["annotations"] = [
            one
            for one in known["annotations"]
            if all(
                one["bbox"][axis] + one["bbox"][axis + 2] <= sides[one["image_id"]][axis] for axis in (0, 1)
            )
        ]
        file.write_text(json.dumps(known), encoding="utf-8")
    data = DataRecipe(root=str(folder), image_size=(80, 128), orientation="either")
    # P7 of 128 px a cell: a graph of any size needs more than these pictures have.
    coarse = replace(TINY, data=data, detector=replace(TINY.detector, extra_levels=2))
    deep = export(str(trained(tmp_path / "coarse", coarse)), tmp_path / "deep")
    one = bundled(deep, data, images="all")
    assert min(one.image_size) >= one.least_side > 128
    whole = next(item for item in export_formats(one, deep, ["onnx"]).artefacts if item.holds == "detector")
    assert {check.of for check in whole.checks} == {"boxes", "scores", "AP"} and whole.on == "9 images of val"
    bundle = export(str(trained(tmp_path / "training", replace(TINY, data=data))), tmp_path / "bundle")
    loaded = load_detector(bundle)
    assert loaded.fit == Fit((80, 128), either_way=True) and loaded.image_size in ((96, 128), (128, 96))
    one = bundled(bundle, data, images="all")
    assert one.data is not None and one.on == "9 images of val"
    sizes = [tuple(some.shape) for some in one.batches(9)]
    assert sorted(sizes) == [(4, 3, 128, 96), (5, 3, 96, 128)] or sorted(sizes) == [
        (4, 3, 96, 128),
        (5, 3, 128, 96),
    ]
    whole = next(item for item in export_formats(one, bundle, ["onnx"]).artefacts if item.holds == "detector")
    assert {check.of for check in whole.checks} == {"boxes", "scores", "AP"} and whole.on == "9 images of val"
    assert "resized to 80 px on the shorter side, 128 on the longer one at most, padded" in whole.accepts
    # What is found in a picture is what the training's evaluation finds in it.
    names = [folder / "images" / name for name in one.data.file_names]
    predict(bundle, names, tmp_path / "out", threshold=0.0)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    scored = detect(loaded.detector, one.data, device=torch.device("cpu"))
    assert found and sorted(result["score"] for result in found) == pytest.approx(
        sorted(result["score"] for result in scored), abs=1e-5
    )


@pytest.mark.parametrize("said", ["0", "-1", "some", "1.5", ""])
def test_what_is_no_number_of_images_is_refused(training: Path, tmp_path: Path, said: str) -> None:
    result = CliRunner().invoke(
        app, ["export", str(training), "--to", str(tmp_path / "x"), f"--images={said}"]
    )
    assert result.exit_code != 0
    assert "allowed are all and numbers from 1" in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()


def test_images_that_are_not_there_are_a_sentence(training: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--images: found 4; .*for a run or a training, and resnet18 is"):
        export("resnet18", tmp_path / "x", ["source"], 4)
    classifier = tmp_path / "classifier"
    classifier.mkdir()
    for name in (CLASSIFIER, TRAINING):
        (classifier / name).touch()
    with pytest.raises(ConfigError, match=r"--images: found all; .*classifier is none"):
        export(str(classifier), tmp_path / "x", ["source"], "all")
    folder = export(str(training), tmp_path / "bundle")
    with pytest.raises(DataError, match="--images: all of val cannot be taken: there is no data set"):
        bundled(folder, None, images="all")
