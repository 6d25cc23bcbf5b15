"""Trained bundles for the tests of this folder, each trained once."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_training import RECIPE, trained

from nas.methods.exporting import export
from trainers.recipes import DetectorRecipe


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of FCOS on digits; for reading only."""
    return trained(tmp_path_factory.mktemp("trained") / "fcos", RECIPE)


@pytest.fixture(scope="session")
def bundle(training: Path) -> Path:
    """Its bundle; for reading only."""
    return export(str(training))


@pytest.fixture(scope="session")
def mask_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a Mask R-CNN that has seen two batches; for reading only."""
    detector = DetectorRecipe(
        name="mask_rcnn",
        fpn_channels=8,
        levels=("c3", "c4", "c5"),
        box_head=16,
        mask_convs=1,
        anchor_scale=4.0,
        score_threshold=0.0,
        detections=5,
        candidates=20,
        norm_momentum=0.01,
        norm_eps=1e-3,
    )
    recipe = replace(
        RECIPE,
        detector=detector,
        data=replace(RECIPE.data, masks=True),
        train=replace(RECIPE.train, epochs=None, steps=2, evaluate_every=0),
    )
    return export(str(trained(tmp_path_factory.mktemp("trained") / "masks", recipe)))
