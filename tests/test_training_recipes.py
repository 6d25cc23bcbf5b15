"""The recipes of published trainings: what the papers say, and a dry run of every training recipe in examples."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.recipes.train_job import TrainJobRecipe
from nas.schedule import schedule_events
from nas.training import TrainingJob, train_to_completion
from search_spaces.crnas.zoo import ZOO
from search_spaces.errors import ConfigError
from search_spaces.spinenet.detector_cost import mask_rcnn_cost
from search_spaces.spinenet.zoo import ZOO as SPINENETS
from search_spaces.spinenet.zoo import with_settings
from trainers.detectors.cost import Regions, count_detector
from trainers.loop import learning_rate, total_steps

RECIPES = Path(__file__).parents[1] / "examples/recipes"
TRAININGS = sorted(RECIPES.glob("train_*.yaml")) + sorted(RECIPES.glob("protocol_*.yaml"))
COCO, VOC = 118_287, 16_551


def recipe(name: str, *overrides: str) -> TrainJobRecipe:
    path = RECIPES / f"{name}.yaml"
    return check(TrainJobRecipe, apply_overrides(read_yaml(path), overrides), source=str(path))


def dry(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments), "--dry-run"])


def dry_data(*arguments: object) -> dict[str, Any]:
    result = dry(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_crnas_1x_says_what_the_paper_says() -> None:
    found = recipe("train_crnas_1x")
    train, detector = found.train, found.detector
    assert (train.epochs, train.batch_size, train.optimizer) == (13, 16, "sgd")
    assert (train.momentum, train.weight_decay, train.frozen_bn) == (0.9, 1e-4, False)
    assert found.data.image_size == (800, 1333)
    assert (detector.name, detector.pyramid, detector.fpn_channels) == ("faster_rcnn", "fpn", 256)
    assert (detector.box_head, detector.levels, detector.extra_levels) == (1024, ("c2", "c3", "c4", "c5"), 1)
    assert found.init == "bundle", "ImageNet's weights"
    # A rate of 0.00125 for one image, divided by 10 after epochs 8 and 11.
    epoch = COCO / 16
    steps = total_steps(train, COCO)
    assert steps == 96_109 == -(-13 * COCO // 16)
    for end, times in ((8, 1.0), (11, 0.1), (13, 0.01)):
        last = int(end * epoch) - 1
        assert learning_rate(train, last, COCO) == pytest.approx(16 * 0.00125 * times), end
    rates = [learning_rate(train, step, COCO) for step in range(steps)]
    jumps = [step for step in range(500, steps) if rates[step] < 0.5 * rates[step - 1]]
    # The whole run is rounded up to a step, and so is the way back from its end.
    assert jumps == [pytest.approx(8 * epoch, abs=2), pytest.approx(11 * epoch, abs=2)]
    assert rates[0] == pytest.approx(0.02 / 3, rel=1e-3) and rates[:501] == sorted(rates[:501])


@pytest.mark.parametrize(("batch", "lr"), [(16, 0.02), (8, 0.01), (64, 0.08)])
def test_its_rate_is_that_of_an_image(batch: int, lr: float) -> None:
    train = recipe("train_crnas_1x", f"train.batch_size={batch}").train
    assert learning_rate(train, 500, COCO) == pytest.approx(lr)


def test_its_variants_differ_in_what_their_headers_say() -> None:
    plain, masked, voc = recipe("train_crnas_1x"), recipe("train_crnas_1x_mask"), recipe("train_crnas_voc")
    assert masked.train == plain.train and masked.data.masks and masked.detector.name == "mask_rcnn"
    assert masked.detector.mask_convs == 4
    assert voc.detector == plain.detector and voc.train.lr == plain.train.lr
    assert voc.train.epochs == 18
    rates = [learning_rate(voc.train, int(end * VOC / 16) - 1, VOC) for end in (15, 17, 18)]
    assert rates == pytest.approx([0.02, 0.002, 0.0002])


def test_fine_tuning_has_the_defaults_of_rf_detr() -> None:
    train = recipe("train_finetune").train
    assert (train.optimizer, train.lr, train.weight_decay, train.epochs) == ("adamw", 1e-4, 1e-4, 100)
    assert (train.batch_size, train.accumulate, train.micro_batch, train.ema) == (16, 4, 4, 0.993)
    assert len(train.sizes) == 11 and min(train.sizes) == 0.5 and max(train.sizes) == 1.5
    assert {learning_rate(train, step, 2000) for step in (0, 1, 6000, 12499)} == {1e-4}
    assert [event.name for event in schedule_events(train, 2000)] == ["start", "last step"]


@pytest.mark.parametrize(
    "name",
    [
        "train_crnas_1x",
        "train_crnas_1x_mask",
        "train_crnas_voc",
        "protocol_a",
        "protocol_b",
        "protocol_c",
        "protocol_b_mask",
    ],
)
def test_a_published_result_stands_in_the_header(name: str) -> None:
    lines = (RECIPES / f"{name}.yaml").read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert "Published" in header and "Not run by us" in header and "20" in header


def test_spinenets_mask_rcnn_is_what_is_counted() -> None:
    """The published parameters and multiply-adds are those of this recipe's detector."""
    found = recipe("protocol_b_mask")
    assert total_steps(found.train, 256 * 463) == 162_050
    whole = count_detector(
        SPINENETS["spinenet49"], found.detector, 90, (640, 640), Regions(boxes=1000, masks=100)
    )
    assert whole.total == mask_rcnn_cost(SPINENETS["spinenet49"], (640, 640)).total
    small = recipe("protocol_b_mask", "detector.fpn_channels=128", "detector.box_head=512").detector
    whole = count_detector(SPINENETS["spinenet49s"], small, 90, (640, 640), Regions(boxes=1000, masks=100))
    assert whole.total == mask_rcnn_cost(SPINENETS["spinenet49s"], (640, 640), hidden=512).total
    sets = re.findall(
        r"--set (\S+)", (RECIPES / "protocol_b_mask.yaml").read_text().partition("SpineNet-190")[2]
    )
    large = recipe("protocol_b_mask", *sets).detector
    whole = count_detector(SPINENETS["spinenet190"], large, 90, (1536, 1536), Regions(boxes=1000, masks=100))
    assert whole.total == mask_rcnn_cost(SPINENETS["spinenet190"], (1536, 1536), width=384, convs=7).total, (
        "as the header says"
    )


def test_the_1x_detector_is_what_the_paper_counts() -> None:
    for name, network, macs in (
        ("train_crnas_1x", "resnet50", 192.5),
        ("train_crnas_1x", "resnet101", 257.3),
        ("train_crnas_1x_mask", "resnet50", 261.2),
    ):
        counted = Regions(boxes=recipe(name).detector.candidates, masks=128)
        whole = count_detector(ZOO[network], recipe(name).detector, 80, (800, 1088), counted)
        assert whole.total.macs / 1e9 == pytest.approx(macs, rel=0.015)


def network_of(path: Path, folder: Path) -> str:
    """One that the recipe's detector fits: the CPU versions of the protocols take a narrow SpineNet."""
    if not path.stem.endswith("_cpu"):
        return "spinenet49" if path.stem.startswith("protocol") else "resnet50"
    narrow = with_settings(SPINENETS["r0_sp53"], {"filter_size_scale": 0.125, "endpoint": 32})
    file = folder / "architecture.json"
    file.write_text(json.dumps(narrow.to_dict()))
    return str(file)


def test_there_are_trainings_to_run() -> None:
    names = {path.stem for path in TRAININGS}
    assert {
        "train_crnas_1x",
        "train_crnas_1x_mask",
        "train_crnas_voc",
        "train_finetune",
        "protocol_c_cpu",
        "train_fcos",
    } <= names


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_training_recipe_is_run_dry(path: Path, tmp_path: Path) -> None:
    network = network_of(path, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = dry_data(network, path, "--images", 1000, "--measure", 0, "--gpus", 8, "--per-gpu", 2)
    checked = recipe(path.stem)
    assert found["steps"] == total_steps(checked.train, 1000)
    assert found["images"] == 1000 and found["hours"] is None
    shared = found["shared_batch"]
    assert shared["gpus"] == 8 and 1 <= shared["per_pass"] <= 2
    assert 8 * shared["per_pass"] * shared["accumulate"] == checked.train.batch_size
    rates = [event["lr"] for event in found["schedule"]]
    assert rates == pytest.approx(
        [learning_rate(checked.train, event["step"], 1000) for event in found["schedule"]], rel=1e-3
    )
    assert found["params"] > 10**5 and found["macs"] > 10**6
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_fine_tuning_on_eight_gpus_takes_fewer_passes_by_itself_and_says_so() -> None:
    path = RECIPES / "train_finetune.yaml"
    given = ["resnet18", path, "--images", 100, "--measure", 0, "--gpus", 8]
    shared = dry_data(*given)["shared_batch"]
    assert (shared["accumulate"], shared["per_pass"], shared["lowered_from"]) == (2, 1, 4)
    said = " ".join(dry(*given).stdout.split())
    assert "train.accumulate: 2 and not the recipe's 4, for each of 8 GPUs takes 2 images a step" in said
    assert "--set ranks=8 --set train.accumulate=2" in said
    with pytest.raises(ConfigError, match=r"ranks: found 8; .*; or --set train\.accumulate=2$"):
        recipe("train_finetune", "ranks=8")
    assert recipe("train_finetune", "ranks=8", "train.accumulate=2").ranks == 8, (
        "what the sentence says works"
    )
    with pytest.raises(ConfigError, match=r"4, the images of all ranks together$"):
        recipe("train_finetune", "ranks=3")


SMALL = [
    "data={source: digits, image_size: 128, masks: false, digits: {train_images: 6, val_images: 2, classes: [1, 7]}}",
    "init=scratch",
    "train.epochs=null",
    "train.steps=2",
    "train.schedule=cosine",
    "train.batch_size=4",
    "detector.fpn_channels=32",
    "threads=1",
]
TWO_STAGE = ["detector.box_head=32", "detector.candidates=40", "detector.roi_batch=16"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("train_crnas_1x", TWO_STAGE),
        ("train_crnas_1x_mask", [*TWO_STAGE, "data.masks=true"]),
        ("train_crnas_voc", TWO_STAGE),
        ("train_finetune", ["train.accumulate=2"]),
        ("protocol_b_mask", [*TWO_STAGE, "data.masks=true", "train.batch_size=2", "train.steps=1"]),
    ],
)
def test_a_recipe_trains_at_a_small_size(name: str, overrides: list[str], tmp_path: Path) -> None:
    narrow = with_settings(ZOO["resnet18"], {"widths": (8, 8, 16, 16), "stem": "small"})
    if name.startswith("protocol"):
        narrow = with_settings(SPINENETS["r0_sp53"], {"filter_size_scale": 0.125, "endpoint": 32})
    small = recipe(name, *SMALL, *overrides)
    found = train_to_completion(TrainingJob(architecture=narrow, recipe=small, directory=tmp_path))
    assert found["train"]["batch_size"] == small.train.batch_size
    assert ("mask_AP" in found["metrics"]) == name.endswith("mask")
