"""The benchmark that trains in two precisions: the same trainings but for that, compared seed by seed."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks/results").glob("precision*.json"))
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/precision.py"))


def test_both_trainings_of_a_seed_differ_in_precision_alone(tmp_path: Path) -> None:
    jobs = BENCHMARK["trainings"](ROOT / "examples/recipes/crnas_bccd.yaml", "photos", tmp_path, range(5, 7))
    assert [(job.recipe.seed, job.recipe.train.amp) for job in jobs] == [
        (seed, amp) for seed in (5, 6) for amp in ("off", "bf16")
    ]
    for plain, other in zip(jobs[::2], jobs[1::2], strict=True):
        assert plain.architecture == other.architecture and plain.directory != other.directory
        assert replace(other.recipe, train=replace(other.recipe.train, amp="off")) == plain.recipe


def test_differences_are_of_pairs() -> None:
    def result(ap: float, seconds: float) -> dict[str, Any]:
        return {"metrics": {"AP": ap}, "seconds": seconds}

    # Seeds are far apart, pairs are not.
    off = {seed: result(0.1 * seed, 10.0) for seed in range(4)}
    bf16 = {seed: result(0.1 * seed + 0.01, 5.0) for seed in range(4)}
    found = BENCHMARK["compared"]({"off": off, "bf16": bf16})
    assert found["ap"]["off"]["mean"] == 15.0 and found["ap"]["bf16"]["mean"] == 16.0
    assert found["bf16_minus_off"]["mean"] == 1.0
    assert found["bf16_minus_off"]["interval_95"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert found["seconds"] == {"off": [10.0] * 4, "bf16": [5.0] * 4} and "masks" not in found
    for by_seed in (off, bf16):
        for one in by_seed.values():
            one["metrics"]["mask_AP"] = one["metrics"]["AP"] / 2
    found = BENCHMARK["compared"]({"off": off, "bf16": bf16})
    assert found["masks"]["bf16_minus_off"]["mean"] == 0.5 and found["bf16_minus_off"]["mean"] == 1.0


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_committed_result_is_what_its_seeds_give(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    results = {
        amp: {
            int(seed): {"metrics": {"AP": ap / 100.0}, "seconds": seconds}
            for (seed, ap), seconds in zip(one["by_seed"].items(), stored["seconds"][amp], strict=True)
        }
        for amp, one in stored["ap"].items()
    }
    found = BENCHMARK["compared"](results)["bf16_minus_off"]
    assert found["mean"] == pytest.approx(stored["bf16_minus_off"]["mean"], abs=0.002)
    assert found["interval_95"] == pytest.approx(stored["bf16_minus_off"]["interval_95"], abs=0.005)
    assert len(results["off"]) == len(results["bf16"]) == 6
