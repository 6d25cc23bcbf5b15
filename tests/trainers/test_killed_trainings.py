"""A training killed after steps drawn at random, again and again, is the one that nobody killed: bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from trainers.checkpoint import load_checkpoint

HERE = Path(__file__).parent
STEPS = 11
TRAIN = {"steps": STEPS, "batch_size": 4, "lr": 0.005, "warmup_steps": 2, "checkpoint_every": 3}
FCOS = {"name": "fcos", "fpn_channels": 8, "levels": ["c3", "c4", "c5"]}
MASKS = {"name": "mask_rcnn", "fpn_channels": 8, "box_head": 16, "roi_batch": 16, "candidates": 30}
JOBS = {
    "fcos": {"detector": FCOS, "train": {**TRAIN, "evaluate_every": 2}},
    "mask_rcnn": {
        "detector": MASKS,
        "train": {**TRAIN, "scale_jitter": (0.3, 1.9), "drop_path": 0.5},
        "body": "dropping",
    },
    "supernet": {"detector": FCOS, "train": TRAIN, "body": "supernet"},
    "supernet by sgd": {"detector": FCOS, "train": {**TRAIN, "optimizer": "sgd"}, "body": "supernet"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all trainings, each killed three times."""
    folder = tmp_path_factory.mktemp("killed")
    rng = Random(29)
    jobs = {name: {**job, "kills": sorted(rng.sample(range(STEPS), 3))} for name, job in JOBS.items()}
    words = [str(HERE / "killed_trainings.py"), json.dumps(jobs), str(folder)]
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=variables, check=False, timeout=300)
    assert done.returncode == 0
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_killed_after_any_steps_it_is_the_undisturbed_training(folder: Path, name: str) -> None:
    whole, killed = (
        torch.load(folder / f"{name}.{kind}.pt", weights_only=True) for kind in ("whole", "killed")
    )
    assert len(whole["losses"]) == STEPS > len(killed["losses"]) > 0, "its last life began at a checkpoint"
    assert whole["losses"][-len(killed["losses"]) :] == killed["losses"]
    for key, value in whole["weights"].items():
        assert torch.equal(value, killed["weights"][key]), key
    states: list[dict[str, Any]] = []
    for kind in ("whole", "killed"):
        (place,) = (path.parent for path in (folder / name / kind).rglob("checkpoint.pt"))
        states.append(load_checkpoint(place / "checkpoint.pt"))
        assert {one.name for one in place.iterdir()} <= {"checkpoint.pt", "metrics.jsonl", "spent.json"}
    assert torch.equal(states[0]["losses"], states[1]["losses"])
    moments = [state["optimizer"]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys() and len(moments[0]) > 0
    for index, buffers in moments[0].items():
        assert all(torch.equal(value, moments[1][index][key]) for key, value in buffers.items())
