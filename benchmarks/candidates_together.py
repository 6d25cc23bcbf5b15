"""About how much one pass for several candidates could gain over a pass for each.

    python benchmarks/candidates_together.py --root DIR/bccd-multiscale [--rounds 15] [--small]

Behind the blocks that they share, candidates can have weights in common but never inputs, so a pass for several of them
is a pass of a larger batch at best. For both precisions, the network of examples/recipes/crnas_bccd.yaml's hand-made
allocation takes batches of 1, 2, 4 and 8 times as many images as one of recalibration has, body alone and the whole
detector without its suppression of overlaps, in turn, on one thread; ``times`` is the time for an image over that in
the smallest batch, the median of the rounds, with the quartiles beside it. Everything is taken to be shared, which
candidates do not; norms are in evaluation mode, which those of a recalibration are not.
Written to benchmarks/results/candidates_together.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from supernet_step import RECIPE, recipe_of
from torch import Tensor

from nas.methods.crnas_supernets import stage_proxy
from nas.methods.data import read_data
from nas.run import Run, environment
from trainers.detectors.dense import DenseDetector
from trainers.precision import autocast
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/candidates_together.json"
MORE = (1, 2, 4, 8)


def compared(work: Callable[[Tensor], object], images: Tensor, size: int, rounds: int) -> dict[str, Any]:
    """Time for an image in larger batches over that in batches of ``size``."""
    seconds: dict[int, list[float]] = {more: [] for more in MORE}
    for _ in range(rounds + 1):
        for more in MORE:
            began = time.perf_counter()
            for batch in images.split(size * more):
                work(batch)
            seconds[more].append(time.perf_counter() - began)
    found = {}
    for more in MORE[1:]:
        # The first round is a warm-up.
        ratios = [one / alone for one, alone in zip(seconds[more][1:], seconds[1][1:], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        found[str(more)] = {"times": round(median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)]}
    return found


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="images in COCO form")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="small images, for a test")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args(words)
    if given.rounds < 2:
        parser.error(f"--rounds: found {given.rounds}; quartiles need 2 or more")
    prepare_process(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", recipe_of(given.root, "off", given.small))
        proxy = stage_proxy(run, read_data(run.recipe))
        proxy.supernet.set_path(proxy.space.baseline)
        detector = proxy.detector.eval()
        assert isinstance(detector, DenseDetector)
        size = min(proxy.recipe.train.micro_batch, len(proxy.train_set))
        images = proxy.train_set.images[: size * MORE[-1]].to(proxy.device)
        if len(images) < size * MORE[-1]:
            parser.error(f"--root: {len(images)} training images; the largest batch has {size * MORE[-1]}")
        parts: dict[str, Callable[[Tensor], object]] = {
            "body": lambda batch: detector.backbone.body(detector.normalise(batch)),
            "detector": detector.scored,
        }
        for amp in ("off", "bf16"):
            for name, work in parts.items():
                with torch.no_grad(), autocast(proxy.device, amp):
                    found[f"{name}, {amp}"] = compared(work, images, size, given.rounds)
                print(f"{name}, {amp}", found[f"{name}, {amp}"], flush=True)
    result = {
        "command": f"python benchmarks/candidates_together.py --root DIR/{Path(given.root).name} "
        f"--rounds {given.rounds}",
        "recipe": RECIPE,
        "images_in_a_batch": size,
        "batches_as_large": found,
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
