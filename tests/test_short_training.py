"""The short-training proxy: equal candidates get equal scores, whenever and after whatever stop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.config import check, read_yaml
from nas.methods.spaces import dilation_space, stage_space
from nas.proxies.short_training import ShortTraining
from nas.recipes.crnas import CRNASRecipe
from search_spaces.architecture import Architecture, Genes
from search_spaces.errors import CandidateFailed, NonFiniteLoss
from search_spaces.families import family_of
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.loop import StepRecord
from trainers.recipes import TrainRecipe

RECIPE = check(CRNASRecipe, read_yaml(Path(__file__).parent / "recipes/tiny.yaml"), source="tiny.yaml")
SPACE = stage_space(RECIPE.space)
TRAIN, HELD_OUT = hold_out(open_split(RECIPE.data, "train"), RECIPE.data.hold_out, seed=1)
STEPS = TrainRecipe(steps=40, batch_size=4, lr=0.01, warmup_steps=2, checkpoint_every=5)


def make(
    directory: Path,
    *,
    train: TrainRecipe = STEPS,
    on_step: Callable[[StepRecord], None] | None = None,
    narrowed: Callable[[Architecture], Architecture] | None = None,
    recalibration_batches: int = 0,
) -> ShortTraining:
    return ShortTraining(
        train_set=TRAIN,
        held_out=HELD_OUT,
        detector=RECIPE.detector,
        train=train,
        seed=5,
        directory=directory,
        device="cpu",
        narrowed=narrowed,
        recalibration_batches=recalibration_batches,
        on_step=on_step,
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_equal_input_equal_score_in_any_order(tmp_path: Path) -> None:
    first, second = list(SPACE.enumerate())[:2]
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    forward = [one(first), one(second)]
    backward = [other(second), other(first)]
    assert [score.value for score in forward] == [score.value for score in reversed(backward)]
    assert forward[0].value > 0, "nothing learned, so the comparison would say nothing"
    assert forward[0].attributes["images"] == 160
    assert not list((tmp_path / "one").iterdir()), "weights of finished trainings are not kept"


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    candidate = SPACE.baseline

    def stop(step: StepRecord) -> None:
        if step.step == 23:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "stopped", on_step=stop)(candidate)
    again = make(tmp_path / "stopped", on_step=lambda step: seen.append(step.step))(candidate)
    assert seen[0] == 20 and again.value == make(tmp_path / "whole")(candidate).value


def test_the_narrow_relative_is_trained_under_the_name_of_the_candidate(tmp_path: Path) -> None:
    def narrow(architecture: Architecture) -> Architecture:
        widths = (4, 4, 4, 4)
        return replace(architecture, settings=Genes({**architecture.settings, "widths": widths}))

    candidate = SPACE.baseline
    direct = make(tmp_path / "direct")(narrow(candidate))
    assert make(tmp_path / "narrowed", narrowed=narrow)(candidate).value == direct.value
    assert make(tmp_path / "wide")(candidate).value != direct.value


def test_a_prefix_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(CandidateFailed, match="needs a complete architecture"):
        make(tmp_path)(dilation_space(SPACE.baseline).prefix([1]))


def test_a_diverging_candidate_fails_with_its_sentence(tmp_path: Path) -> None:
    wild = replace(STEPS, lr=1e30, clip_norm=0.0, warmup_steps=0)
    with pytest.raises(NonFiniteLoss, match="lr"):
        make(tmp_path, train=wild)(SPACE.baseline)


@pytest.mark.parametrize("recalibration_batches", [0, 2])
def test_rungs_change_nothing_about_the_score(tmp_path: Path, recalibration_batches: int) -> None:
    """Every stage in a proxy of its own, as in another process; stopped between two rungs and resumed too."""

    def stop(step: StepRecord) -> None:
        if step.step == 27:
            raise KeyboardInterrupt

    def staged(on_step: Callable[[StepRecord], None] | None = None) -> ShortTraining:
        return make(tmp_path / "staged", recalibration_batches=recalibration_batches, on_step=on_step)

    candidate = SPACE.baseline
    seen = {step: staged().at(candidate, step) for step in (8, 13)}
    with pytest.raises(KeyboardInterrupt):
        staged(stop).at(candidate, 35)
    steps: list[int] = []
    seen[35] = staged(lambda step: steps.append(step.step)).at(candidate, 35)
    assert steps == list(range(25, 35))
    score = staged(lambda step: steps.append(step.step))(candidate)
    assert steps == list(range(25, 40))
    whole = make(tmp_path / "whole", recalibration_batches=recalibration_batches)(candidate)
    assert score.value == whole.value > 0 and score.attributes["AP50"] == whole.attributes["AP50"]
    assert seen[35].value != seen[8].value, "nothing learned, so the comparison would say nothing"
    # A rung's value is that of the whole schedule, broken off there.
    other = make(tmp_path / "one", recalibration_batches=recalibration_batches).at(candidate, 35)
    assert other.value == seen[35].value


def test_recalibration_is_of_the_scoring_alone(tmp_path: Path) -> None:
    """BN with a long memory, as SpineNet's: its statistics of a short training are mostly their initial values."""
    candidate = SPACE.baseline

    def slow(scored: ShortTraining) -> float:
        built = family_of(candidate).build

        def build(architecture: Architecture, *, seed: int) -> torch.nn.Module:
            network = built(architecture, seed=seed)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 0.001
            return network

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(family_of(candidate)), "build", lambda self, *rest, **named: build(*rest, **named)
            )
            return scored(candidate).value

    taken, anew = make(tmp_path / "a"), make(tmp_path / "b", recalibration_batches=4)
    assert slow(anew) > slow(taken)
    assert slow(make(tmp_path / "c", recalibration_batches=4)) == slow(anew), "the same images every time"


def test_a_stopped_candidate_says_what_it_spent(tmp_path: Path) -> None:
    proxy = make(tmp_path / "run")
    spent = proxy.at(SPACE.baseline, 12).attributes
    assert spent["steps"] == 12 and spent["images"] == 48
    assert list((tmp_path / "run").iterdir())
    proxy.drop(SPACE.baseline)
    assert not list((tmp_path / "run").iterdir()), "weights of stopped trainings are not kept"
