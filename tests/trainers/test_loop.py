"""The loop: what a step does depends on (seed, step) alone, and a stopped training loses nothing."""

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from two_ranks import Dropping

from search_spaces.errors import CandidateFailed, ConfigError, NonFiniteLoss, RunError
from search_spaces.recipe import FieldError
from trainers.batches import Batches, flip, jitter_scale
from trainers.data.detection_set import DetectionSet, Target
from trainers.detectors.catalog import DETECTORS, build_detector
from trainers.detectors.detector import Detector
from trainers.loop import (
    CHECKPOINT,
    METRICS,
    StepRecord,
    Trainer,
    learning_rate,
    require_trainable,
    resolve_device,
    total_steps,
)
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
    small = {"box_head": 32, "roi_batch": 32} if name.endswith("_rcnn") else {}
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


PROTOCOL = {
    "steps": None,
    "epochs": 5.4,
    "optimizer": "sgd",
    "lr_batch": 6,
    "warmup_lr": 1e-4,
    "schedule": "final_epochs",
    "final_epochs": (2.0, 1.0),
    "scale_jitter": (0.1, 1.9),
}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("change", [{}, PROTOCOL], ids=["adamw", "sgd"])
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
        with pytest.raises(RunError, match=r"delete .* to start anew"):
            trainer(run).run()
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["threads", "ranks"])
def test_another_number_of_threads_or_ranks_is_said(
    trainer: Callable[..., Trainer], tmp_path: Path, name: str
) -> None:
    trainer(tmp_path).run(stop_at=2)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state[name] += 1
    torch.save(state, tmp_path / CHECKPOINT)
    said: list[str] = []
    result = trainer(tmp_path, say=said.append).run(stop_at=3)
    assert len(result.warnings) == 1 and f"stopped with {state[name]}" in result.warnings[0]
    assert name in result.warnings[0] and said == [*result.warnings]
    again = trainer(tmp_path, say=said.append).run()
    assert again.warnings == result.warnings and len(said) == 1, (
        "it holds for what comes of it, and is said once"
    )


def test_a_checkpoint_of_a_version_without_ranks_goes_on(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer(tmp_path).run(stop_at=2)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["ranks"], state["warnings"]
    torch.save(state, tmp_path / CHECKPOINT)
    assert trainer(tmp_path).run().warnings == ()


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


def test_stochastic_depth_is_the_recipes_and_resumes_bit_for_bit(
    tiny_backbone: Backbones, squares: Squares, tmp_path: Path
) -> None:
    def build(directory: Path | None, rate: float) -> Trainer:
        recipe = replace(RECIPE, drop_path=rate)
        return make_trainer(Dropping(tiny_backbone(0)), squares(5, 64), directory, recipe)

    whole = build(tmp_path / "whole", 0.5)
    assert whole.detector.backbone.body.rate == 0.5
    expected = whole.run()
    build(tmp_path / "parts", 0.5).run(stop_at=5)
    assert build(tmp_path / "parts", 0.5).run().losses == expected.losses
    assert build(None, 0.0).run().losses != expected.losses
    with pytest.raises(RunError, match="another recipe"):
        build(tmp_path / "whole", 0.2).run()


def test_a_backbone_without_stochastic_depth_refuses_it(trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.drop_path: found 0\.2, but TinyBackbone has no stochastic depth"
    ):
        trainer(recipe=replace(RECIPE, drop_path=0.2))


def test_compiling_keeps_the_names_of_the_weights(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and run by torch's own interpreter: what C++ makes of it is torch's business, and takes minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    eager, compiled = trainer(), trainer(tmp_path, recipe=replace(RECIPE, compile=True))
    assert compiled.detector.backbone.body._compiled_call_impl is not None
    assert compiled.detector.state_dict().keys() == eager.detector.state_dict().keys()
    expected, found = eager.run(stop_at=3), compiled.run(stop_at=3)
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["model"].keys() == eager.detector.state_dict().keys()


def test_bf16_is_refused_on_a_gpu_that_does_not_compute_in_it(
    trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    body, half = trainer().detector.backbone.body, replace(RECIPE, amp="bf16")
    for has, device, recipe in (
        (True, "cuda", half),
        (False, "cpu", half),
        (False, "cuda", RECIPE),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        require_trainable(body, recipe, torch.device(device))
    with pytest.raises(
        ConfigError, match=r"^train\.amp: found 'bf16', but this GPU .*8\.0.*set it to off.*fp16"
    ):
        require_trainable(body, half, torch.device("cuda"))


def test_where_nothing_can_be_compiled_a_recipe_that_asks_for_it_is_refused(
    trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand a long tail")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(ConfigError) as caught:
        trainer(recipe=replace(RECIPE, compile=True))
    text = str(caught.value)
    assert text.startswith("train.compile: found true, but torch.compile does not work on cpu here")
    assert "No working C++ compiler" in text and "set it to false" in text and "\n" not in text


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


def jittered(
    image: torch.Tensor,
    boxes: list[list[float]],
    between: tuple[float, float],
    seed: int,
    content: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One image and its boxes after the jitter."""
    target = Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.ones(len(boxes), dtype=torch.int64),
        image_id=1,
    )
    height, width = image.shape[-2:]
    contents = [content or (height, width)]
    found, (moved,) = jitter_scale(image[None], [target], contents, between, Random(seed))
    assert found.shape == (1, *image.shape) and found.dtype == torch.uint8
    assert len(moved["labels"]) == len(moved["boxes"])
    return found[0], moved["boxes"]


def test_scale_jitter_moves_boxes_with_their_pixels() -> None:
    seen = 0
    for seed in range(20):
        image = torch.full((3, 128, 96), 20, dtype=torch.uint8)
        image[:, 40:80, 30:90] = 220
        found, boxes = jittered(image, [[30.0, 40.0, 90.0, 80.0]], (0.3, 2.0), seed)
        bright = torch.nonzero(found[0] > 120)
        assert len(boxes) == (len(bright) > 0)
        if not len(boxes):
            continue
        top, left = bright.amin(0).tolist()
        bottom, right = (bright.amax(0) + 1).tolist()
        assert boxes[0].tolist() == pytest.approx([left, top, right, bottom], abs=1.5)
        seen += 1
    assert seen > 10


def test_scale_jitter_pads_at_right_and_bottom_and_crops_the_picture_alone() -> None:
    image = torch.zeros((3, 64, 96), dtype=torch.uint8)
    image[:, :60, :40] = 200  # the rest is padding
    half, boxes = jittered(image, [[0.0, 0.0, 40.0, 60.0]], (0.5, 0.5), 0, (60, 40))
    assert (half[:, :30, :20] == 200).all() and int(half[:, 30:].sum() + half[:, :, 20:].sum()) == 0
    assert boxes.tolist() == [[0.0, 0.0, 20.0, 30.0]]
    for seed in range(9):
        twice, boxes = jittered(image, [[0.0, 0.0, 40.0, 60.0]], (2.0, 2.0), seed, (60, 40))
        # 120x80 px of picture: all 80 columns are kept, and no row is wasted on padding.
        assert (twice[:, :, :80] == 200).all() and not twice[:, :, 80:].any()
        assert boxes.tolist() == [[0.0, 0.0, 80.0, 64.0]]


def test_each_image_of_a_batch_has_its_own_scale(squares: Squares) -> None:
    data = squares(8, 64)
    contents = [data.content(index) for index in range(8)]
    white = torch.full_like(data.images, 255)
    sides = set()
    for seed in range(4):
        found, _ = jitter_scale(white, list(data.targets), contents, (0.1, 1.9), Random(seed))
        sides |= {int((one[0, 0] > 0).sum()) for one in found}
    assert len(sides) > 12 and min(sides) < 16 and max(sides) == 64
    same = [jitter_scale(white, list(data.targets), contents, (0.1, 1.9), Random(7))[0] for _ in range(2)]
    assert torch.equal(*same)
    still, targets = jitter_scale(data.images, list(data.targets), contents, (1.0, 1.0), Random(0))
    assert torch.equal(still, data.images)
    assert all(
        torch.equal(one["boxes"], two["boxes"]) for one, two in zip(targets, data.targets, strict=True)
    )


def test_boxes_with_less_than_a_pixel_left_are_no_targets() -> None:
    image = torch.zeros((3, 64, 64), dtype=torch.uint8)
    edge = [[0.0, 0.0, 8.0, 64.0]]
    left = [len(jittered(image, edge, (2.0, 2.0), seed)[1]) for seed in range(40)]
    assert set(left) == {0, 1}, "cut away by some crops, not by all"
    corner = [[0.0, 0.0, 4.0, 4.0]]
    assert len(jittered(image, corner, (0.25, 0.25), 0)[1]) == 1
    assert len(jittered(image, corner, (0.2, 0.2), 0)[1]) == 0
    assert jittered(image, [], (0.5, 0.5), 0)[1].shape == (0, 4)


def test_what_a_step_sees_is_a_function_of_seed_and_step(squares: Squares) -> None:
    recipe = replace(RECIPE, scale_jitter=(0.5, 2.0))
    data = squares(7, 64)
    forwards, backwards = Batches(data, recipe, 3), Batches(data, recipe, 3)
    seen = {step: forwards.at(step, CPU) for step in range(5)}
    for step in (4, 1, 4, 0):
        images, targets = backwards.at(step, CPU)
        assert torch.equal(images, seen[step][0])
        for one, two in zip(targets, seen[step][1], strict=True):
            assert torch.equal(one["boxes"], two["boxes"])
    assert not torch.equal(Batches(data, recipe, 4).at(0, CPU)[0], seen[0][0])


def test_learning_rates() -> None:
    cosine = TrainRecipe(steps=100, lr=1.0, warmup_steps=9)
    rates = [learning_rate(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[50] == pytest.approx(0.5) and rates[99] < 0.001
    assert max(rates) == rates[9]
    steps = TrainRecipe(steps=100, lr=1.0, warmup_steps=0, schedule="milestones", milestones=(0.5, 0.8))
    assert [learning_rate(steps, step, 100) for step in (0, 49, 50, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    last = TrainRecipe(
        epochs=10, batch_size=5, lr=1.0, warmup_steps=0, schedule="final_epochs", final_epochs=(3, 0.5)
    )
    # 20 steps an epoch: jumps at 200 - 60 and 200 - 10.
    assert [learning_rate(last, step, 100) for step in (0, 139, 140, 189, 190, 199)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_warm_up_from_a_rate_and_rates_by_batch_size() -> None:
    recipe = TrainRecipe(
        steps=100, lr=0.8, warmup_steps=10, warmup_lr=0.2, schedule="milestones", milestones=(0.9,)
    )
    assert [learning_rate(recipe, step, 50) for step in (0, 5, 10, 50, 90)] == pytest.approx(
        [0.2, 0.5, 0.8, 0.8, 0.08]
    )
    quarter = replace(recipe, batch_size=8, lr_batch=32)
    for step in (0, 3, 50, 95):
        assert learning_rate(quarter, step, 50) == pytest.approx(0.25 * learning_rate(recipe, step, 50))
    assert learning_rate(replace(recipe, warmup_steps=0), 0, 50) == 0.8


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
        {"steps": 1, "warmup_lr": 0.1, "lr": 0.05},
        {"steps": 1, "lr_batch": 0},
        {"steps": 1, "drop_path": 1.0},
        {"epochs": 9.0, "schedule": "final_epochs"},
        {"epochs": 9.0, "schedule": "final_epochs", "final_epochs": (1.0, 3.0)},
        {"epochs": 9.0, "schedule": "final_epochs", "final_epochs": (9.0, 3.0)},
        {"epochs": 9.0, "schedule": "final_epochs", "final_epochs": (3.0, 0.0)},
    ],
)
def test_recipes_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"found .*; (allowed is|give exactly one) "):
        TrainRecipe(**settings)


def test_epochs_from_the_end_need_a_length_in_epochs() -> None:
    with pytest.raises(FieldError, match=r"schedule: found 'final_epochs'; counts epochs; give epochs"):
        TrainRecipe(steps=100, schedule="final_epochs", final_epochs=(3.0,))


def test_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="'gpu0'"):
        resolve_device("gpu0")
    with pytest.raises(ConfigError, match="not on this machine"):
        resolve_device("cuda:99")
