"""What a supernet's training step holds in memory beside a step of its path's network alone.

    python benchmarks/supernet_memory.py --root DIR/bccd-multiscale [--steps 20] [--small]

The steps are those of benchmarks/supernet_step.py, in float32. Counted are bytes of tensors, which no allocator,
machine or busy neighbour changes: ``kept`` is what autograd keeps of a forward pass for the backward one, weights
left out and every storage once; ``gradients`` are those that stand when the optimiser has used them; ``optimiser`` is
its state and ``weights`` are all parameters, of a supernet after the last step, where the optimiser has a state for
every block that was on a path. Everything else is a mean over the steps. ``times`` is the supernet's number over the
networks'. Written to benchmarks/results/supernet_memory.json.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from supernet_step import RECIPE, WARM_UP, Timed, opened, plain_steps, recipe_of, supernet_steps
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nas.methods.data import read_data
from nas.proxies.supernet import SupernetProxy
from nas.run import Run, environment
from search_spaces.architecture import Architecture
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/supernet_memory.json"


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind some tensors, each once."""
    storages = (one.untyped_storage() for one in tensors)
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def held(steps: Timed) -> dict[str, int]:
    """Bytes that one more step holds, by what they are for."""
    kept: list[Tensor] = []

    def keep(one: Tensor) -> Tensor:
        kept.append(one)
        return one

    with saved_tensors_hooks(keep, lambda one: one):
        steps.step()
    weights = list(steps.trainer.detector.parameters())
    own = {one.untyped_storage().data_ptr() for one in weights}
    state = steps.trainer._optimizer.state.values()
    return {
        "kept": size_of(one for one in kept if one.untyped_storage().data_ptr() not in own),
        "gradients": size_of(one.grad for one in weights if one.grad is not None),
        "optimiser": size_of(one for kind in state for one in kind.values() if isinstance(one, Tensor)),
        "weights": size_of(weights),
    }


def compared(proxy: SupernetProxy, run: Run, count: int) -> dict[str, Any]:
    """A supernet's steps and those of its paths' networks."""
    paths: list[Architecture] = []
    shared = supernet_steps(proxy, paths)
    ours, theirs = [], []
    for _ in range(count):
        ours.append(held(shared))
        alone = plain_steps(proxy, run, paths[-1])
        for _ in range(WARM_UP):
            alone.step()
        theirs.append(held(alone))
    plain = {key: fmean(one[key] for one in theirs) for key in theirs[0]}
    supernet = {key: fmean(one[key] for one in ours) for key in ("kept", "gradients")}
    # It never forgets a block that was on a path.
    supernet |= {key: float(ours[-1][key]) for key in ("optimiser", "weights")}
    for one in (supernet, plain):
        one["together"] = sum(one.values())
    return {
        "steps": count,
        "mib": {
            name: {key: round(value / 2**20, 2) for key, value in one.items()}
            for name, one in (("supernet", supernet), ("plain", plain))
        },
        "times": {key: round(supernet[key] / plain[key], 3) for key in supernet},
    }


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="images in COCO form")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="small images, for a test")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args(words)
    prepare_process(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", recipe_of(given.root, "off", given.small))
        data = read_data(run.recipe)
        found = {
            name: compared(opened(run, data, name), run, given.steps) for name in ("stages", "dilations")
        }
    result = {
        "command": f"python benchmarks/supernet_memory.py --root DIR/{Path(given.root).name} --steps {given.steps}",
        "recipe": RECIPE,
        "supernets": found,
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
