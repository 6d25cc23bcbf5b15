"""What images cost several processes of one machine: in the memory of each, and in one file that all of them read.

    python benchmarks/shared_images.py FOLDER [--size 640] [--processes 4] [--rounds 7]

writes benchmarks/results/shared_images.json. FOLDER holds images in COCO form, whose ``train`` every process opens.
Memory is what the processes hold for themselves besides what they held before they opened it (private pages of
``/proc/self/smaps_rollup``) once all images were read; pages of the file are the kernel's, which may drop them, and are
counted once as ``file``. Seconds are those of opening: in memory, into a new file, and from the file. A batch is 16
images drawn by chance, in turn from memory and from the file (all of whose pages are in memory by then), and
``step`` is a training step of FCOS over ResNet-18 on two of them in turn from each, in one process and one thread.
"""

import argparse
import json
import multiprocessing
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from nas.run import environment
from search_spaces.catalog import family_of, get_architecture
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import build_detector
from trainers.loop import Trainer
from trainers.recipes import DataRecipe, DetectorRecipe, TrainRecipe

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/shared_images.json"
BATCH = 16


def private_bytes() -> int:
    """Memory that no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def held(recipe: DataRecipe, out: Any, wait: Any) -> None:
    """In a process: open the split, read every image once, and say how much memory and time it took."""
    torch.set_num_threads(1)
    before, start = private_bytes(), time.perf_counter()
    data = open_split(recipe, "train")
    seconds = time.perf_counter() - start
    total = sum(int(data.images[index].sum()) for index in range(len(data)))
    wait.wait()
    out.put((private_bytes() - before, seconds, total))
    wait.wait()


def together(recipe: DataRecipe, processes: int) -> tuple[list[int], list[float]]:
    """Private bytes and seconds of so many processes at once."""
    context = multiprocessing.get_context("spawn")
    out, wait = context.Queue(), context.Barrier(processes)
    started = [context.Process(target=held, args=(recipe, out, wait)) for _ in range(processes)]
    for one in started:
        one.start()
    found = [out.get() for _ in started]
    for one in started:
        one.join()
    assert len({total for _, _, total in found}) == 1
    return [size for size, _, _ in found], [seconds for _, seconds, _ in found]


def batches(sets: dict[str, DetectionSet], rounds: int) -> dict[str, list[float]]:
    """Seconds of a batch from each set, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in sets}
    for number in range(rounds):
        chosen = Random(number).sample(range(len(next(iter(sets.values())))), BATCH)
        for name, data in sets.items():
            start = time.perf_counter()
            for _ in range(4):
                data.images[chosen]
            seconds[name].append((time.perf_counter() - start) / 4)
    return seconds


def steps(sets: dict[str, DetectionSet], rounds: int) -> tuple[dict[str, list[float]], bool]:
    """Seconds of a training step from each set, in turn, and whether their losses are the same."""
    recipe = TrainRecipe(steps=4 * (rounds + 1), batch_size=2)
    trainers = {}
    for name, data in sets.items():
        body = family_of(get_architecture("resnet18")).build(get_architecture("resnet18"), seed=0)
        fcos = DetectorRecipe(name="fcos", fpn_channels=64, levels=("c3", "c4", "c5"))
        detector = build_detector(fcos, body, data.num_classes, data.image_size, seed=0)
        trainers[name] = Trainer(
            detector=detector, data=data, recipe=recipe, seed=0, directory=None, device=torch.device("cpu")
        )
    seconds: dict[str, list[float]] = {name: [] for name in sets}
    losses: dict[str, list[float]] = {name: [] for name in sets}
    for number in range(rounds + 1):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            losses[name] = list(trainer.run(4 * (number + 1)).losses)
            if number:
                seconds[name].append((time.perf_counter() - start) / 4)
    return seconds, losses["memory"] == losses["file"]


def ratio(seconds: dict[str, list[float]]) -> dict[str, float]:
    """File over memory, by neighbouring rounds."""
    found = sorted(file / memory for memory, file in zip(seconds["memory"], seconds["file"], strict=True))
    return {"median": statistics.median(found), "low": found[0], "high": found[-1]}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = DataRecipe(root=given.folder, image_size=given.size)
    with tempfile.TemporaryDirectory() as folder:
        cached = replace(recipe, cache=folder)
        start = time.perf_counter()
        stored = open_split(cached, "train")
        written = time.perf_counter() - start
        own, opening = together(recipe, given.processes)
        shared, reading = together(cached, given.processes)
        sets = {"memory": open_split(recipe, "train"), "file": stored}
        assert sets["memory"].digest == sets["file"].digest
        gathered = batches(sets, given.rounds)
        stepped, equal = steps(sets, given.rounds)
        pixels, padded = stored.image_bytes, sets["memory"].image_bytes
    result = {
        "command": "python benchmarks/shared_images.py "
        + " ".join(shlex.quote("FOLDER" if word == given.folder else word) for word in sys.argv[1:]),
        "data": Path(given.folder).name,
        "images": len(stored),
        "image_size": list(stored.image_size),
        "processes": given.processes,
        "padded_bytes": padded,
        "private_bytes": {"memory": own, "file": shared},
        "file_bytes": pixels,
        "memory_over_file": sum(own) / (sum(shared) + pixels),
        "open_seconds": {
            "memory": statistics.median(opening),
            "new_file": written,
            "file": statistics.median(reading),
        },
        "batch": {
            "images": BATCH,
            "milliseconds": 1e3 * statistics.median(gathered["file"]),
            **ratio(gathered),
        },
        "step": {"images": 2, "seconds": statistics.median(stepped["file"]), **ratio(stepped)},
        "losses_equal": equal,
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
