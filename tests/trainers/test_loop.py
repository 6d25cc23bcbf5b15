"""The loop: what a step does depends on (seed, step) alone, and a stopped training loses nothing."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from search_spaces.errors import CandidateFailed, ConfigError, NonFiniteLoss, RunError
from search_spaces.recipe import FieldError
from trainers.batches import Batches, flip, jitter_scale
from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import DETECTORS, build_detector
from trainers.detectors.detector import Detector
from trainers.loop import CHECKPOINT, METRICS, StepRecord, Trainer, learning_rate, resolve_device, total_steps
from trainers.recipes import DetectorRecipe, TrainRecipe

Backbones = Callable[..., nn.Module]
Squares = Callable[..., DetectionSet]
CPU = torch.device("cpu")
RECIPE = TrainRecipe(steps=9, batch_size=3, warmup_steps=2, checkpoint_every=2, evaluate_every=1, lr=1e-2)


def make_trainer(
    backbone: nn.Module,
    data: DetectionSet,
    directory: Path | None = None,
    recipe: TrainRecipe = RECIPE,
    name: str = "fcos",
    **callbacks: Any,
) -> Trainer:
    small = {"box_head": 32, "roi_batch": 32} if name == "faster_rcnn" else {}
    settings = DetectorRecipe(name=name, fpn_channels=16, candidates=60, **small)  # type: ignore[arg-type]
    detector = build_detector(settings, backbone, 2, (64, 64), seed=0)
    return Trainer(
        detector=detector, data=data, recipe=recipe, seed=11, directory=directory, device=CPU, **callbacks
    )


@pytest.fixture
def trainer(tiny_backbone: Backbones, squares: Squares) -> Callable[..., Trainer]:
    def build(*arguments: Any, weights: int = 0, count: int = 5, **settings: Any) -> Trainer:
        return make_trainer(tiny_backbone(weights), squares(count, 64), *arguments, **settings)

    return build


def mean_weight(detector: Detector) -> dict[str, float]:
    """An evaluation that sees every change of the weights and costs nothing."""
    return {"mean": sum(float(one.detach().double().mean()) for one in detector.parameters())}


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.detector.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(
    "change", [{}, {"optimizer": "sgd", "scale_jitter": (0.6, 1.6)}], ids=["adamw", "sgd"]
)
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(
    trainer: Callable[..., Trainer], tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    recipe = replace(RECIPE, **change)
    whole = trainer(tmp_path / "whole", recipe, name, evaluate=mean_weight)
    expected = whole.run()
    assert expected.steps == expected.total_steps == 9 and len(expected.losses) == 9
    for stop in (0, 1, 4, 5, 8):
        trainer(tmp_path / "parts", recipe, name, weights=stop, evaluate=mean_weight).run(stop_at=stop)
    last = trainer(tmp_path / "parts", recipe, name, weights=9, evaluate=mean_weight)
    found = last.run()
    assert found.losses == expected.losses
    assert found.history == expected.history
    assert_equal(weights(whole), weights(last))
    assert (tmp_path / "parts" / METRICS).read_text() == (tmp_path / "whole" / METRICS).read_text()
    assert found.warnings == ()


def test_a_finished_training_does_nothing_more(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    steps: list[StepRecord] = []
    expected = trainer(tmp_path, evaluate=mean_weight, on_step=steps.append).run()
    assert [one.step for one in steps] == list(range(9))
    again = trainer(tmp_path, weights=3, evaluate=mean_weight, on_step=steps.append).run()
    assert len(steps) == 9
    assert (again.losses, again.history) == (expected.losses, expected.history)


def test_one_trainer_may_run_in_pieces_without_a_directory(trainer: Callable[..., Trainer]) -> None:
    whole, pieces = trainer(), trainer()
    expected = whole.run()
    pieces.run(stop_at=4)
    assert pieces.run().losses == expected.losses
    assert_equal(weights(whole), weights(pieces))


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[5]))
sys.path.insert(0, sys.argv[1])
from conftest import filled_rectangles, seeded_backbone
from test_loop import make_trainer, mean_weight

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def on_step(record):
    if record.step == int(sys.argv[4]):
        if sys.argv[3] == "step":
            die()
        os.fsync = die

data = filled_rectangles(5, 64)
make_trainer(seeded_backbone(), data, Path(sys.argv[2]), evaluate=mean_weight, on_step=on_step).run()
"""


@pytest.mark.parametrize(("moment", "step", "saved"), [("step", 4, 4), ("write", 5, 5)])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    trainer: Callable[..., Trainer], tmp_path: Path, moment: str, step: int, saved: int
) -> None:
    here = Path(__file__).parent
    # Sums depend on the number of threads, so the child takes this process's.
    arguments = [str(here), str(tmp_path / "killed"), moment, str(step), str(torch.get_num_threads())]
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False, cwd=here.parents[1])
    assert child.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)["step"] == saved, (
        "the last whole one"
    )
    whole = trainer(tmp_path / "whole", evaluate=mean_weight)
    killed = trainer(tmp_path / "killed", weights=8, evaluate=mean_weight)
    expected, found = whole.run(), killed.run()
    assert (found.losses, found.history) == (expected.losses, expected.history)
    assert_equal(weights(whole), weights(killed))
    assert (tmp_path / "killed" / METRICS).read_text() == (tmp_path / "whole" / METRICS).read_text()


def test_another_recipe_data_or_network_is_refused(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=1)
    for settings in ({"recipe": replace(RECIPE, lr=0.02)}, {"count": 6}, {"name": "faster_rcnn"}):
        with pytest.raises(RunError, match="another recipe, data set, seed or network"):
            trainer(tmp_path, **settings).run()


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("harm",)


def test_a_broken_or_hostile_checkpoint_is_refused_and_runs_no_code(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    trainer(run).run(stop_at=2)
    path = run / CHECKPOINT
    whole = path.read_bytes()
    torch.save({"identity": Harmful()}, tmp_path / "hostile.pt")
    hostile = (tmp_path / "hostile.pt").read_bytes()
    torch.save([1], tmp_path / "list.pt")
    for content in (
        b"",
        whole[:500],
        b"nonsense",
        hostile,
        pickle.dumps(Harmful(), protocol=2),
        (tmp_path / "list.pt").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(RunError, match="delete it to start anew"):
            trainer(run).run()
    assert not (tmp_path / "harm").exists()


def test_another_number_of_threads_is_said(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=2)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["threads"] += 1
    torch.save(state, tmp_path / CHECKPOINT)
    result = trainer(tmp_path).run(stop_at=3)
    assert len(result.warnings) == 1 and "threads" in result.warnings[0]


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_non_finite_loss_stops_before_the_optimiser(trainer: Callable[..., Trainer], kind: str) -> None:
    one = trainer()
    inner = one.detector.losses
    seen: list[dict[str, torch.Tensor]] = []

    def losses(*arguments: Any) -> dict[str, torch.Tensor]:
        terms = inner(*arguments)
        seen.append(weights(one))
        if len(seen) == 4:
            weight = next(one.detector.parameters())
            bad = weight.sum() * float("inf") if kind == "loss" else (weight.sum() * 0).sqrt()
            terms["bbox_regression"] = bad
        return terms

    one.detector.losses = losses  # type: ignore[assignment]
    with pytest.raises(NonFiniteLoss) as caught:
        one.run()
    assert isinstance(caught.value, CandidateFailed)
    text = str(caught.value)
    assert "step 3 of 9" in text and "bbox_regression" in text and "lr " in text and "train.lr" in text
    assert ("gradient norm" in text) == (kind == "gradient")
    assert_equal(seen[-1], weights(one))


def test_weights_off_the_path_do_not_move(trainer: Callable[..., Trainer]) -> None:
    for optimizer in ("sgd", "adamw"):
        one = trainer(recipe=replace(RECIPE, optimizer=optimizer, weight_decay=0.1))
        stages = one.detector.backbone.body.stages
        aside = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        main = stages[0]
        one.detector.backbone.body.aside = aside
        one._optimizer.add_param_group({"params": list(aside.parameters())})
        calls: list[int] = []

        def choose(
            step: int, stages: Any = stages, main: Any = main, aside: Any = aside, calls: Any = calls
        ) -> None:
            calls.append(step)
            stages[0] = aside if step % 2 else main

        one._before_step = choose
        start = aside[0].weight.clone()
        one.run(stop_at=1)
        assert torch.equal(start, aside[0].weight)
        one.run(stop_at=2)
        moved, still = aside[0].weight.clone(), main[0].weight.clone()
        assert not torch.equal(start, moved)
        one.run(stop_at=3)
        assert torch.equal(moved, aside[0].weight), "neither momentum nor decay touches it"
        assert not torch.equal(still, main[0].weight)
        assert calls == [0, 1, 2]


def test_frozen_bn_keeps_statistics_and_affine_weights(trainer: Callable[..., Trainer]) -> None:
    for frozen in (True, False):
        one = trainer(recipe=replace(RECIPE, frozen_bn=frozen))
        before = weights(one)
        one.run(stop_at=3)
        after = weights(one)
        norms = [name for name in before if name.startswith("backbone.body.stem.1.")]
        assert len(norms) == 5
        assert all(torch.equal(before[name], after[name]) == frozen for name in norms)
        assert not torch.equal(before["backbone.body.stem.0.weight"], after["backbone.body.stem.0.weight"])


def test_the_callers_generators_and_layout_are_left_alone(trainer: Callable[..., Trainer]) -> None:
    state = torch.random.get_rng_state()
    one = trainer(name="faster_rcnn")
    one.run(stop_at=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.is_contiguous() for parameter in one.detector.parameters())


def test_bf16_trains_in_finite_numbers(trainer: Callable[..., Trainer]) -> None:
    for name in DETECTORS:
        result = trainer(recipe=replace(RECIPE, amp="bf16"), name=name).run(stop_at=2)
        assert len(result.losses) == 2


def test_evaluations_come_after_epochs_at_three_quarters_and_at_the_end(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    result = trainer(tmp_path, evaluate=mean_weight).run()
    # 5 images, 3 a step: epochs end within steps 2, 4, 5, 7 and 9.
    assert [one.step for one in result.history] == [2, 4, 5, 6, 7, 9]
    assert result.history[-1].epoch == pytest.approx(5.4)
    few = trainer(recipe=replace(RECIPE, evaluate_every=0), evaluate=mean_weight).run()
    assert [one.step for one in few.history] == [6, 9]
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["steps"] for line in lines if line["kind"] == "evaluation"] == [2, 4, 5, 6, 7, 9]
    assert [line["steps"] for line in lines if line["kind"] == "step"] == [1, 9]


def test_an_epoch_shows_every_image_once(squares: Squares) -> None:
    data = squares(7, 32)
    recipe = replace(RECIPE, batch_size=4)
    drawn = [index for step in range(14) for index in Batches(data, recipe, 3).indices(step)]
    for epoch in range(8):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert drawn[:7] != drawn[7:14]
    backwards = Batches(data, recipe, 3)
    assert [backwards.indices(step) for step in (5, 1, 5)] == [drawn[20:24], drawn[4:8], drawn[20:24]]
    assert Batches(data, replace(recipe, batch_size=20), 3).indices(0)[:7] == drawn[:7]


def test_flipping_mirrors_pixels_and_boxes_together(squares: Squares) -> None:
    data = squares(4, 64)
    mirrored, targets = flip(data.images, list(data.targets), [True, False, True, False])
    assert torch.equal(mirrored[0], data.images[0].flip(-1)) and torch.equal(mirrored[1], data.images[1])
    assert torch.equal(targets[1]["boxes"], data.targets[1]["boxes"])
    x1, y1, x2, y2 = data.targets[0]["boxes"].unbind(1)
    assert torch.equal(targets[0]["boxes"], torch.stack((64 - x2, y1, 64 - x1, y2), dim=1))
    back, again = flip(mirrored, targets, [True, False, True, False])
    assert torch.equal(back, data.images)
    assert all(torch.equal(one["boxes"], two["boxes"]) for one, two in zip(again, data.targets, strict=True))


def test_scale_jitter_moves_boxes_with_their_pixels(squares: Squares) -> None:
    from random import Random

    from trainers.data.detection_set import Target

    for seed in range(20):
        image = torch.full((1, 3, 128, 128), 20, dtype=torch.uint8)
        image[:, :, 40:80, 30:90] = 220
        target = Target(boxes=torch.tensor([[30.0, 40.0, 90.0, 80.0]]), labels=torch.tensor([1]), image_id=1)
        jittered, (moved,) = jitter_scale(image, [target], (0.5, 1.8), Random(seed))
        assert jittered.shape == image.shape and jittered.dtype == torch.uint8
        bright = torch.nonzero(jittered[0, 0] > 120)
        if not len(moved["labels"]):
            continue
        top, left = bright.amin(0).tolist()
        bottom, right = (bright.amax(0) + 1).tolist()
        assert moved["boxes"][0].tolist() == pytest.approx([left, top, right, bottom], abs=1.5)
    gone = Target(boxes=torch.tensor([[0.0, 0.0, 4.0, 4.0]]), labels=torch.tensor([1]), image_id=1)
    kept = [len(jitter_scale(image, [gone], (2.0, 2.0), Random(seed))[1][0]["labels"]) for seed in range(20)]
    assert 0 in kept, "a box that was cut away is no target"
    empty = Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), image_id=1)
    assert jitter_scale(image, [empty], (0.5, 0.5), Random(0))[1][0]["boxes"].shape == (0, 4)


def test_learning_rates() -> None:
    cosine = TrainRecipe(steps=100, lr=1.0, warmup_steps=9)
    rates = [learning_rate(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[50] == pytest.approx(0.5) and rates[99] < 0.001
    assert max(rates) == rates[9]
    steps = TrainRecipe(steps=100, lr=1.0, warmup_steps=0, schedule="milestones", milestones=(0.5, 0.8))
    assert [learning_rate(steps, step, 100) for step in (0, 49, 50, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_lengths() -> None:
    assert total_steps(TrainRecipe(steps=7), 100) == 7
    assert total_steps(TrainRecipe(epochs=2, batch_size=16), 100) == 13
    assert total_steps(TrainRecipe(epochs=0.5, batch_size=16), 100) == 4
    assert total_steps(TrainRecipe(epochs=0.001, batch_size=16), 100) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 1.0, "steps": 1},
        {"epochs": 0.0},
        {"steps": 0},
        {"steps": 1, "batch_size": 0},
        {"steps": 1, "lr": 0.0},
        {"steps": 1, "clip_norm": -1.0},
        {"steps": 1, "milestones": (0.9, 0.5)},
        {"steps": 1, "milestones": (8.0, 11.0)},
        {"steps": 1, "scale_jitter": (2.0, 1.0)},
        {"steps": 1, "evaluate_every": -1},
    ],
)
def test_recipes_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"found .*; (allowed is|give exactly one) "):
        TrainRecipe(**settings)


def test_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="'gpu0'"):
        resolve_device("gpu0")
    with pytest.raises(ConfigError, match="not on this machine"):
        resolve_device("cuda:99")
