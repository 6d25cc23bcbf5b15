"""``nas pretrain``: stopped and resumed it equals itself; its weights begin other trainings and leave as a bundle."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import nas.training
from nas.cli import app
from nas.config import check
from nas.export.bundle import load_bundle
from nas.methods.exporting import export
from nas.pretraining import PretrainingJob, evaluate_pretraining
from nas.progress import Silent
from nas.recipes.pretrain_job import PretrainRecipe
from nas.recipes.train_job import TrainJobRecipe
from nas.targets import read_recipe
from nas.training import TrainingJob, read_result, train_bundle, train_to_completion
from nas.training_files import backbone_weights
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, DataError, RunError

RECIPES = Path(__file__).parent / "recipes"
COLOURS = {"blue": 2, "green": 1, "red": 0}


def small(*blocks: int) -> Architecture:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    return replace(named, settings=settings, genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}))


NETWORK = small(1, 1, 1, 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, channel in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 60, (36, 40, 3), dtype=np.uint8)
                pixels[:, :, channel] += 150
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def recipe(images: Path, *overrides: str) -> PretrainRecipe:
    data = read_recipe(RECIPES / "pretrain.yaml", [f"data.root={images}", *overrides])
    return check(PretrainRecipe, data, source="r")


def job(images: Path, directory: Path, *overrides: str) -> PretrainingJob:
    return PretrainingJob(architecture=NETWORK, recipe=recipe(images, *overrides), directory=directory)


@pytest.fixture(scope="module")
def done(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pretraining")
    train_to_completion(job(images, directory))
    return directory


def result_of(directory: Path) -> dict[str, Any]:
    found = read_result(directory)
    assert found is not None
    return found


class Stop(Silent):
    """Stops a training at a step, as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def advance(self, done: int, note: str = "") -> None:
        if done == self.at:
            raise KeyboardInterrupt


def test_stopped_anywhere_and_resumed_equals_uninterrupted(done: Path, images: Path, tmp_path: Path) -> None:
    for at in (2, 7, 12):
        with pytest.raises(KeyboardInterrupt):
            train_to_completion(job(images, tmp_path), Stop(at))
    train_to_completion(job(images, tmp_path))
    found, wanted = ({**result_of(folder), "seconds": 0} for folder in (tmp_path, done))
    assert found == wanted
    states = [load_file(folder / "classifier.safetensors") for folder in (tmp_path, done)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


def test_the_result_says_what_was_learned(done: Path) -> None:
    found = result_of(done)
    assert found["classes"] == sorted(COLOURS) and found["images"] == 48
    assert [point["epoch"] for point in found["curve"]] == [1, 2, 3, 4]
    assert found["curve"][-1]["top1"] == found["metrics"]["top1"]
    assert set(found["metrics"]) == {"top1", "top5", "loss"} and found["metrics"]["top5"] == 1.0
    assert Architecture.from_dict(found["architecture"]) == NETWORK
    assert len(set(found["data"].values())) == 2


def test_evaluating_again_gives_the_same_digits(done: Path, images: Path, tmp_path: Path) -> None:
    assert evaluate_pretraining(done, []) == result_of(done)["metrics"]
    other = tmp_path / "val"
    other.mkdir()
    for name in ("blue", "green", "yellow"):
        (other / name).symlink_to(images / "val" / ("red" if name == "yellow" else name))
    with pytest.raises(RunError, match=r"learned the classes blue, green, red; .* has blue, green, yellow"):
        evaluate_pretraining(done, [f"data.root={tmp_path}"])


def test_two_ranks_learn_what_one_learns(images: Path, tmp_path: Path) -> None:
    short = ["train.epochs=null", "train.steps=4", "train.evaluate_every=0"]
    for ranks in (1, 2):
        train_to_completion(job(images, tmp_path / str(ranks), *short, f"ranks={ranks}"))
    found, wanted = result_of(tmp_path / "2"), result_of(tmp_path / "1")
    assert found["environment"]["ranks"] == 2
    states = [load_file(tmp_path / ranks / "classifier.safetensors") for ranks in "21"]
    for name, one in states[0].items():
        torch.testing.assert_close(one, states[1][name], rtol=1e-3, atol=1e-4)
    assert found["metrics"]["loss"] == pytest.approx(wanted["metrics"]["loss"], rel=1e-3)


def test_its_directory_is_of_one_training(done: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.pretraining.Trainer", None)
    monkeypatch.setattr(nas.training, "Trainer", None)
    assert train_to_completion(job(images, done)) == result_of(done)
    detection = check(TrainJobRecipe, read_recipe(RECIPES / "train.yaml"), source="r")
    for other in (
        job(images, done, "label_smoothing=0.0"),
        TrainingJob(architecture=NETWORK, recipe=detection, directory=done),
    ):
        with pytest.raises(RunError, match="another backbone or recipe; take a new directory"):
            train_to_completion(other)


def test_a_detector_begins_with_its_weights(done: Path, tmp_path: Path) -> None:
    learned = backbone_weights(load_file(done / "classifier.safetensors"))
    one_step = ["train.epochs=null", "train.steps=1", "train.evaluate_every=0"]
    for name, network, overrides, fresh in (
        ("itself", str(done), ["init=bundle"], []),
        ("other", None, [f"init={done}", "remap=true"], ["layer2.1"]),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(small(1, 2, 1, 1).to_dict()))
        detection = check(
            TrainJobRecipe, read_recipe(RECIPES / "train.yaml", [*one_step, *overrides]), source="r"
        )
        train_bundle(network or str(path), detection, tmp_path / name, Silent())
        begun = result_of(tmp_path / name)["initial_weights"]
        # The only block of stage 2 has a projection, which no later one has.
        assert sorted({one.rpartition(".")[0].rpartition(".")[0] for one in begun["fresh"]}) == fresh
        assert begun["tensors"] >= len(learned)


def test_it_leaves_as_a_bundle(done: Path, tmp_path: Path) -> None:
    bundle = export(str(done), tmp_path / "bundle")
    network, weights = load_bundle(bundle)
    learned = backbone_weights(load_file(done / "classifier.safetensors"))
    assert network == NETWORK and weights is not None and weights.keys() == learned.keys()
    assert all(torch.equal(one, learned[name]) for name, one in weights.items())
    card = (bundle / "README.md").read_text()
    assert "top1 on val, seed 5" in card and "pre-trained on 3 classes" in card


def test_the_command_exports_it_in_other_formats(done: Path, tmp_path: Path) -> None:
    words = ["export", str(done), "--to", str(tmp_path / "bundle"), "--format", "source"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "backbone.py" in told.stdout and (tmp_path / "bundle/export.json").exists()


def test_the_command_line(done: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(NETWORK.to_dict()))
    words = ["pretrain", str(path), str(RECIPES / "pretrain.yaml"), "--run", str(tmp_path / "run")]
    told = CliRunner().invoke(app, [*words, "--set", f"data.root={images}", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == result_of(done)["metrics"]
    shown = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run")])
    assert shown.exit_code == 0 and "top1" in shown.stdout and "COCO" not in shown.stdout
    refused = CliRunner().invoke(app, [*words, "--set", "data.rooot=x"])
    assert refused.exit_code == 2 and "did you mean 'data.root'" in refused.stderr


def test_what_cannot_be_used_is_refused_and_claims_no_directory(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        train_to_completion(job(tmp_path / "nothing", tmp_path / "run"))
    with pytest.raises(ConfigError, match="is for detectors"):
        train_to_completion(job(images, tmp_path / "run", "train.scale_jitter=[0.8, 1.2]"))
    assert not (tmp_path / "run").exists()
    for wrong in ("data.image_size=40", "data.crop_area=[0.5, 0.2]", "label_smoothing=1.0", "ranks=3"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0].replace(".", r"\.")):
            recipe(images, wrong)


def test_real_photos_are_read_and_learned_from(shared_data: Path, tmp_path: Path) -> None:
    steps = ["train.epochs=null", "train.steps=2", "train.evaluate_every=0", "data.image_size=64"]
    found = train_to_completion(job(shared_data / "sign-digits/images", tmp_path, *steps))
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert 0.0 <= found["metrics"]["top1"] <= found["metrics"]["top5"] <= 1.0
