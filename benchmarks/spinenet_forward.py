"""Time of SpineNet-49 against the same network computed edge by edge, one after the other in one process.

    python benchmarks/spinenet_forward.py [--repeats 7] [--threads 1 2] [--batches 1 2] [--side 640] [--compile]

writes benchmarks/results/spinenet_forward.json. A case is a number of threads, a batch size, float32 or bf16
autocast, and a forward pass in evaluation mode or a training step (forward, backward, SGD). In each repeat every
variant runs once; ratios are taken within a repeat, as time of ``by_edges`` over time of the variant, in wall and in
processor time: where other work shares the machine, the second is the steadier. The process keeps freed memory, as
every training of the toolkit does. Variants:

    by_edges               module by module, NCHW
    by_edges channels_last the same in the layout that detectors train in
    network                search_spaces/spinenet/network.py, NCHW
    network channels_last  the same in that layout
    network compiled       by torch.compile, channels last, forward in float32 only (--compile)

Outputs at initial weights are compared before: forward in float32 at this side, everything else at 256 px. A
difference is the largest of a level by the level's largest value, from ``by_edges`` in float32 (float64: in float64);
what ``by_edges`` itself loses in bf16 or by a change of layout stands beside it.
"""

import argparse
import copy
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from spinenet_by_edges import SpineNetByEdges
from torch import Tensor, nn

from nas.run import environment
from search_spaces.spinenet.family import SPINENET
from search_spaces.spinenet.network import SpineNet
from search_spaces.spinenet.zoo import ZOO
from trainers.process import prepare_process

NAME, SEED = "spinenet49", 0
RESULT = Path(__file__).parent / "results/spinenet_forward.json"
LAYOUTS = {"": torch.contiguous_format, " channels_last": torch.channels_last}


def variants(batch: int, side: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """Name -> network and images, of equal weights and values."""
    torch.manual_seed(SEED)
    made = {"by_edges": SpineNetByEdges, "network": SpineNet}
    first = SpineNetByEdges(**SPINENET.arguments(ZOO[NAME]))
    images = torch.randn(batch, 3, side, side)
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    for name, kind in made.items():
        for suffix, layout in LAYOUTS.items():
            network = kind(**SPINENET.arguments(ZOO[NAME]))
            network.load_state_dict(first.state_dict())
            laid_out = images.contiguous(memory_format=layout)
            found[name + suffix] = (network.to(memory_format=layout), laid_out)  # type: ignore[call-overload]
    return found


def forward(network: nn.Module, images: Tensor, bf16: bool) -> dict[str, Tensor]:
    """One pass in evaluation mode."""
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        return network(images)  # type: ignore[no-any-return]


def training_step(network: nn.Module, images: Tensor, bf16: bool) -> dict[str, Tensor]:
    """Forward, backward and a step of SGD, so small that the network stays the same."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        maps = network(images)
    torch.stack([features.float().square().mean() for features in maps.values()]).sum().backward()
    optimizer.step()
    return maps  # type: ignore[no-any-return]


MODES: dict[str, Callable[[nn.Module, Tensor, bool], dict[str, Tensor]]] = {
    "forward": forward,
    "training step": training_step,
}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over all levels, the largest difference by the largest value."""
    return max(
        float((found[name].detach().double() - one.detach().double()).abs().max() / one.detach().abs().max())
        for name, one in expected.items()
    )


def differences(mode: str, dtype: str, side: int) -> dict[str, float]:
    """Of each variant from ``by_edges`` in the same mode; bf16 from float32."""
    compared = variants(1 if mode == "forward" else 2, side)
    network, images = compared["by_edges"]
    double = dtype == "float64"
    if double:
        compared = {name: (one.double(), x.double()) for name, (one, x) in compared.items()}
        network, images = compared["by_edges"]
    expected = MODES[mode](copy.deepcopy(network), images, False)
    found = {
        name: difference(MODES[mode](one, x, dtype == "bf16"), expected)
        for name, (one, x) in compared.items()
    }
    if dtype != "bf16":
        del found["by_edges"]
    return found


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(one, 4) for one in statistics.quantiles(values, n=4, method="inclusive")]


def measured(
    compared: dict[str, tuple[nn.Module, Tensor]], mode: str, bf16: bool, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds, and ratios of ``by_edges`` to each variant, as quartiles over the repeats, a warm-up left out."""
    wall: dict[str, list[float]] = {name: [] for name in compared}
    processor: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(repeats + 1):
        for name, (network, images) in compared.items():
            start = time.perf_counter(), time.process_time()
            MODES[mode](network, images, bf16)
            wall[name].append(time.perf_counter() - start[0])
            processor[name].append(time.process_time() - start[1])
            network.zero_grad(set_to_none=True)
    found = {}
    for name in compared:
        row = {}
        for clock, seconds in (("wall", wall), ("processor", processor)):
            ratios = [a / b for a, b in zip(seconds["by_edges"][1:], seconds[name][1:], strict=True)]
            row[f"{clock} seconds"] = quartiles(seconds[name][1:])
            row[f"{clock} ratio"] = quartiles(ratios)
        found[name] = row
    return found


def main() -> None:
    """Compare, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--bf16", action="store_true", help="time bf16 although the CPU has no AMX")
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    cpuinfo = Path("/proc/cpuinfo")
    amx = cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text(errors="replace")
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/spinenet_forward.py", *sys.argv[1:]]),
        "network": NAME,
        "side": chosen.side,
        "seed": SEED,
        "repeats": chosen.repeats,
        **environment(),
        "amx_bf16": amx,
        "bf16": "timed" if amx or chosen.bf16 else "not timed: this CPU has no AMX",
        "quartiles": "lower, median, upper",
        "differences": {},
        "cases": [],
    }
    for mode, dtype in (
        ("forward", "float32"),
        ("forward", "bf16"),
        ("training step", "float32"),
        ("training step", "float64"),
    ):
        side = chosen.side if (mode, dtype) == ("forward", "float32") else 256
        name = f"{mode}, {dtype}, {side} px"
        result["differences"][name] = differences(mode, dtype, side)
        print(name, result["differences"][name], flush=True)
    for threads in chosen.threads:
        prepare_process(threads)
        for batch in chosen.batches:
            for dtype in ("float32", "bf16") if amx or chosen.bf16 else ("float32",):
                for mode in MODES:
                    compared = variants(batch, chosen.side)
                    if chosen.compile and mode == "forward" and dtype == "float32":
                        network, images = compared["network channels_last"]
                        compiled = torch.compile(copy.deepcopy(network).eval())
                        compared["network compiled"] = (compiled, images)  # type: ignore[assignment]
                    rows = measured(compared, mode, dtype == "bf16", chosen.repeats)
                    case = {
                        "threads": threads,
                        "batch": batch,
                        "dtype": dtype,
                        "mode": mode,
                        "variants": rows,
                    }
                    result["cases"].append(case)
                    ratios = {name: (row["wall ratio"], row["processor ratio"]) for name, row in rows.items()}
                    print(threads, batch, dtype, mode, ratios, flush=True)
                    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
