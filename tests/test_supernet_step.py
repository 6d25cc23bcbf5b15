"""The measurement of a supernet's step, small: what it counts, not how long it takes."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/supernet_step.py"))


def test_both_go_through_the_same_paths_and_one_file_says_so(tmp_path: Path, shared_data: Path) -> None:
    words = ["--root", str(shared_data / "bccd-tiny"), "--small", "--steps", "2", "--amp", "off"]
    BENCHMARK["main"]([*words, "--to", str(tmp_path / "found.json")])
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(shared_data) not in text
    found = json.loads(text)["supernets"]
    assert set(found) == {"stages, off", "dilations, off"}
    for one in found.values():
        speed = one["gmacs_a_second"]
        # Equal multiply-adds on both sides: the ratio of speeds is that of times.
        assert speed["plain"] / speed["supernet"] == pytest.approx(one["times"], rel=0.1)
        assert one["interval"][0] <= one["times"] <= one["interval"][1]
        assert 0 < one["share_of_peak"] < 1.5
        assert any("convolution" in name for name in one["holds_the_rest"])


def test_a_bootstrap_of_steps_that_cost_the_same_everywhere_has_no_width() -> None:
    assert BENCHMARK["bootstrap"]([2.0, 4.0], [1.0, 2.0]) == [2.0, 2.0]
