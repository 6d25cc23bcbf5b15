"""What a supernet's training step takes beside a plain one, and how much of the machine's arithmetic it uses.

    python benchmarks/supernet_step.py --root DIR/bccd-multiscale [--steps 40] [--amp off bf16] [--small]

For each supernet of examples/recipes/crnas_bccd.yaml and each precision: its trainer makes ordinary steps, every one
with the path that it draws. After each step the network of that path alone makes a step on as many images with the same
detector and optimiser, in the same process, its first two being thrown away; so both go through the same mean path.
``times`` is the sum of the one over that of the other, and the interval is a bootstrap over steps.

``share_of_peak`` is the multiply-adds of the steps (three times those of a forward pass, for the gradients are two
more) over the time they took, over what a product of two matrices of 2048 x 2048 reaches at best in that precision.
``holds_the_rest`` are the operations of a few profiled steps by the share of their own time. One thread.

The result, benchmarks/results/supernet_step.json, wants an idle machine.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.crnas_supernets import dilation_proxy, stage_proxy
from nas.methods.data import SearchData, read_data
from nas.methods.spaces import crnas_recipe, dilation_space, stage_space
from nas.proxies.supernet import SupernetProxy
from nas.run import Run, environment
from search_spaces.architecture import Architecture
from search_spaces.families import family_of
from trainers.detectors.catalog import build_detector
from trainers.detectors.cost import count_detector
from trainers.detectors.detector import Detector
from trainers.loop import StepRecord, Trainer
from trainers.process import prepare_process

ROOT = Path(__file__).parents[1]
RECIPE = "examples/recipes/crnas_bccd.yaml"
RESULT = ROOT / "benchmarks/results/supernet_step.json"
WARM_UP = 2
SIDE = 2048
GRADIENTS = 3
"""Passes of a training step, in forward passes: one forward, one for the maps' and one for the weights' gradient."""


class Timed:
    """A trainer whose steps are made one by one; what is told is the trainer's own time of a step.

    Args:
        trainer: of the steps.
        seconds: filled by it.
    """

    def __init__(self, trainer: Trainer[Detector], seconds: list[float]) -> None:
        self.trainer, self._seconds, self._done = trainer, seconds, 0

    def step(self) -> float:
        """Seconds of one more step."""
        self._done += 1
        self.trainer.run(self._done)
        return self._seconds[-1]


def supernet_steps(proxy: SupernetProxy, paths: list[Architecture]) -> Timed:
    """Of a supernet; every path is added to ``paths`` as it is drawn."""
    seconds: list[float] = []
    plain = proxy.supernet.set_path

    def noted(path: Architecture) -> None:
        paths.append(path)
        plain(path)

    proxy.supernet.set_path = noted  # type: ignore[method-assign, assignment]
    return Timed(proxy.trainer(None, lambda one: seconds.append(one.seconds)), seconds)


def plain_steps(proxy: SupernetProxy, run: Run, path: Architecture) -> Timed:
    """Of the network of one path in a detector of its own."""
    seconds: list[float] = []
    data = proxy.train_set
    detector = build_detector(
        run.recipe.detector, family_of(path).build(path, seed=0), data.num_classes, data.image_size, seed=0
    )

    def note(one: StepRecord) -> None:
        seconds.append(one.seconds)

    return Timed(
        Trainer(
            detector=detector,
            data=data,
            recipe=proxy.recipe.train,
            seed=proxy.seed,
            directory=None,
            device=proxy.device,
            on_step=note,
        ),
        seconds,
    )


def peak(amp: str) -> float:
    """Multiply-adds a second of a product of two matrices, at its fastest."""
    kind = torch.bfloat16 if amp == "bf16" else torch.float32
    one, other = torch.randn(SIDE, SIDE).to(kind), torch.randn(SIDE, SIDE).to(kind)
    took = []
    for _ in range(30):
        began = time.perf_counter()
        torch.mm(one, other)
        took.append(time.perf_counter() - began)
    return float(SIDE**3 / min(took))


def measured(proxy: SupernetProxy, run: Run, amp: str, steps: int) -> dict[str, Any]:
    """A supernet's steps beside those of its paths' networks."""
    paths: list[Architecture] = []
    shared = supernet_steps(proxy, paths)
    for _ in range(WARM_UP):
        shared.step()
    ours, theirs, macs = [], [], []
    for number in range(steps):
        ours.append(shared.step())
        alone = plain_steps(proxy, run, paths[-1])
        for _ in range(WARM_UP):
            alone.step()
        theirs.append(alone.step())
        macs.append(step_macs(run, proxy, paths[-1]))
        if number % 10 == 9:
            print(f"{number + 1} steps: {sum(ours) / sum(theirs):.3f}", flush=True)
    reached = peak(amp)
    return {
        "steps": steps,
        "times": round(sum(ours) / sum(theirs), 3),
        "interval": bootstrap(ours, theirs),
        "seconds": {"supernet": round(median(ours), 4), "plain": round(median(theirs), 4)},
        "gmacs_a_second": {
            "supernet": round(sum(macs) / sum(ours) / 1e9, 1),
            "plain": round(sum(macs) / sum(theirs) / 1e9, 1),
            "matrices": round(reached / 1e9, 1),
        },
        "share_of_peak": round(sum(macs) / sum(ours) / reached, 3),
        "holds_the_rest": operations(shared, max(1, steps // 5)),
    }


def step_macs(run: Run, proxy: SupernetProxy, path: Architecture) -> float:
    """Multiply-adds of a training step through a path."""
    data = proxy.train_set
    size = data.image_size
    image = count_detector(path, run.recipe.detector, data.num_classes, size).total.macs
    return float(GRADIENTS * image * proxy.recipe.train.batch_size)


def bootstrap(ours: Sequence[float], theirs: Sequence[float], draws: int = 2000) -> list[float]:
    """95 % interval of the ratio of sums over steps."""
    rng, count = random.Random(0), len(ours)
    found = []
    for _ in range(draws):
        chosen = rng.choices(range(count), k=count)
        found.append(sum(ours[one] for one in chosen) / sum(theirs[one] for one in chosen))
    found.sort()
    return [round(found[int(share * draws)], 3) for share in (0.025, 0.975)]


def operations(steps: Timed, count: int) -> dict[str, float]:
    """Shares of own time of the twelve operations that take the most."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(count):
            steps.step()
    own = {one.key: one.self_cpu_time_total for one in seen.key_averages()}
    total = sum(own.values())
    return {
        name: round(spent / total, 3) for name, spent in sorted(own.items(), key=lambda one: -one[1])[:12]
    }


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="images in COCO form")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--amp", nargs="+", choices=["off", "bf16"], default=["off", "bf16"])
    parser.add_argument("--small", action="store_true", help="small images, for a test")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args(words)
    prepare_process(1)
    found: dict[str, Any] = {}
    for amp in given.amp:
        with tempfile.TemporaryDirectory() as folder:
            run = Run.create(Path(folder) / "run", recipe_of(given.root, amp, given.small))
            data = read_data(run.recipe)
            for name in ("stages", "dilations"):
                print(f"{name}, {amp}", flush=True)
                found[f"{name}, {amp}"] = measured(opened(run, data, name), run, amp, given.steps)
    result = {
        "command": f"python benchmarks/supernet_step.py --root DIR/{Path(given.root).name} --steps {given.steps} "
        f"--amp {' '.join(given.amp)}",
        "recipe": RECIPE,
        "supernets": found,
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def recipe_of(root: str, amp: str, small: bool) -> Any:
    """The recipe in a precision."""
    changes = [f"{phase}.supernet.train.amp={amp}" for phase in ("stages", "dilations")]
    changes += ["device=cpu", *(["data.image_size=64"] if small else [])]
    read = read_yaml(ROOT / RECIPE)
    read["data"]["root"] = root
    return check_search(apply_overrides(read, changes), source=RECIPE)


def opened(run: Run, data: SearchData, phase: str) -> SupernetProxy:
    """A supernet at its first step; that of the dilations is of the hand-made allocation."""
    if phase == "stages":
        return stage_proxy(run, data)
    space = dilation_space(stage_space(crnas_recipe(run.recipe).space).baseline)
    return dilation_proxy(run, space, data, trained=True)


if __name__ == "__main__":
    main()
