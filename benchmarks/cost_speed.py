"""Time of the cost model against fvcore's count of the built network, one after the other in one process.

    python benchmarks/cost_speed.py [--repeats 7] [--calls 20] [--to FILE]

needs fvcore (``pip install fvcore``) and writes benchmarks/results/cost_speed.json. In each repeat every network is
counted by ``search_spaces.cost.cost`` so many times, whatever it keeps between calls being thrown away first, and once
by fvcore's ``FlopCountAnalysis`` on the network as it is built, in evaluation mode and without gradients; building is
not timed. Ratios are taken within a repeat, in wall and in processor time: where other work shares the machine, the
second is the steadier. One thread; a first round is a warm-up. Both have to count equal multiply-adds of convolutions.

fvcore runs the network once, so its time holds a forward pass, which stands beside it. At 32 px that pass is little,
and what remains is the tracing: the least that fvcore needs, whatever the processor. ``cost`` gives parameters and
activations as well, for which fvcore would run again.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

from nas.run import environment
from search_spaces.catalog import get_architecture
from search_spaces.cost import cost
from search_spaces.families import family_of
from search_spaces.spinenet import costs as spinenet_costs
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/cost_speed.json"
CASES = (
    ("resnet18", 224),
    ("resnet50", 224),
    ("resnext101", 224),
    ("mobilenetv2", 224),
    ("spinenet49", 640),
    ("resnet18", 32),
    ("resnet50", 32),
    ("mobilenetv2", 32),
)
KEPT = [one for one in vars(spinenet_costs).values() if hasattr(one, "cache_clear")]


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    start = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def mean(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Of wall and of processor time."""
    return statistics.fmean(one[0] for one in times), statistics.fmean(one[1] for one in times)


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile to four digits."""
    return [float(f"{one:.4g}") for one in statistics.quantiles(values, n=4, method="inclusive")]


def measured(name: str, side: int, repeats: int, calls: int) -> dict[str, Any]:
    """One network, in turn."""
    architecture = get_architecture(name)
    network = family_of(architecture).build(architecture, seed=0).eval()
    images = torch.zeros(1, 3, side, side)

    def forget_and_count() -> tuple[float, float]:
        for one in KEPT:
            one.cache_clear()
        return seconds(lambda: cost(architecture, (side, side)))

    def by_fvcore() -> int:
        found = FlopCountAnalysis(network, images)
        found.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(found.by_operator()["conv"])

    macs = cost(architecture, (side, side)).macs
    if macs != by_fvcore():
        raise SystemExit(f"{name} at {side} px: {macs} multiply-adds by cost, {by_fvcore()} by fvcore")
    ours, theirs, forward = [], [], []
    for _ in range(repeats + 1):
        ours.append(mean([forget_and_count() for _ in range(calls)]))
        theirs.append(seconds(by_fvcore))
        forward.append(seconds(lambda: network(images)))
    row: dict[str, Any] = {"network": name, "side": side, "macs": macs}
    for index, clock in enumerate(("wall", "processor")):
        row[f"{clock} seconds"] = {
            who: quartiles([one[index] for one in times[1:]])
            for who, times in (("cost", ours), ("fvcore", theirs), ("forward pass", forward))
        }
        row[f"{clock} ratio"] = quartiles(
            [b[index] / a[index] for a, b in zip(ours[1:], theirs[1:], strict=True)]
        )
    return row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--to", type=Path, default=RESULT)
    chosen = parser.parse_args()
    prepare_process(1)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit's, which fvcore uses
    rows = []
    with torch.no_grad():
        for name, side in CASES:
            rows.append(measured(name, side, chosen.repeats, chosen.calls))
            print(name, side, rows[-1]["wall ratio"], rows[-1]["processor ratio"], flush=True)
    result = {
        "command": shlex.join(["python", "benchmarks/cost_speed.py", *sys.argv[1:]]),
        **environment(),
        "quartiles": "lower, median, upper",
        "repeats": chosen.repeats,
        "calls": chosen.calls,
        "cases": rows,
    }
    chosen.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
