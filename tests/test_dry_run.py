"""A dry run: the schedule that a training will have, how GPUs share its batch, and how long it takes, without any."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nas.cli import app
from nas.config import apply_overrides, check, read_yaml
from nas.dry_run import DryRun, dry_run, seconds_a_pass
from nas.dry_run_lines import dry_run_lines
from nas.recipes.train_job import TrainJobRecipe
from nas.schedule import schedule_events, share_batch
from search_spaces.errors import ConfigError, DataError
from trainers.data.catalog import open_split
from trainers.data.made_up import OBJECTS, made_up_set, made_up_size
from trainers.loop import learning_rate, total_steps
from trainers.recipes import DataRecipe, TrainRecipe

TINY = Path(__file__).parent / "recipes/train.yaml"


def tiny(*overrides: str) -> TrainJobRecipe:
    return check(TrainJobRecipe, apply_overrides(read_yaml(TINY), overrides), source=str(TINY))


def nas(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


SCHEDULES = [
    TrainRecipe(epochs=12, batch_size=16, schedule="milestones", milestones=(0.67, 0.89), warmup_steps=50),
    TrainRecipe(epochs=12, batch_size=16, schedule="milestones", milestones=(0.5, 0.51), gamma=0.5),
    TrainRecipe(epochs=12, batch_size=7, schedule="final_epochs", final_epochs=(4, 1.5), warmup_steps=3),
    TrainRecipe(steps=997, batch_size=3, schedule="milestones", milestones=(1 / 3, 0.7), warmup_steps=0),
    TrainRecipe(epochs=0.7, batch_size=16, schedule="final_epochs", final_epochs=(0.3,), lr_batch=4),
]


@pytest.mark.parametrize("train", SCHEDULES)
@pytest.mark.parametrize("images", [1000, 4096, 333])
def test_events_are_the_steps_at_which_the_rate_jumps(train: TrainRecipe, images: int) -> None:
    steps = total_steps(train, images)
    rates = [learning_rate(train, step, images) for step in range(steps)]
    events = schedule_events(train, images)
    assert all(event.lr == rates[event.step] for event in events)
    # Behind the warm-up every step at which the rate is another than before, and no other step.
    settled = range(train.warmup_steps + 1, steps)
    jumps = [step for step in settled if rates[step] != rates[step - 1]]
    found = [event.step for event in events if event.name.startswith("times") and event.step in settled]
    assert found == jumps
    assert events[0].step == 0 and events[-1].step == steps - 1
    assert [event.step for event in events] == sorted({event.step for event in events})
    for event in events:
        assert event.images == event.step * train.batch_size
        assert event.epoch == pytest.approx(event.images / images)


def test_a_cosine_has_an_event_each_quarter() -> None:
    train = TrainRecipe(steps=1000, lr=0.1, warmup_steps=100)
    events = schedule_events(train, 64)
    assert [(event.name, event.step) for event in events] == [
        ("start", 0),
        ("end of warm-up", 100),
        ("25% of the steps", 250),
        ("50% of the steps", 500),
        ("75% of the steps", 750),
        ("last step", 999),
    ]
    assert events[3].lr == pytest.approx(0.05)


def test_the_shortest_training_has_one_event() -> None:
    (event,) = schedule_events(TrainRecipe(steps=1, warmup_steps=20), 8)
    assert event.step == 0


@pytest.mark.parametrize(
    ("batch", "gpus", "per_gpu", "accumulate", "per_pass", "together"),
    [
        (16, 8, None, 1, 2, 16),
        (16, 8, 1, 2, 1, 8),
        (16, 1, 4, 4, 4, 4),
        (256, 8, 8, 4, 8, 64),
        # 32 a GPU cannot be cut into passes of 5 of equal size; the next smaller is 4.
        (256, 8, 5, 8, 4, 32),
        (256, 8, 100, 1, 32, 256),
        (14, 2, 6, 7, 1, 2),
    ],
)
def test_gpus_come_to_the_published_batch(
    batch: int, gpus: int, per_gpu: int | None, accumulate: int, per_pass: int, together: int
) -> None:
    found = share_batch(TrainRecipe(steps=1, batch_size=batch, lr=0.02), gpus=gpus, per_gpu=per_gpu)
    assert (found.accumulate, found.per_pass, found.together) == (accumulate, per_pass, together)
    assert found.gpus * found.per_pass * found.accumulate == batch
    assert found.per_gpu == batch // gpus
    assert found.lr_per_image == pytest.approx(0.02 / batch)


@pytest.mark.parametrize(
    ("batch", "gpus", "asked", "accumulate", "per_pass"),
    # The largest divisor of a GPU's images that is not above the recipe's number.
    [
        (16, 8, 4, 2, 1),
        (16, 16, 4, 1, 1),
        (24, 2, 8, 6, 2),
        (16, 2, 4, 4, 2),
        (16, 1, 4, 4, 4),
        (42, 3, 6, 2, 7),
    ],
)
def test_fewer_micro_batches_where_a_gpus_images_are_too_few(
    batch: int, gpus: int, asked: int, accumulate: int, per_pass: int
) -> None:
    train = TrainRecipe(steps=1, batch_size=batch, accumulate=asked)
    found = share_batch(train, gpus=gpus)
    assert (found.accumulate, found.per_pass) == (accumulate, per_pass)
    assert found.lowered_from == (None if accumulate == asked else asked)
    assert share_batch(train, gpus=gpus, per_gpu=batch).lowered_from is None, "a person said what fits"


def test_the_rate_of_an_image_is_that_of_the_batch_it_is_meant_for() -> None:
    for batch in (8, 16, 64):
        train = TrainRecipe(steps=1, batch_size=batch, lr=0.02, lr_batch=16)
        assert share_batch(train, gpus=8).lr_per_image == pytest.approx(0.00125)


@pytest.mark.parametrize(
    ("gpus", "per_gpu", "accumulate", "words"),
    [
        (3, None, 1, "--gpus: found 3; allowed are divisors of train.batch_size, 16"),
        (0, None, 1, "--gpus: found 0;"),
        (2, 0, 1, "--per-gpu: found 0; allowed is 1 or more"),
        (8, 0, 4, "--per-gpu: found 0; allowed is 1 or more"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(
    gpus: int, per_gpu: int | None, accumulate: int, words: str
) -> None:
    train = TrainRecipe(steps=1, batch_size=16, accumulate=accumulate)
    with pytest.raises(ConfigError) as refused:
        share_batch(train, gpus=gpus, per_gpu=per_gpu)
    assert str(refused.value).startswith(words)


def test_images_are_made_up_in_the_form_of_the_recipe() -> None:
    recipe = DataRecipe(root=None, image_size=(96, 150), masks=True)
    data = made_up_set(recipe, images=3, classes=5)
    assert data.image_size == (96, 160) and len(data) == 3 and data.num_classes == 5
    assert data.num_objects == 3 * OBJECTS
    target = data.target(1)
    assert target["masks"].shape == (OBJECTS, 96, 160)
    boxes = target["boxes"]
    sides = boxes[:, 2:] - boxes[:, :2]
    assert float(sides.min()) >= 3 - 1e-4 and float(sides.max()) <= 48 + 1e-4
    assert float(boxes[:, 2].max()) <= 150 and float(boxes[:, 3].max()) <= 96
    assert int(target["labels"].max()) < 5
    again = made_up_set(recipe, images=3, classes=5)
    assert torch.equal(again.images, data.images) and again.digest == data.digest
    assert made_up_size(DataRecipe(image_size=320)) == (320, 320)
    assert made_up_size(DataRecipe(image_size=None)) == (480, 640)
    assert made_up_size(DataRecipe(source="digits")) == (128, 128)


@pytest.fixture(scope="module")
def measured() -> DryRun:
    return dry_run("resnet18", tiny(), measure=0.5)


def test_a_time_is_measured_on_the_recipes_images(measured: DryRun) -> None:
    pace = measured.pace
    assert pace is not None and pace.real and pace.seconds_an_image > 0
    assert pace.images in (2, 4) and pace.evaluation is not None and pace.evaluation > 0
    # 4 epochs of 8 images.
    assert measured.learned_from == 32 and measured.steps == 8 and not measured.given
    assert measured.seconds == pytest.approx(32 * pace.seconds_an_image + pace.evaluation)
    assert measured.classes == 2 and measured.size == (64, 64)


def test_a_pass_costs_what_the_line_through_the_last_two_sizes_says() -> None:
    # 1 s for whatever there is and 0.5 s an image.
    line = [(2, 2.0), (4, 3.0), (8, 5.0)]
    assert seconds_a_pass(line[:1], 2) == 2.0
    assert seconds_a_pass(line[:1], 16) == 16.0, "nothing is known of what does not grow"
    assert seconds_a_pass(line, 8) == 5.0
    assert seconds_a_pass(line[:2], 16) == pytest.approx(9.0)
    assert seconds_a_pass(line, 16) == pytest.approx(9.0)
    # Noise: not below half of the mean, not above it.
    assert seconds_a_pass([(2, 3.0), (4, 2.0)], 8) == pytest.approx(2.0 + 4 * 0.25)
    assert seconds_a_pass([(2, 0.1), (4, 2.0)], 8) == pytest.approx(4.0)


def test_gpus_divide_the_time_and_their_speed_too(measured: DryRun) -> None:
    there = dry_run("resnet18", tiny(), images=32, gpus=2, speed=5, measure=0.1)
    assert there.seconds is not None and there.seconds_there == pytest.approx(there.seconds / 10)
    assert there.pace is not None and there.pace.evaluation is None and not there.pace.real
    assert any("evaluations are not in the time" in note for note in there.notes)
    assert measured.seconds_there is None
    assert dry_run("resnet18", tiny(), images=32, measure=0).seconds is None


def test_it_is_built_as_it_will_be_trained(measured: DryRun) -> None:
    from nas.training import detector_for
    from trainers.data.catalog import open_split

    recipe = tiny()
    detector = detector_for(measured.network, recipe, open_split(recipe.data, "train"))
    assert measured.params == sum(one.numel() for one in detector.parameters())


def test_a_detector_of_ones_own_is_not_counted_but_built(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from trainers.detectors.fcos import FCOS\n\n\nclass Mine(FCOS):\n    pass\n")
    own = tiny("detector.name=null", f"detector.target={file}:Mine")
    found = dry_run("resnet18", own, images=8, measure=0)
    assert found.macs is None and found.params > 10**7
    assert "Mine of 2 categories" in dict(dry_run_lines(found)[0])["detector"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["detector.levels=[p3]"], "detector.levels: the backbone has no level ['p3']"),
        (["train.drop_path=0.1"], "train.drop_path: found 0.1, but ResNet has no stochastic depth"),
        (["activation=swish"], "activation: found 'swish'"),
        (["detector.pyramid=none"], "detector.fpn_channels: found 8, but without an FPN"),
        (["train.sizes=[0.1, 1.0]", "train.batch_size=1"], "train.sizes: one image of 32x32 px at a time"),
    ],
)
def test_what_a_training_refuses_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        dry_run("resnet18", tiny(*overrides), images=8, measure=0)
    assert str(refused.value).startswith(words)


def test_without_images_and_without_a_number_of_them_both_ways_out_are_named() -> None:
    recipe = replace(tiny(), data=DataRecipe(source="coco", root=None))
    with pytest.raises(DataError, match=r"(?s)data\.root: is not set.*or say with --images N"):
        dry_run("resnet18", recipe, measure=0)


def test_people_read_what_to_set() -> None:
    recipe = tiny("train.batch_size=16", "train.ema=0.99", "train.sizes=[0.5,1.0]", "train.frozen_bn=true")
    facts, columns, rows, foot = dry_run_lines(
        dry_run("resnet18", recipe, images=100, gpus=2, per_gpu=2, measure=0)
    )
    said = dict(facts)
    assert said["GPUs"] == (
        "2 GPUs, 8 images a step on each, 4 passes of 2 each: --set ranks=2 --set train.accumulate=4"
    )
    assert said["normalisation"] == "over 4 images of all GPUs"
    assert said["weights"] == "their moving average, decay 0.99"
    assert said["sizes"] == "each step one of 0.5, 1"
    assert said["time"] == "not measured"
    assert columns[-1] == "learning rate" and rows[0][0] == "start" and len(rows) >= 5
    assert any("frozen" in line for line in foot)
    assert any("sees 4 images at a time and not the 16 of a step" in line for line in foot)


def test_memory_is_that_of_all_processes_or_of_one_file(tmp_path: Path) -> None:
    coco = {"source": "coco", "root": None, "image_size": [800, 1333]}
    recipe = replace(tiny("train.batch_size=16"), data=check(DataRecipe, coco, source="here"))
    found = dry_run("resnet18", recipe, images=118287, gpus=8, measure=0)
    assert found.image_bytes == 118287 * 3 * 800 * 1344 and found.to_dict()["image_copies"] == 8
    assert dict(dry_run_lines(found)[0])["memory"] == (
        "images: 355.3 GiB without val in each process, 2,842.7 GiB in 8 of one machine; "
        "--set data.cache=DIR keeps one file for all"
    )
    shared = replace(recipe, data=replace(recipe.data, cache=str(tmp_path)))
    found = dry_run("resnet18", shared, images=118287, gpus=8, measure=0)
    assert found.to_dict()["image_copies"] == 1
    assert "a file of 355.3 GiB" in dict(dry_run_lines(found)[0])["memory"]


def test_memory_of_real_images_is_that_of_both_splits() -> None:
    found = dry_run("resnet18", tiny(), measure=0)
    train, val = (open_split(tiny().data, split) for split in ("train", "val"))
    assert found.image_bytes == train.images.nbytes + val.images.nbytes
    assert dict(dry_run_lines(found)[0])["memory"].endswith(" MiB")


def test_what_it_says_to_set_can_be_set() -> None:
    found = dry_run("resnet18", tiny("train.batch_size=16"), images=100, gpus=2, per_gpu=2, measure=0)
    settings = dict(dry_run_lines(found)[0])["GPUs"].partition(": ")[2].split("--set ")[1:]
    recipe = tiny("train.batch_size=16", *(one.strip() for one in settings))
    assert recipe.ranks == 2 and recipe.train.micro_batch // recipe.ranks == 2


def test_the_command_prints_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = TINY.resolve()
    monkeypatch.chdir(tmp_path)
    result = nas("train", "resnet18", recipe, "--dry-run", "--measure", "0.1", "--gpus", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["hours"] > 0 and found["hours_there"] == pytest.approx(found["hours"] / 2)
    assert found["schedule"][0]["name"] == "start" and found["images"] == 8
    plain = nas("train", "resnet18", recipe, "--dry-run", "--measure", 0)
    assert plain.exit_code == 0 and "last step" in plain.stdout and "learning rate" in plain.stdout
    assert not list(tmp_path.iterdir())


def test_stopped_it_has_nothing_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.dry_run.dry_run", stop)
    result = nas("train", "resnet18", TINY, "--dry-run")
    assert result.exit_code == 130 and result.stderr.strip() == "stopped."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--run: is missing"),
        (["--run", "x", "--gpus", "2"], "--gpus: goes with --dry-run"),
        (["--run", "x", "--measure", "2"], "--measure: goes with --dry-run"),
        (["--dry-run", "--images", "0"], "--images: found 0; allowed is 1 or more"),
        (["--dry-run", "--classes", "3"], "--classes: found 3; it goes with --images"),
        (["--dry-run", "--gpus", "3"], "--gpus: found 3; allowed are divisors"),
        (["--dry-run", "--images", "8", "--speed", "-1"], "--speed: found -1; allowed is above 0"),
        (
            ["--dry-run", "--images", "8", "--gpus", "2", "--set", "train.compile=true"],
            "ranks: found 2; allowed with train.compile is 1",
        ),
    ],
)
def test_mistakes_end_in_a_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = nas("train", "resnet18", TINY, *arguments)
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {words}"), result.output
