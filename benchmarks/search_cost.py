"""What a CR-NAS search takes now, over the straightforward way, in turn in one process.

    python benchmarks/search_cost.py RUN [--short SHORT] [--to FILE] [--limit N] [--steps N]

RUN is a finished search with its supernets. Its candidates are scored again in the order of the search, twice each:
once straightforwardly (every block of every candidate, pyramid included, for every batch, and the metric by
pycocotools, as the first version of the toolkit did), once as the search does it now. The latter has to give the AP of
the run to the digit, and the former the same but for the rounding of the two libraries' means.

SHORT is a finished search of the same space over the same images by a recipe that costs less (other lengths,
precision, recalibration); its candidates are scored as the search does it, each beside one of RUN, and a step of its
supernets is timed beside one of RUN's. Who goes first alternates everywhere. One thread.

The result, benchmarks/results/search_cost.json: seconds phase by phase; ``same_scores_speedup``, which changes no
digit; ``evaluation_speedup``, of SHORT over the straightforward way; and ``search_speedup``, the same of whole
searches: median seconds of a step times the steps of both supernets, and those of the candidates.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.config import to_data
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
from trainers.precision import autocast
from trainers.process import prepare_process

RESULT = Path(__file__).parent / "results/search_cost.json"
LAST_DIGITS = 1e-9
"""AP points by which the two libraries' means may differ."""


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
            with autocast(proxy.device, proxy.recipe.train.precision):
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
            detector,
            batch,
            batch_size=size,
            device=proxy.device,
            amp=proxy.recipe.train.precision,
            masks=False,
        )
    for one, state, momentum in zip(norms, saved, momenta, strict=True):
        restore(one, state)
        one.momentum = momentum
    return 100.0 * coco_metrics(proxy.held_out, results, backend="pycocotools").AP


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


def in_turn(ways: dict[str, Callable[[], float]], first: int) -> tuple[dict[str, float], dict[str, float]]:
    """Call each once, beginning at another one each time: seconds, and what came back."""
    names = list(ways)
    seconds, values = {}, {}
    for name in names[first % len(names) :] + names[: first % len(names)]:
        began = time.perf_counter()
        values[name] = ways[name]()
        seconds[name] = time.perf_counter() - began
    return seconds, values


def opened(run: Run, data: SearchData, phase: str) -> SupernetProxy:
    """The trained supernet of a phase."""
    proxy = scorer(run, data, phase)
    assert isinstance(proxy, SupernetProxy)
    return proxy


def scoring(
    run: Run, short: Run | None, data: SearchData, phase: str, limit: int | None
) -> tuple[dict[str, Any], list[Any]]:
    """Seconds of a candidate by each way, and the candidates whose scores differ."""
    proxy = opened(run, data, phase)
    other = None if short is None else opened(short, data, phase)
    records, others = scored(run, phase), [] if short is None else scored(short, phase)
    seconds: dict[str, list[float]] = {}
    different = []
    for place, record in enumerate(records[:limit]):
        one = record.candidate
        ways: dict[str, Callable[[], float]] = {
            "straightforward": lambda one=one: straightforward(proxy, one),  # type: ignore[misc]
            "now": lambda one=one: proxy(one).value,  # type: ignore[misc]
        }
        if other is not None and place < len(others):
            ways["short"] = lambda place=place: other(others[place].candidate).value  # type: ignore[misc]
        took, values = in_turn(ways, place)
        for name, spent in took.items():
            seconds.setdefault(name, []).append(spent)
        same = values["now"] == record.value and abs(values["straightforward"] - values["now"]) < LAST_DIGITS
        if not same:
            different.append({"number": record.number, "run": record.value, **values})
        if place % 10 == 9:
            print(
                phase, place + 1, {name: round(sum(spent), 1) for name, spent in seconds.items()}, flush=True
            )
    means = {name: round(sum(spent) / len(spent), 4) for name, spent in seconds.items()}
    counts = {"now": len(records), "straightforward": len(records), "short": len(others)}
    found = {"timed": len(records[:limit]), "seconds_a_candidate": means}
    return found | {"candidates": {name: counts[name] for name in means}}, different


def stepping(run: Run, short: Run | None, data: SearchData, phase: str, steps: int) -> dict[str, Any]:
    """Median seconds of a supernet's step, the two recipes in turn."""
    runs = {"now": run} if short is None else {"now": run, "short": short}
    trainers = {name: opened(one, data, phase).trainer(None) for name, one in runs.items()}

    def step(name: str) -> float:
        trainer = trainers[name]
        return float(trainer.run(trainer.run(0).steps + 1).steps)

    took: dict[str, list[float]] = {name: [] for name in runs}
    for place in range(steps + 3):
        seconds, _ = in_turn({name: lambda name=name: step(name) for name in runs}, place)  # type: ignore[misc]
        # The first ones find their memory.
        if place >= 3:
            for name, spent in seconds.items():
                took[name].append(spent)
    totals = {name: opened(one, data, phase).total_steps for name, one in runs.items()}
    return {"seconds_a_step": {name: round(median(one), 4) for name, one in took.items()}, "steps": totals}


def scored(run: Run, phase: str) -> list[Record]:
    """The trials of a phase that have a score."""
    return [one for one in histories(run)[phase] if one.value is not None]


def whole(phases: dict[str, Any], training: str, way: str) -> tuple[float, float]:
    """Seconds of all candidates by a way, and of them and the training of the supernets."""
    scoring = sum(one["candidates"][way] * one["seconds_a_candidate"][way] for one in phases.values())
    learning = sum(one["steps"][training] * one["seconds_a_step"][training] for one in phases.values())
    return scoring, scoring + learning


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--short", type=Path, help="a search by a recipe that costs less")
    parser.add_argument("--to", type=Path, default=RESULT)
    parser.add_argument("--limit", type=int, help="candidates of a phase that are timed, at most")
    parser.add_argument("--steps", type=int, default=20, help="of each supernet that are timed")
    given = parser.parse_args(words)
    prepare_process(1)
    run, short = Run.open(given.run), None if given.short is None else Run.open(given.short)
    if any(one is not None and resolve_device(one.recipe.device).type != "cpu" for one in (run, short)):
        raise SystemExit("device: this measures on a CPU; set device=cpu in a run of its own")
    data = read_data(run.recipe)
    if short is not None and read_data(short.recipe).held_out.digest != data.held_out.digest:
        raise SystemExit(f"{given.short}: holds out other images than {given.run}")
    phases: dict[str, Any] = {}
    different: dict[str, list[Any]] = {}
    for phase in ("stages", "dilations"):
        if phase in histories(run):
            phases[phase], different[phase] = scoring(run, short, data, phase, given.limit)
            phases[phase] |= stepping(run, short, data, phase, given.steps)
    before = whole(phases, "now", "straightforward")
    ways = {"now": whole(phases, "now", "now")}
    if short is not None:
        ways["short"] = whole(phases, "short", "short")
    result = {
        "command": f"python benchmarks/search_cost.py DIR/{given.run.name}"
        + ("" if short is None else f" --short DIR/{given.short.name}")
        + ("" if given.limit is None else f" --limit {given.limit}"),
        "recipe": run.recipe.name,
        "differs": [] if short is None else differences(run, short),
        "phases": phases,
        "different_scores": different,
        "seconds": {
            name: {"evaluation": round(one[0], 3), "search": round(one[1], 3)}
            for name, one in ({"straightforward": before} | ways).items()
        },
        "same_scores_speedup": round(before[0] / ways["now"][0], 3),
        "environment": environment() | {"threads": 1},
    }
    if short is not None:
        result["evaluation_speedup"] = round(before[0] / ways["short"][0], 3)
        result["search_speedup"] = round(before[1] / ways["short"][1], 3)
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if any(different.values()):
        raise SystemExit("the two ways, or the run, gave different scores: see different_scores")


def differences(run: Run, short: Run) -> list[str]:
    """Fields of the recipes that differ, as ``field: RUN's, SHORT's``."""

    def leaves(data: Any, name: str = "") -> dict[str, Any]:
        if not isinstance(data, dict):
            return {name: data}
        return {
            key: value
            for part, one in data.items()
            for key, value in leaves(one, f"{name}.{part}" if name else part).items()
        }

    ours, theirs = leaves(to_data(run.recipe)), leaves(to_data(short.recipe))
    return [
        f"{name}: {ours.get(name)}, {theirs.get(name)}"
        for name in ours | theirs
        if ours.get(name) != theirs.get(name)
    ]


if __name__ == "__main__":
    main()
