"""The measurement of remapped weights, small: every arm trained, its figures derived again, and resumable."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import nas.training

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/remapped_init.py"))


def measured(folder: Path, data: Path) -> dict[str, Any]:
    words = [
        "--root",
        str(data / "bccd-tiny"),
        "--dir",
        str(folder),
        "--seeds",
        "2",
        "--small",
        "--equal-steps",
    ]
    BENCHMARK["main"]([*words, "--output", str(folder / "result.json")])
    return dict(json.loads((folder / "result.json").read_text()))


def test_both_beginnings_are_trained_and_compared_seed_by_seed(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(tmp_path, shared_data)
    assert found["not_finished"] == {"source": [], "scratch": [], "remapped": [], "scratch_longer": []}
    assert found["blocks"] == {
        "layer1.0": "layer1.0",
        "layer1.1": "layer1.1",
        "layer1.2": "layer1.1",
        "layer1.3": "layer1.1",
        "layer2.0": "layer2.0",
        "layer2.1": "layer2.1",
        "layer3.0": "layer3.0",
        "layer4.0": "layer4.0",
    }
    assert found["fresh"] == []
    assert str(tmp_path) not in json.dumps(found) and str(shared_data) not in json.dumps(found)
    aps = {arm: one["AP"] for arm, one in found["arms"].items()}
    assert all(set(one) == {"7000", "7001"} for one in aps.values())
    mean = sum(aps["remapped"][seed] - aps["scratch"][seed] for seed in ("7000", "7001")) / 2
    assert found["remapped_minus_scratch"]["AP"]["mean"] == pytest.approx(mean, abs=0.02)
    # Everything is there: nothing is trained again, and the figures are the same.
    monkeypatch.setattr(nas.training, "Trainer", None)
    assert measured(tmp_path, shared_data) == found


def test_epochs_until_an_ap_is_reached() -> None:
    curve = [{"epoch": 2.0, "AP": 0.1}, {"epoch": 4.0, "AP": 0.3}, {"epoch": 6.0, "AP": 0.2}]
    results = {1: {"curve": curve}, 2: {"curve": curve}, 3: {"curve": curve}}
    assert BENCHMARK["epochs_to"](results, {1: 30.0, 2: 5.0, 4: 1.0}) == {1: 4.0, 2: 2.0}
    assert BENCHMARK["epochs_to"](results, {3: 31.0}) == {3: None}
