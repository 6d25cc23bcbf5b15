"""A checkpoint and the one before it: damage is found, told, and costs the steps between the two."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainers.checkpoint
from search_spaces.errors import RunError
from trainers.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    previous_of,
    read_checkpoint,
    save_checkpoint,
)
from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import build_detector
from trainers.loop import CHECKPOINT, METRICS, Trainer
from trainers.recipes import DetectorRecipe, TrainRecipe

RECIPE = TrainRecipe(steps=9, batch_size=3, warmup_steps=2, checkpoint_every=2, lr=1e-2)
Make = Callable[..., Trainer]


@pytest.fixture
def make(tiny_backbone: Callable[..., nn.Module], squares: Callable[..., DetectionSet]) -> Make:
    """A trainer in a directory."""

    def build(directory: Path, say: Any = None, recipe: TrainRecipe = RECIPE) -> Trainer:
        settings = DetectorRecipe(fpn_channels=16)
        return Trainer(
            detector=build_detector(settings, tiny_backbone(0), 2, (64, 64), seed=0),
            data=squares(5, 64),
            recipe=recipe,
            seed=11,
            directory=directory,
            device=torch.device("cpu"),
            say=say,
        )

    return build


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit of a weight: every part of the file can be read."""
    content = bytearray(path.read_bytes())
    needle = read_checkpoint(bytes(content))["model"]["backbone.body.stem.1.running_mean"].numpy().tobytes()
    content[content.index(needle) + 5] ^= 1
    path.write_bytes(bytes(content))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, removed])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    make: Make, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    whole = make(tmp_path / "whole")
    expected = whole.run()
    run = tmp_path / "run"
    make(run).run(stop_at=7)
    path = run / CHECKPOINT
    assert load_checkpoint(path)["step"] == 7 and load_checkpoint(previous_of(path))["step"] == 6
    damage(path)
    said: list[str] = []
    again = make(run, said.append)
    again.run(stop_at=6)
    assert load_checkpoint(path)["step"] == 6 and not previous_of(path).exists()
    found = again.run()
    assert found.losses == expected.losses
    assert (run / METRICS).read_text() == (tmp_path / "whole" / METRICS).read_text()
    for name, value in whole.detector.state_dict().items():
        assert torch.equal(value, again.detector.state_dict()[name]), name
    assert found.warnings == tuple(said) and len(said) == 1
    assert str(path) in said[0] and "going on from checkpoint.previous.pt, at step 6" in said[0]
    assert ("is missing" if damage is removed else "cannot be read as a checkpoint") in said[0]


def test_without_a_whole_one_a_training_stops_and_begins_nothing(make: Make, tmp_path: Path) -> None:
    make(tmp_path).run(stop_at=5)
    path = tmp_path / CHECKPOINT
    truncated(path)
    truncated(previous_of(path))
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(RunError) as caught:
        make(tmp_path).run()
    text = str(caught.value)
    assert f"{path} cannot be read" in text and f"{previous_of(path)} cannot be read" in text
    assert "no other to go on from" in text and "delete all of checkpoint.* there" in text
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_checkpoint_before_of_another_training_is_not_put_in_place(make: Make, tmp_path: Path) -> None:
    make(tmp_path).run(stop_at=5)
    truncated(tmp_path / CHECKPOINT)
    before = previous_of(tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(RunError, match="another recipe"):
        make(tmp_path, recipe=replace(RECIPE, lr=0.02)).run()
    assert previous_of(tmp_path / CHECKPOINT).read_bytes() == before


def test_a_finished_training_keeps_one_checkpoint_and_nothing_half_written(
    make: Make, tmp_path: Path
) -> None:
    make(tmp_path).run(stop_at=5)
    left = [tmp_path / f".{CHECKPOINT}.123.tmp", tmp_path / f".{CHECKPOINT}.link"]
    for one in left:
        one.write_bytes(b"of a process that was killed")
    make(tmp_path).run()
    assert sorted(one.name for one in tmp_path.iterdir()) == [CHECKPOINT, METRICS]


def test_what_is_kept_is_one_file_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in range(4):
        save_checkpoint(path, {"step": step, "model": {"weight": torch.full((100,), float(step))}})
        assert load_checkpoint(path)["step"] == step
        assert previous_of(path).exists() == (step > 0)
    assert load_checkpoint(previous_of(path))["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("links", [True, False])
def test_at_every_moment_there_is_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """A copy of the folder before and after each change of a name, as a kill there would leave it."""
    seen: list[Path] = []
    run = tmp_path / "run"

    def snapshot() -> None:
        seen.append(tmp_path / str(len(seen)))
        shutil.copytree(run, seen[-1])

    def watched(name: str, allowed: bool = True) -> None:
        inner = getattr(Path, name)

        def call(self: Path, target: Any) -> Any:
            snapshot()
            if not allowed:
                raise OSError("no links here")
            result = inner(self, target)
            snapshot()
            return result

        monkeypatch.setattr(Path, name, call)

    save_checkpoint(run / "checkpoint.pt", {"step": 0})
    save_checkpoint(run / "checkpoint.pt", {"step": 1})
    with monkeypatch.context():
        watched("replace")
        watched("hardlink_to", allowed=links)
        save_checkpoint(run / "checkpoint.pt", {"step": 2})
    steps = []
    for folder in seen:
        content, _ = newest_checkpoint(folder / "checkpoint.pt")
        assert content is not None
        steps.append(read_checkpoint(content)["step"])
    assert set(steps) == {1, 2} and steps == sorted(steps) and len(steps) == (6 if links else 5)


def test_any_damage_is_found_or_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    weight = torch.arange(300.0)
    save_checkpoint(path, {"step": 3, "model": {"weight": weight}, "name": "x"})
    whole, rng, found = path.read_bytes(), random.Random(5), 0
    for number in range(400):
        content = bytearray(whole)
        if number % 2:
            content = content[: rng.randrange(len(whole))]
        else:
            content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        try:
            state = read_checkpoint(bytes(content))
        except trainers.checkpoint._Damaged:
            found += 1
            continue
        assert state["step"] == 3 and torch.equal(state["model"]["weight"], weight) and state["name"] == "x"
    assert found > 300


def test_every_byte_of_a_checkpoint_counts(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 3, "weights": torch.arange(6.0)})
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ValueError):
            read_checkpoint(bytes(changed))
    path.write_bytes(whole[:-1])
    with pytest.raises(RunError, match=f"{path} cannot be read as a checkpoint"):
        load_checkpoint(path)


def test_checkpoints_of_before_there_were_digests_are_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 3}, path)
    assert load_checkpoint(path) == {"step": 3}
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RunError, match="its end is missing"):
        load_checkpoint(path)
    save_checkpoint(path, {"step": 4})
    # Other tools read it all the same.
    assert torch.load(path, weights_only=True) == {"step": 4}
