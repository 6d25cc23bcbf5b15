"""Micro-batches of a step, and steps of several image sizes: both functions of (seed, step)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_loop import RECIPE, make_trainer
from torch import Tensor, nn

from nas.config import check
from nas.recipes.train_job import TrainJobRecipe
from search_spaces.errors import ConfigError
from search_spaces.recipe import FieldError
from trainers.batches import Batches, resized, scaled_size
from trainers.data.detection_set import DetectionSet, Target
from trainers.ranks import Ranks, require_share
from trainers.recipes import TrainRecipe

CPU = torch.device("cpu")
Squares = Callable[..., DetectionSet]
Backbones = Callable[..., nn.Module]


def stored(images: Tensor, targets: list[Target]) -> list[Any]:
    return [images, *(one["boxes"] for one in targets), *(one["masks"] for one in targets)]


@pytest.mark.parametrize("settings", [{}, {"scale_jitter": (0.5, 1.5)}, {"sizes": (0.5, 1.5)}])
def test_micro_batches_are_the_batch_in_parts(squares: Squares, settings: dict[str, Any]) -> None:
    data = squares(5, 64)
    recipe = TrainRecipe(steps=1, batch_size=12, **settings)
    whole, targets = Batches(data, recipe, 3).at(4, CPU)
    cut = Batches(data, replace(recipe, accumulate=3), 3)
    parts = [cut.at(4, CPU, micro=micro) for micro in range(3)]
    assert [len(images) for images, _ in parts] == [4, 4, 4]
    found = stored(torch.cat([one for one, _ in parts]), [one for _, some in parts for one in some])
    assert all(torch.equal(*pair) for pair in zip(found, stored(whole, targets), strict=True))
    # Ranks share each micro-batch, so what is normalised together does not depend on their number.
    shared = [cut.at(4, CPU, Ranks(rank=rank, count=2), 1)[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(shared), parts[1][0])


def test_accumulating_equals_the_whole_batch_but_for_statistics_and_normalisers(
    tiny_backbone: Backbones, squares: Squares
) -> None:
    def gradients(accumulate: int) -> tuple[list[Tensor], dict[str, float]]:
        recipe = TrainRecipe(steps=1, batch_size=6, accumulate=accumulate, clip_norm=0.0, frozen_bn=True)
        one = make_trainer(tiny_backbone(), squares(6, 64), recipe=recipe)
        plain = one.detector.losses

        def losses(images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
            # Each image's own loss: what the batch divides by is then the same in every micro-batch.
            alone = [plain(images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
            return {name: torch.stack([terms[name] for terms in alone]).mean() for name in alone[0]}

        one.detector.losses = losses  # type: ignore[assignment, method-assign]
        result = one.run()
        found = [each.grad.clone() for each in one._moved() if each.grad is not None]
        return found, {"loss": result.losses[0]}

    whole, loss = gradients(1)
    for accumulate in (2, 6):
        parts, other = gradients(accumulate)
        assert other["loss"] == pytest.approx(loss["loss"], rel=1e-6)
        for one, same in zip(parts, whole, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-6)


def test_a_step_is_one_step_whatever_it_is_cut_into(tiny_backbone: Backbones, squares: Squares) -> None:
    runs = {}
    for accumulate in (1, 3):
        recipe = replace(RECIPE, accumulate=accumulate, evaluate_every=0)
        told: list[Any] = []
        one = make_trainer(tiny_backbone(), squares(5, 64), recipe=recipe, on_step=told.append)
        result = one.run()
        assert [record.step for record in told] == list(range(9)) and result.total_steps == 9
        assert all(record.loss == pytest.approx(sum(record.terms.values()), rel=1e-5) for record in told)
        runs[accumulate] = told
    assert runs[3][0].terms.keys() == runs[1][0].terms.keys()
    assert [one.lr for one in runs[3]] == [one.lr for one in runs[1]]
    assert runs[3][0].loss == pytest.approx(runs[1][0].loss, rel=0.3)


def test_batches_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(
        FieldError, match=r"accumulate: found 4; allowed is divisors of batch_size, 6, the images of all"
    ):
        TrainRecipe(steps=1, batch_size=6, accumulate=4)
    with pytest.raises(FieldError, match="accumulate: found 0"):
        TrainRecipe(steps=1, batch_size=6, accumulate=0)
    require_share(12, 2, 3)
    with pytest.raises(
        ConfigError,
        match=r"train\.batch_size: found 6, .* which 4 ranks cannot share equally in 3 micro-batches "
        r"\(train\.accumulate\); take a multiple of 12",
    ):
        require_share(6, 4, 3)
    with pytest.raises(ConfigError, match=r"take a multiple of 32; or --set train\.accumulate=2$"):
        require_share(16, 8, 4)
    job = {"name": "t", "train": {"steps": 1, "batch_size": 6, "accumulate": 3}, "ranks": 3}
    with pytest.raises(
        ConfigError, match=r"ranks: found 3; allowed are divisors of train\.batch_size / train\.accumulate, 2"
    ):
        check(TrainJobRecipe, job, source="r")
    assert check(TrainJobRecipe, {**job, "ranks": 2}, source="r").train.micro_batch == 2


def test_every_step_has_one_size_that_seed_and_step_decide(squares: Squares) -> None:
    data = squares(5, 64)
    recipe = TrainRecipe(steps=1, batch_size=4, accumulate=2, sizes=(0.4, 1.0, 1.3, 2.0))
    batches = Batches(data, recipe, 3, multiple=32)

    def sizes(seed: int) -> list[tuple[int, ...]]:
        made = Batches(data, recipe, seed, multiple=32)
        return [tuple(made.at(step, CPU)[0].shape[2:]) for step in range(60)]

    found = sizes(3)
    assert set(found) == {(32, 32), (64, 64), (96, 96), (128, 128)}, "26 and 83 px to multiples of 32"
    assert found == sizes(3) != sizes(4)
    step = found.index((128, 128))
    for micro in (0, 1):
        images, targets = batches.at(step, CPU, micro=micro)
        assert images.shape == (2, 3, 128, 128) and images.dtype == torch.uint8
        plain, before = Batches(data, replace(recipe, sizes=()), 3).at(step, CPU, micro=micro)
        assert plain.shape == (2, 3, 64, 64)
        for one, same in zip(targets, before, strict=True):
            torch.testing.assert_close(one["boxes"], 2 * same["boxes"])
            assert torch.equal(one["masks"][:, ::2, ::2], same["masks"])


def test_sizes_are_rounded_to_multiples() -> None:
    assert scaled_size((96, 160), 1.0, 128) == (96, 160), "what the folder has is left as it is"
    assert scaled_size((96, 160), 0.7, 32) == (64, 128)
    assert scaled_size((640, 640), 0.8, 128) == (512, 512)
    assert scaled_size((64, 64), 0.1, 32) == (32, 32), "never nothing"


def test_what_a_smaller_image_cannot_show_is_left_out(squares: Squares) -> None:
    images = squares(1, 64).images
    masks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    masks[0, 10:30, 10:30] = masks[2, 40:50, 40:50] = 1
    target = Target(
        boxes=torch.tensor([[10.0, 10, 30, 30], [5, 5, 6, 40], [40, 40, 50, 50]]),
        labels=torch.tensor([0, 1, 2]),
        image_id=7,
        masks=masks,
    )
    small, (found,) = resized(images, [target], (32, 64))
    assert small.shape[2:] == (32, 64)
    assert found["labels"].tolist() == [0, 2] and found["image_id"] == 7
    assert found["boxes"].tolist() == [[10.0, 5.0, 30.0, 15.0], [40.0, 20.0, 50.0, 25.0]]
    assert found["masks"].shape == (2, 32, 64) and found["masks"][0].sum() == 200
    assert resized(images, [target], (64, 64))[0] is images


def test_several_sizes_are_trained_and_evaluation_is_at_the_stored_one(
    tiny_backbone: Backbones, squares: Squares
) -> None:
    shapes: list[tuple[int, ...]] = []
    recipe = replace(RECIPE, sizes=(0.5, 1.5), steps=8, evaluate_every=0)
    one = make_trainer(tiny_backbone(), squares(5, 64), recipe=recipe)
    plain = one.detector.losses

    def losses(images: Tensor, targets: Any) -> dict[str, Tensor]:
        shapes.append(tuple(images.shape[2:]))
        return plain(images, targets)

    one.detector.losses = losses  # type: ignore[assignment, method-assign]
    one.run()
    assert set(shapes) == {(32, 32), (96, 96)}
    assert one.detector.backbone.multiple == 32


def test_one_value_a_channel_is_refused_at_the_door(tiny_backbone: Backbones, squares: Squares) -> None:
    def made(**settings: Any) -> None:
        recipe = replace(RECIPE, **{"steps": 8, "batch_size": 2, "sizes": (0.5, 1.5), **settings})
        make_trainer(tiny_backbone(), squares(5, 64), recipe=recipe).run()

    words = r"train\.sizes: one image of 32x32 px at a time leaves one value a channel on .* \(stride 32\)"
    with pytest.raises(ConfigError, match=words):
        made(accumulate=2)
    with pytest.raises(ConfigError, match=words):
        made(batch_size=1)
    made()
    made(accumulate=2, sizes=(1.0, 1.5))
    made(accumulate=2, frozen_bn=True)


@pytest.mark.parametrize("sizes", [(0.0,), (1.0, 5.0), (-1.0,)])
def test_sizes_out_of_reach_are_refused(sizes: tuple[float, ...]) -> None:
    with pytest.raises(FieldError, match=r"sizes: found .*; allowed is factors from 0\.1 to 4"):
        TrainRecipe(steps=1, sizes=sizes)
