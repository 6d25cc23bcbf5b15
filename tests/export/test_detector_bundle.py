"""A bundle of a finished training holds the whole detector, and says what it is."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_training import RECIPE, narrow
from torch import nn

from nas.export.bundle import load_bundle, load_detector
from nas.export.manifest import read_manifest, verify
from nas.methods.exporting import export
from nas.training import evaluate_training, read_result
from search_spaces.errors import RunError
from trainers.data.annotations import Problems, read_annotations
from trainers.data.catalog import open_split
from trainers.data.sizing import AS_STORED
from trainers.evaluate import coco_metrics, detect


def test_the_bundle_scores_what_the_training_scored(training: Path, bundle: Path) -> None:
    loaded = load_detector(bundle)
    assert not loaded.detector.training
    assert loaded.architecture == narrow() and loaded.recipe == RECIPE.detector
    assert [(one.id, one.name) for one in loaded.categories] == [(2, "1"), (8, "7")]
    assert (loaded.image_size, loaded.fit, loaded.multiple) == ((64, 64), AS_STORED, 32)
    val = open_split(RECIPE.data, "val")
    found = detect(loaded.detector, val, batch_size=4, device=torch.device("cpu"))
    result = read_result(training)
    assert result is not None and coco_metrics(val, found).to_dict() == result["metrics"]


def test_the_backbone_alone_is_still_there(bundle: Path) -> None:
    architecture, weights = load_bundle(bundle)
    assert architecture == narrow() and weights is not None
    body = load_detector(bundle).detector.backbone.body.state_dict()
    assert weights.keys() == body.keys()
    assert all(torch.equal(value, weights[name]) for name, value in body.items())


def test_it_says_what_it_is(training: Path, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.kind == "detector" and manifest.architecture == narrow().digest
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == names - {"bundle.json"}
    for name, declared in manifest.files.items():
        content = (bundle / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (declared.bytes, declared.sha256)
    about, result = manifest.about, read_result(training)
    assert result is not None
    assert about["licence"] == "not stated" and about["search"] is None
    assert about["training"] == {name: result[name] for name in ("seed", "seconds", "images")}
    score = about["scores"]["trained"]
    assert (score["mean"], score["by_seed"]) == (result["metrics"]["AP"], {"5": result["metrics"]["AP"]})
    assert score["standard_deviation"] is None, "one seed has no spread"
    assert about["input"]["size"] == [64, 64] and about["input"]["mean"] == [0.485, 0.456, 0.406]
    assert json.loads((bundle / "bundle.json").read_text())["schema"] == 1
    assert "nas predict BUNDLE" in (bundle / "README.md").read_text()


def test_masks_and_a_second_stage_come_along(mask_bundle: Path) -> None:
    found = load_detector(mask_bundle).detector.detections(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert found[0]["masks"].shape[1:] == (28, 28)


def test_norms_of_heads_are_those_of_the_training(mask_bundle: Path) -> None:
    heads = load_detector(mask_bundle).detector.roi_heads
    norms = [one for one in heads.modules() if isinstance(one, nn.BatchNorm2d)]  # type: ignore[union-attr]
    assert norms and {(one.momentum, one.eps) for one in norms} == {(0.01, 1e-3)}


def test_a_bundle_is_no_training_to_evaluate(bundle: Path) -> None:
    with pytest.raises(RunError, match=r"training\.yaml is missing.*it is a bundle; name the training"):
        evaluate_training(bundle)


def test_a_training_that_is_not_finished_is_not_exported(training: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(training, tmp_path / "copy")
    (copy / "result.json").unlink()
    with pytest.raises(RunError, match=r"no finished training \(result.json is missing\)"):
        export(str(copy))


def test_weights_of_a_training_that_were_changed_are_refused(training: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(training, tmp_path / "copy")
    content = bytearray((copy / "detector.safetensors").read_bytes())
    content[-5] ^= 1
    (copy / "detector.safetensors").write_bytes(content)
    for use in (lambda: export(str(copy), tmp_path / "b"), lambda: evaluate_training(copy)):
        with pytest.raises(RunError, match=r"copy/detector.safetensors is not the file that was written"):
            use()
    assert not (tmp_path / "b").exists()


def test_a_training_of_an_earlier_version_gives_its_backbone(training: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(training, tmp_path / "copy", ignore=shutil.ignore_patterns("bundle"))
    result = json.loads((copy / "result.json").read_text())
    for name in ("category_ids", "image_size", "licence", "weights"):
        del result[name]
    (copy / "result.json").write_text(json.dumps(result))
    folder = export(str(copy))
    assert read_manifest(folder).kind == "backbone" and "train anew" in (folder / "README.md").read_text()
    with pytest.raises(RunError, match="holds no trained detector, only a backbone"):
        load_detector(folder)
    assert load_bundle(folder)[1] is not None


def test_every_byte_counts(bundle: Path, tmp_path: Path) -> None:
    for name in [*read_manifest(bundle).files, "bundle.json"]:
        copy = shutil.copytree(bundle, tmp_path / name.replace("/", "_"))
        whole = (copy / name).read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            for bit in (1, 32):
                changed = bytearray(whole)
                changed[place] ^= bit
                (copy / name).write_bytes(changed)
                for load in (load_detector, load_bundle):
                    with pytest.raises(RunError) as refused:
                        load(copy)
                    assert str(copy / name) in str(refused.value)
        (copy / name).write_bytes(whole)
        verify(copy, read_manifest(copy))


@pytest.mark.parametrize(
    ("parts", "licence"),
    [
        ({}, "not stated"),
        ({"licenses": [{"id": 1, "name": "MIT", "url": "https://x"}]}, "MIT (https://x)"),
        ({"licenses": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}], "used": 2}, "B"),
        ({"licenses": "free", "info": {"license": "CC0"}}, "CC0"),
        ({"licenses": [7, {"id": 1, "name": 3}]}, "not stated"),
    ],
)
def test_the_licence_of_the_images_is_what_the_file_states(parts: dict[str, object], licence: str) -> None:
    used = {"license": parts.pop("used")} if "used" in parts else {}
    data = {
        "images": [{"id": 1, "file_name": "a.png", **used}],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
        **parts,
    }
    problems = Problems(source=Path("train.json"), skip=False)
    assert read_annotations(json.dumps(data).encode(), problems).licence == licence
