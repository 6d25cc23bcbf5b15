"""One training to completion: stopped and resumed it equals the uninterrupted one; its result can be had again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import nas.training
from nas.cli.training import _print_metrics
from nas.config import apply_overrides, check, dump_yaml, read_yaml, to_data
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.methods.exporting import backbone_weights
from nas.progress import Silent
from nas.recipes.train_job import TrainJobRecipe
from nas.training import (
    WEIGHTS,
    TrainingJob,
    detector_for,
    evaluate_detector,
    evaluate_training,
    read_result,
    train_bundle,
    train_to_completion,
)
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import DataError, NonFiniteLoss, RunError
from trainers.data.catalog import open_split
from trainers.data.detection_set import require_objects
from trainers.evaluate import detect
from trainers.loop import Trainer
from trainers.ranks import Ranks
from trainers.recipes import DataRecipe, DigitsRecipe, TrainRecipe

RECIPE = check(TrainJobRecipe, read_yaml(Path(__file__).parent / "recipes/train.yaml"), source="train.yaml")


def small(*blocks: int) -> Architecture:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    return replace(named, settings=settings, genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}))


NETWORK = small(1, 1, 1, 1)


def job(directory: Path, **changes: Any) -> TrainingJob:
    return replace(TrainingJob(architecture=NETWORK, recipe=RECIPE, directory=directory), **changes)


class Stop(Silent):
    """Stops a training at a step, as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def advance(self, done: int, note: str = "") -> None:
        if done == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("training")
    train_to_completion(job(directory))
    return directory


def stable(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "seconds"}


def test_stopped_anywhere_and_resumed_equals_uninterrupted(done: Path, tmp_path: Path) -> None:
    for at in (1, 5, 8):  # before the first checkpoint, between two, after the last step
        with pytest.raises(KeyboardInterrupt):
            train_to_completion(job(tmp_path), Stop(at))
        assert read_result(tmp_path) is None
    result = train_to_completion(job(tmp_path))
    expected = read_result(done)
    assert expected is not None and stable(result) == stable(expected)
    weights, others = (load_file(folder / "detector.safetensors") for folder in (tmp_path, done))
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    logs = [(folder / "metrics.jsonl").read_text() for folder in (tmp_path, done)]
    assert logs[0] == logs[1], "no line twice, none lost"


class FirstOfTwo(Ranks):
    """The first of two ranks, the other of which finds what ``others`` is."""

    others: tuple[dict[str, Any], ...] = ()

    def all_of(self, thing: Any) -> list[Any]:
        return [thing, list(self.others)]

    def of_first(self, thing: Any) -> Any:
        return thing


def test_a_rank_without_a_batch_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    val = open_split(RECIPE.data, "val").subset([0])
    detector = detector_for(NETWORK, RECIPE, val).eval()
    device = torch.device("cpu")
    alone = evaluate_detector(detector, val, RECIPE, device)
    monkeypatch.setattr(FirstOfTwo, "others", tuple(detect(detector, val, device=device)))
    assert evaluate_detector(detector, val, RECIPE, device, FirstOfTwo(count=2)) == alone


def test_the_result_says_where_it_comes_from(done: Path) -> None:
    result = read_result(done)
    assert result is not None
    assert result["digest"] == NETWORK.digest
    assert Architecture.from_dict(result["architecture"]) == NETWORK
    assert [point["epoch"] for point in result["curve"]] == [1, 2, 3, 4]
    assert result["curve"][-1]["AP"] == result["metrics"]["AP"]
    assert result["images"] == 32
    assert result["environment"]["threads"] == 1 and result["environment"]["seed"] == 5
    assert set(result["data"]) == {"train", "val"} and len(set(result["data"].values())) == 2


def test_a_finished_training_is_not_done_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.training, "Trainer", None)
    monkeypatch.setattr(nas.training, "on_ranks", None)
    assert train_to_completion(job(done)) == read_result(done)
    # How it is carried out is no part of what was trained.
    others = replace(RECIPE, ranks=2, launcher="ray", address="auto")
    assert train_to_completion(job(done, recipe=others)) == read_result(done)
    elsewhere = replace(RECIPE, data=replace(RECIPE.data, cache="anywhere"))
    assert train_to_completion(job(done, recipe=elsewhere)) == read_result(done)
    with pytest.raises(RunError, match="another backbone or recipe"):
        train_to_completion(job(done, recipe=replace(others, seed=9)))


def test_evaluating_again_gives_the_same_digits(done: Path) -> None:
    result = read_result(done)
    assert result is not None
    found = evaluate_training(done)
    assert found == result["metrics"]
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"} <= set(found)
    other = evaluate_training(done, ["data.digits.val_images=2"])
    assert set(other) == set(found)


def test_masks_are_trained_and_evaluated_beside_the_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["train.epochs=null", "train.steps=2", "train.evaluate_every=0", "data.masks=true"]
    overrides += [
        f"detector.{one}" for one in ("name=mask_rcnn", "mask_convs=1", "anchor_scale=4", "box_head=16")
    ]
    recipe = check(TrainJobRecipe, apply_overrides(to_data(RECIPE), overrides), source="r")
    found = train_to_completion(job(tmp_path, recipe=recipe))["metrics"]
    assert evaluate_training(tmp_path) == found
    assert {"AP", "per_class", "mask_AP", "mask_AP50", "mask_APs", "mask_per_class"} <= set(found)
    _print_metrics({**found, "mask_per_class": {"1": 0.25}}, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mask_AP", "1", "0.2500"] in lines
    assert ["mask_AP", f"{found['mask_AP']:.4f}"] in lines


def test_the_seed_decides_everything(done: Path, tmp_path: Path) -> None:
    data = open_split(RECIPE.data, "train")
    states = [detector_for(NETWORK, replace(RECIPE, seed=seed), data).state_dict() for seed in (5, 5, 6)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_a_directory_of_something_else_is_refused(done: Path) -> None:
    for other in (
        job(done, architecture=small(1, 1, 2, 1)),
        job(done, recipe=replace(RECIPE, seed=6)),
        job(done, recipe=replace(RECIPE, train=replace(RECIPE.train, lr=0.1))),
    ):
        with pytest.raises(RunError, match="another backbone or recipe; take a new directory"):
            train_to_completion(other)


def test_a_recipe_that_cannot_be_used_does_not_claim_the_directory(tmp_path: Path) -> None:
    wrong = replace(RECIPE, data=replace(RECIPE.data, source="coco", root=str(tmp_path / "nothing")))
    with pytest.raises(DataError, match="no folder"):
        train_to_completion(job(tmp_path / "run", recipe=wrong))
    assert not (tmp_path / "run").exists()


def test_without_val_when_a_split_seed_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def spied(recipe: Any, split: str, **_: object) -> Any:
        opened.append(split)
        return open_split(recipe, split)

    monkeypatch.setattr(nas.training, "open_split", spied)
    recipe = replace(RECIPE, train=replace(RECIPE.train, epochs=None, steps=2, evaluate_every=0))
    result = train_to_completion(job(tmp_path, recipe=recipe, held_out_seed=3))
    assert opened == ["train"]
    assert result["data"]["train"] != result["data"]["val"]


def test_a_non_finite_loss_stops_and_leaves_no_result(tmp_path: Path) -> None:
    wild = replace(RECIPE, train=replace(RECIPE.train, lr=1e30, clip_norm=0.0, warmup_steps=0))
    with pytest.raises(NonFiniteLoss, match=r"step \d+ of 8.*lr"):
        train_to_completion(job(tmp_path, recipe=wild))
    assert read_result(tmp_path) is None


def test_only_a_finished_training_can_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished training"):
        evaluate_training(tmp_path)


def test_train_bundle_takes_a_file_and_returns_metrics(done: Path) -> None:
    path = done / "architecture.json"
    path.write_text(json.dumps(NETWORK.to_dict()))
    result = read_result(done)
    assert result is not None
    assert train_bundle(str(path), RECIPE, done, Silent()) == result["metrics"]


def test_a_training_may_begin_with_the_weights_of_a_bundle(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []

    def spied(self: Trainer, *rest: Any) -> Any:
        begun.append(
            {name: value.clone() for name, value in self.detector.backbone.body.state_dict().items()}
        )
        return run(self, *rest)

    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", spied)
    learned = backbone_weights(load_file(done / WEIGHTS))
    bundle = export_bundle(NETWORK, learned, tmp_path / "bundle", Card(title="test"))
    recipe = replace(RECIPE, init="bundle", train=replace(RECIPE.train, epochs=None, steps=1))
    train_bundle(str(bundle), recipe, tmp_path / "run", Silent())
    assert all(torch.equal(value, learned[name]) for name, value in begun[0].items())
    other = export_bundle(NETWORK, {**learned, **_moved(learned)}, tmp_path / "other", Card(title="test"))
    with pytest.raises(RunError, match="another backbone or recipe"):
        train_bundle(str(other), recipe, tmp_path / "run", Silent())


def _moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(iter(weights))
    return {name: weights[name] + 1}


def test_a_bundle_without_weights_has_none_to_begin_with(tmp_path: Path) -> None:
    bundle = export_bundle(NETWORK, None, tmp_path / "bundle", Card(title="test"))
    with pytest.raises(RunError, match=r"init: bundle, but .* has no weights"):
        train_bundle(str(bundle), replace(RECIPE, init="bundle"), tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


def test_splits_without_objects_are_refused():
    data = open_split(
        DataRecipe(
            source="digits", digits=DigitsRecipe(train_images=4, val_images=1, image_size=64, max_side=40)
        ),
        "train",
    )
    empty = replace(
        data,
        targets=tuple(
            {**target, "boxes": target["boxes"][:0], "labels": target["labels"][:0]}
            for target in data.targets
        ),
    )
    require_objects({"val": data})
    with pytest.raises(DataError, match=r"no object in: val; AP is not defined there"):
        require_objects({"train": data, "val": empty})


def test_evaluation_on_other_categories_is_refused(tmp_path):
    result = {"categories": ["cat", "dog"], "metrics": {}}
    recipe = TrainJobRecipe(
        name="x",
        data=DataRecipe(
            source="digits", digits=DigitsRecipe(train_images=4, val_images=2, image_size=64, max_side=40)
        ),
        train=TrainRecipe(steps=1),
    )
    record = {"architecture": get_architecture("resnet18").to_dict(), "recipe": to_data(recipe)}
    (tmp_path / "training.yaml").write_text(dump_yaml(record))
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "detector.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="learned the categories cat, dog"):
        evaluate_training(tmp_path)
