"""The benchmark of training loops: the variants run, and the committed results are the medians of their rounds."""

import argparse
import json
import runpy
import statistics
from pathlib import Path

import pytest
import torch

from trainers.data.digits import write_folder
from trainers.recipes import DataRecipe, DigitsRecipe

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/training_throughput.py"))
RESULTS = sorted((ROOT / "benchmarks/results").glob("training_throughput*.json"))


@pytest.mark.parametrize("variant", ["reference 0", "same settings", "defaults"])
def test_a_variant_runs(variant: str, tmp_path: Path) -> None:
    scenes = DigitsRecipe(train_images=4, val_images=2, image_size=64, min_side=20, max_side=56)
    write_folder(DataRecipe(source="digits", digits=scenes), tmp_path)
    threads = torch.get_num_threads()
    chosen = argparse.Namespace(threads=threads, size=[64, 64], batch=2, steps=BENCHMARK["WARM_UP"] + 1)
    assert BENCHMARK["measured"](variant, "fcos", chosen, tmp_path) > 0


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_are_those_of_their_rounds(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["amp"] in ("off", "bf16")
    for detector in stored["detectors"].values():
        ratios, speeds = detector["against_the_faster_reference"], detector["images_per_second"]
        assert set(ratios) == set(BENCHMARK["OURS"]) and set(speeds) == set(BENCHMARK["VARIANTS"])
        for one in ratios.values():
            assert one["median"] == pytest.approx(statistics.median(one["all"]), abs=0.001)
