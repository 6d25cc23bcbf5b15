"""The average of the weights: what it is, who sees it, and that a stopped training keeps it bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import RECIPE, assert_equal, make_trainer, mean_weight, weights
from torch import Tensor, nn

from search_spaces.recipe import FieldError
from trainers.average import WeightAverage
from trainers.checkpoint import load_checkpoint
from trainers.data.detection_set import DetectionSet
from trainers.loop import CHECKPOINT, StepRecord, Trainer
from trainers.recipes import TrainRecipe

Build = Callable[..., Trainer]
AVERAGED = replace(RECIPE, ema=0.6)
# The decay of a weight's n-th move: (1 + n) / (10 + n), until it reaches 0.6.
DECAYS = [0.6 if n >= 13 else (1 + n) / (10 + n) for n in range(1, 21)]


@pytest.fixture
def trainer(tiny_backbone: Callable[..., nn.Module], squares: Callable[..., DetectionSet]) -> Build:
    def build(*arguments: Any, recipe: TrainRecipe = AVERAGED, seed: int = 0, **settings: Any) -> Trainer:
        directory = arguments[0] if arguments else None
        return make_trainer(tiny_backbone(seed), squares(5, 64), directory, recipe, **settings)

    return build


def test_the_average_is_that_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(3, generator=generator))
    average = WeightAverage({"weight": weight}, 0.6)
    expected = weight.detach().double()
    for decay in DECAYS:
        with torch.no_grad():
            weight.add_(torch.randn(3, generator=generator))
        weight.grad = torch.ones(3)
        average.update()
        expected = decay * expected + (1 - decay) * weight.detach().double()
    trained = weight.detach().clone()
    with average.inside():
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(weight.detach(), trained)


def test_a_weight_that_did_not_move_keeps_its_average_and_its_count() -> None:
    """As those off a supernet's path, which move once in a while."""
    always, seldom = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    average = WeightAverage({"always": always, "seldom": seldom}, 0.99)
    expected = 0.0
    for step in range(6):
        always.grad, seldom.grad = torch.ones(1), torch.ones(1) if step % 3 == 0 else None
        with torch.no_grad():
            always += 1
            if seldom.grad is not None:
                seldom += 1
                n = step // 3 + 1
                expected = expected * (1 + n) / (10 + n) + float(seldom.detach()) * 9 / (10 + n)
        average.update()
    with average.inside():
        assert float(seldom.detach()) == pytest.approx(expected, rel=1e-6)
        assert float(always.detach()) < 6.0


def test_training_itself_does_not_notice(trainer: Build) -> None:
    plain, averaged = trainer(recipe=RECIPE), trainer()
    assert averaged.run().losses == plain.run().losses
    found, trained = weights(averaged), weights(plain)
    moved = {name for name, _ in plain.detector.named_parameters()}
    for name, value in trained.items():
        assert torch.equal(found[name], value) == (name not in moved), name


def test_what_is_evaluated_kept_and_handed_back_is_the_average(trainer: Build, tmp_path: Path) -> None:
    trained: list[dict[str, Tensor]] = []
    seen: list[dict[str, Tensor]] = []

    def note(_: StepRecord) -> None:
        trained.append(weights(one))

    def look(detector: nn.Module) -> dict[str, float]:
        seen.append(weights(one))
        return mean_weight(detector)  # type: ignore[arg-type]

    one = trainer(tmp_path, on_step=note, evaluate=look)
    expected = {name: value.double() for name, value in weights(one).items()}
    result = one.run()
    for decay, step in zip(DECAYS, trained, strict=False):
        for name, _ in one.detector.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * step[name].double()
    last = weights(one)
    for name, _ in one.detector.named_parameters():
        torch.testing.assert_close(last[name].double(), expected[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(last[name], trained[-1][name])
    statistics = [name for name in last if name.endswith("running_mean")]
    assert statistics and all(torch.equal(last[name], trained[-1][name]) for name in statistics)
    assert_equal(seen[-1], last)
    assert_equal(load_checkpoint(tmp_path / CHECKPOINT)["model"], last)
    assert result.history[-1].metrics == mean_weight(one.detector)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_training_goes_on_bit_for_bit(trainer: Build, tmp_path: Path, optimizer: str) -> None:
    recipe = replace(AVERAGED, optimizer=optimizer, accumulate=3, sizes=(1.0, 1.5))
    whole = trainer(tmp_path / "whole", recipe=recipe, evaluate=mean_weight)
    expected = whole.run()
    for stop in (0, 1, 4, 5, 8):
        trainer(tmp_path / "parts", recipe=recipe, seed=stop, evaluate=mean_weight).run(stop_at=stop)
    last = trainer(tmp_path / "parts", recipe=recipe, seed=9, evaluate=mean_weight)
    found = last.run()
    assert found.losses == expected.losses and found.history == expected.history
    assert_equal(weights(whole), weights(last))
    states = [load_checkpoint(tmp_path / name / CHECKPOINT)["training"] for name in ("whole", "parts")]
    assert_equal(states[0]["weights"], states[1]["weights"])
    assert states[0]["moves"] == states[1]["moves"]
    pieces = trainer(recipe=recipe, evaluate=mean_weight)
    pieces.run(stop_at=4)
    pieces.run(stop_at=4)
    assert pieces.run().losses == expected.losses
    assert_equal(weights(whole), weights(pieces))


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.1])
def test_decays_that_average_nothing_are_refused(ema: float) -> None:
    with pytest.raises(FieldError, match=r"ema: found .*; allowed is between 0 and 1, or null"):
        replace(RECIPE, ema=ema)
