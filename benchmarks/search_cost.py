"""What scoring the candidates of a CR-NAS run takes now, over the straightforward way, in turn in one process.

    python benchmarks/search_cost.py RUN [--to FILE] [--limit N]

RUN is a finished search. Its supernets are taken as they are, and its candidates are scored again in the order of the
search, twice each: once straightforwardly (every block of every candidate, pyramid included, for every batch, as the
first version of the toolkit did), once as the search does it (beginnings that candidates share are computed once, and
recalibration ends with the last normalisation). Who goes first alternates. Both have to give the same AP to the digit,
and that of the run. One thread.

The result, benchmarks/results/search_cost.json: seconds of both, phase by phase, and their ratio.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.methods.crnas import scorer
from nas.methods.data import SearchData, read_data
from nas.proxies.supernet import SupernetProxy
from nas.run import Run, environment
from nas.show import histories
from nas.study import Record
from search_spaces.architecture import Architecture, Candidate, Prefix
from search_spaces.randomness import rng_for
from trainers.evaluate import coco_metrics, detect
from trainers.loop import resolve_device
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/search_cost.json"


def straightforward(proxy: SupernetProxy, candidate: Candidate) -> float:
    """AP in percent by the first version's way: nothing is shared and nothing is left out."""
    level = len(candidate.genes) if isinstance(candidate, Prefix) else -1
    detector = proxy.detector
    norms = [one for one in detector.modules() if isinstance(one, _BatchNorm)]
    saved = [{name: buffer.clone() for name, buffer in one.named_buffers()} for one in norms]
    momenta = [one.momentum for one in norms]
    detector.eval()
    for one in norms:
        one.reset_running_stats()
        one.momentum = None
        one.train()
    rng = rng_for(proxy.seed, "recalibration")
    size = min(proxy.recipe.train.micro_batch, len(proxy.train_set))
    with torch.no_grad():
        for index in range(proxy.recipe.recalibration_batches):
            chosen = rng.sample(range(len(proxy.train_set)), size)
            proxy.supernet.set_path(completed(proxy, candidate, "recalibration-path", level, index))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=proxy.recipe.train.amp == "bf16"):
                detector.backbone(detector.normalise(proxy.train_set.images[chosen]))
    for one, state in zip(norms, saved, strict=True):
        one.eval()
        if one.num_batches_tracked is not None and int(one.num_batches_tracked) == 0:
            restore(one, state)
    results: list[dict[str, Any]] = []
    size = proxy.recipe.score_batch
    for index, start in enumerate(range(0, len(proxy.held_out), size)):
        proxy.supernet.set_path(completed(proxy, candidate, "completion", level, index))
        batch = proxy.held_out.subset(range(start, min(start + size, len(proxy.held_out))))
        results += detect(
            detector, batch, batch_size=size, device=proxy.device, amp=proxy.recipe.train.amp, masks=False
        )
    for one, state, momentum in zip(norms, saved, momenta, strict=True):
        restore(one, state)
        one.momentum = momentum
    return 100.0 * coco_metrics(proxy.held_out, results).AP


def completed(
    proxy: SupernetProxy, candidate: Candidate, purpose: str, level: int, index: int
) -> Architecture:
    """The path of a batch."""
    if isinstance(candidate, Architecture):
        return candidate
    return proxy.space.complete(candidate, rng_for(proxy.seed, purpose, level, index))


def restore(norm: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The statistics of the training."""
    for name, buffer in norm.named_buffers():
        buffer.copy_(state[name])


def measured(run: Run, data: SearchData, phase: str, records: list[Record]) -> dict[str, Any]:
    """Seconds of both ways over the candidates of a phase."""
    proxy = scorer(run, data, phase)
    assert isinstance(proxy, SupernetProxy)
    seconds = {"straightforward": 0.0, "shared": 0.0}
    different = []
    for place, record in enumerate(records):
        values = {}
        for way in ("straightforward", "shared") if place % 2 else ("shared", "straightforward"):
            began = time.perf_counter()
            one = record.candidate
            values[way] = straightforward(proxy, one) if way == "straightforward" else proxy(one).value
            seconds[way] += time.perf_counter() - began
        if len({*values.values(), record.value}) > 1:
            different.append({"number": record.number, "run": record.value, **values})
        if place % 10 == 9:
            print(phase, place + 1, {way: round(value, 1) for way, value in seconds.items()}, flush=True)
    return {
        "candidates": len(records),
        "seconds": {way: round(value, 2) for way, value in seconds.items()},
        "speedup": round(seconds["straightforward"] / seconds["shared"], 3),
        "different_scores": different,
    }


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=RESULT)
    parser.add_argument("--limit", type=int, help="candidates of a phase at most")
    given = parser.parse_args(words)
    prepare_process(1)
    run = Run.open(given.run)
    if resolve_device(run.recipe.device).type != "cpu":
        raise SystemExit("device: this measures on a CPU; set device=cpu in a run of its own")
    data = read_data(run.recipe)
    phases = {
        phase: measured(run, data, phase, [one for one in records if one.value is not None][: given.limit])
        for phase, records in histories(run).items()
        if phase in ("stages", "dilations")
    }
    totals = {
        way: sum(one["seconds"][way] for one in phases.values()) for way in ("straightforward", "shared")
    }
    result = {
        "command": f"python benchmarks/search_cost.py DIR/{given.run.name}",
        "recipe": run.recipe.name,
        "phases": phases,
        "evaluation_speedup": round(totals["straightforward"] / totals["shared"], 3),
        "environment": environment() | {"threads": 1},
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if any(one["different_scores"] for one in phases.values()):
        raise SystemExit("the two ways, or the run, gave different scores: see different_scores")


if __name__ == "__main__":
    main()
