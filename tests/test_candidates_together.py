"""The measurement of larger batches, small: what is timed, and what stands in its file."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "candidates_together.py"))


def test_every_size_looks_at_all_images_in_every_round(benchmark: dict[str, Any]) -> None:
    seen: list[int] = []

    def work(batch: Tensor) -> None:
        seen.append(len(batch))

    found = benchmark["compared"](work, torch.zeros(16, 1), 2, 2)
    assert set(found) == {"2", "4", "8"}
    assert seen == 3 * [*[2] * 8, *[4] * 4, *[8] * 2, 16]


def test_both_precisions_and_parts_stand_in_one_file(
    benchmark: dict[str, Any], tmp_path: Path, shared_data: Path
) -> None:
    words = ["--root", str(shared_data / "bccd-multiscale"), "--small", "--rounds", "2"]
    benchmark["main"]([*words, "--to", str(tmp_path / "found.json")])
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(shared_data) not in text
    found = json.loads(text)["batches_as_large"]
    assert set(found) == {f"{part}, {amp}" for part in ("body", "detector") for amp in ("off", "bf16")}


@pytest.mark.parametrize(
    ("folder", "rounds", "match"), [("bccd-multiscale", "1", "--rounds"), ("bccd-tiny", "2", "--root")]
)
def test_too_little_is_refused(
    benchmark: dict[str, Any],
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    rounds: str,
    match: str,
) -> None:
    with pytest.raises(SystemExit):
        benchmark["main"](["--root", str(shared_data / folder), "--small", "--rounds", rounds])
    assert f"{match}: " in capsys.readouterr().err
