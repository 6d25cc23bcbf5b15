"""Nobody scores a detector of which a part still takes the statistics of its batch.

``detect_evaluating`` and ``boxes_evaluating`` do not look, for a supernet has thousands of parts; so whoever calls one
of them is looked at here.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import nas.proxies.supernet
import trainers.evaluate
from nas.config import check, read_yaml
from nas.methods.spaces import dilation_space, stage_space
from nas.proxies.paths import uniform
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.race import RaceRecipe
from search_spaces.architecture import Candidate
from search_spaces.crnas.supernet import DilationSupernet
from search_spaces.families import family_of
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.evaluate import boxes_evaluating, detect, detect_evaluating

ROOT = Path(__file__).parents[1]
CALLERS = {
    ("trainers/evaluate.py", detect_evaluating): trainers.evaluate,
    ("nas/proxies/supernet.py", boxes_evaluating): nas.proxies.supernet,
}
"""Every file that calls one of them; each is run below."""
RECIPE = check(CRNASRecipe, read_yaml(ROOT / "tests/recipes/tiny.yaml"), source="tiny.yaml")
SPACE = dilation_space(stage_space(RECIPE.space).baseline)
TRAIN, HELD_OUT = hold_out(open_split(RECIPE.data, "train"), RECIPE.data.hold_out, seed=1)
CPU = torch.device("cpu")


def test_these_are_all_who_call_it() -> None:
    found = set()
    for folder in ("nas", "trainers", "search_spaces"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = getattr(node, "id", None) or getattr(node, "attr", None)
                found |= {
                    (path.relative_to(ROOT).as_posix(), one)
                    for one in (detect_evaluating, boxes_evaluating)
                    if name == one.__name__
                }
    assert found == set(CALLERS), "a new caller needs a test here that runs it"


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Detector]]:
    """The detectors handed over, each with all its parts in evaluation mode."""
    found: list[Detector] = []

    def watched(called: Callable[..., Any], detector: Detector, *rest: Any, **named: Any) -> Any:
        training = [name for name, module in detector.named_modules() if module.training]
        assert not training, f"in training mode: {training[:5]} of {len(training)}"
        found.append(detector)
        return called(detector, *rest, **named)

    for (_, called), module in CALLERS.items():
        monkeypatch.setattr(module, called.__name__, partial(watched, called))
    yield found


def proxy_of(directory: Path, *, batches: int) -> SupernetProxy:
    """The shared-weight proxy, recalibrated with so many batches before every score."""
    supernet = DilationSupernet(SPACE.baseline, seed=1)
    recipe = RECIPE.stages.supernet
    return SupernetProxy(
        space=SPACE,
        draw_path=uniform(SPACE.sample, 1),
        supernet=supernet,
        detector=build_detector(RECIPE.detector, supernet, TRAIN.num_classes, TRAIN.image_size, seed=1),
        train_set=TRAIN,
        held_out=HELD_OUT,
        recipe=replace(recipe, train=replace(recipe.train, steps=2), recalibration_batches=batches),
        seed=1,
        directory=directory,
        device=CPU,
        race=RaceRecipe(first=6),
    )


@pytest.mark.parametrize("batches", [0, 1])
def test_a_supernet_is_scored_in_evaluation_mode(
    batches: int, tmp_path: Path, handed: list[Detector]
) -> None:
    proxy = proxy_of(tmp_path, batches=batches)
    candidates: tuple[Candidate, ...] = (SPACE.baseline, SPACE.prefix([1, 2]))
    size = proxy.recipe.score_batch
    whole = -(-len(HELD_OUT) // size)
    # As a search comes to it: just trained, after a score, after a part of a race, and in a worker that has loaded it.
    proxy.prepare()
    assert any(module.training for module in proxy.detector.modules()), "training leaves its mode"
    for candidate in candidates:
        proxy(candidate)
    proxy.at(candidates[0], size)
    worker = proxy_of(tmp_path, batches=batches)
    worker.load()
    worker.at(candidates[0], size)
    for candidate in candidates:
        worker(candidate)
    assert len(handed) == 4 * whole + 2
    assert {id(one) for one in handed} == {id(proxy.detector), id(worker.detector)}


@pytest.mark.parametrize("part", [None, "norm"])
def test_any_detector_is_evaluated_in_evaluation_mode(part: str | None, handed: list[Detector]) -> None:
    """In training mode as a whole, or one norm of it alone."""
    backbone = family_of(SPACE.baseline).build(SPACE.baseline, seed=1)
    detector = build_detector(RECIPE.detector, backbone, TRAIN.num_classes, TRAIN.image_size, seed=1)
    detector.train(part is None)
    if part is not None:
        next(module for module in detector.modules() if isinstance(module, _BatchNorm)).train()
    detect(detector, HELD_OUT, device=CPU)
    assert handed == [detector]
