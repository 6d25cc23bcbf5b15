"""The measurement of what a supernet's step holds: the bytes counted are those that there are."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "supernet_memory.py"))


def test_a_storage_is_counted_once(benchmark: dict[str, Any]) -> None:
    one = torch.zeros(10, 4)
    assert benchmark["size_of"]([one, one[2:], one.T, torch.zeros(3)]) == 4 * 40 + 4 * 3


def test_a_step_holds_what_its_path_needs(
    benchmark: dict[str, Any], tmp_path: Path, shared_data: Path
) -> None:
    words = ["--root", str(shared_data / "bccd-tiny"), "--small", "--steps", "3"]
    benchmark["main"]([*words, "--to", str(tmp_path / "found.json")])
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(shared_data) not in text
    for one in json.loads(text)["supernets"].values():
        assert one["times"]["kept"] == pytest.approx(1.0, abs=0.02)
        assert one["times"]["gradients"] == pytest.approx(1.0, abs=0.02)
        assert one["times"]["weights"] > 1.3, "a supernet has the other paths' weights too"
        assert 1.0 < one["times"]["together"] < one["times"]["weights"]
        plain = one["mib"]["plain"]
        assert plain["gradients"] == pytest.approx(plain["weights"], rel=0.02)
        assert plain["optimiser"] == pytest.approx(2 * plain["gradients"], rel=0.02), "Adam has two moments"
