"""The measurement of larger batches, small: what stands in its file."""

import json
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_larger_batches_stand_beside_the_smallest(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = runpy.run_path(str(BENCHMARKS / "candidates_together.py"))
    words = ["--root", str(shared_data / "bccd-tiny"), "--small", "--rounds", "2"]
    benchmark["main"]([*words, "--to", str(tmp_path / "found.json")])
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(shared_data) not in text
    found = json.loads(text)["batches_as_large"]
    assert set(found) == {f"{part}, {amp}" for part in ("body", "detector") for amp in ("off", "bf16")}
    for one in found.values():
        assert set(one) == {"2", "4", "8"}
        assert all(each["quartiles"][0] <= each["times"] <= each["quartiles"][1] for each in one.values())
