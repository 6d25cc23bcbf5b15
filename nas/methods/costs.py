"""What every phase of a run cost. An image trained on counts as three forward passes, at the mean of a recipe's
sizes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nas.ledger import Spent, by_activity, starts_of, total
from nas.methods.any_space import one_phase_recipe
from nas.methods.catalog import baseline_of, method_of
from nas.methods.spaces import allocation, crnas_recipe, stage_space
from nas.methods.spinenet_space import narrowed, spinenet_recipe
from nas.report.data import PhaseCost
from nas.run import Run
from nas.saying import duration
from nas.trials import History, Record
from search_spaces.architecture import Architecture
from search_spaces.cost import cost


def phase_costs(run: Run, trials: Mapping[str, History], size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """Seconds, images and backbone multiply-adds of every phase, as the run's method counts them.

    Args:
        run: finished or not.
        trials: of every phase.
        size: (height, width) of the images, px.
    """
    return COUNTS[method_of(run.recipe).costs](run, trials, size)


def supernet_costs(run: Run, trials: Mapping[str, History], size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """Seconds, images and backbone multiply-adds of each supernet training and each scoring of CR-NAS.

    Args:
        run: finished or not.
        trials: of every phase.
        size: (height, width) of the images, px.
    """
    macs = cost(baseline_of(run.recipe), size).macs
    paths = {"stages": mean_path_macs(run, size)}
    facts = run.read_json("data.json") or {"held_out": [], "train": []}
    costs = []
    whole = crnas_recipe(run.recipe)
    for name, history in trials.items():
        recipe = whole.stages if name == "stages" else whole.dilations or whole.stages
        spent = run.spent(name)
        if spent is not None:
            path = 3 * round(recipe.supernet.train.area * paths.get(name, macs))
            costs.append(_phase_cost(f"{name}: supernet training", spent["seconds"], spent["images"], path))
        each = len(facts["held_out"]) + recipe.supernet.recalibration_batches * min(
            recipe.supernet.train.batch_size, max(len(facts["train"]), 1)
        )
        scored = sum("seconds" in record.attributes for record in history)
        seconds = sum(record.seconds for record in history)
        counted = _phase_cost(f"{name}: scoring", seconds, recipe.supernet.members * each * scored, macs)
        costs.append(_booked(replace(counted, trials=len(history)), history))
    return tuple(costs)


def short_training_costs(
    run: Run, trials: Mapping[str, History], size: tuple[int, int]
) -> tuple[PhaseCost, ...]:
    """Seconds, images and backbone multiply-adds of the short trainings of SpineNet; arguments as above."""
    recipe = spinenet_recipe(run.recipe).search.proxy
    costs = []
    for name, history in trials.items():
        images = macs = steps = 0
        for record in history:
            count, taken = (record.attributes.get(key, 0) for key in ("images", "steps"))
            if (
                isinstance(count, int)
                and isinstance(taken, int)
                and isinstance(record.candidate, Architecture)
            ):
                images += count
                steps += taken
                each = cost(narrowed(record.candidate, recipe), size).macs
                macs += 3 * count * round(recipe.train.area * each)
        seconds = round(sum(record.seconds for record in history), 1)
        one = PhaseCost(name=f"{name}: short trainings", seconds=seconds, images=images, macs=macs)
        costs.append(_booked(replace(one, trials=len(history), steps=steps), history))
    return tuple(costs)


def own_costs(run: Run, trials: Mapping[str, History], size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """The same of candidates of any space; arguments as above.

    A proxy of a person's own counts as far as it says: what it tells :func:`nas.ledger.looked_at`, or ``images`` that
    were learned from and ``seconds`` among a score's attributes.
    """
    train = one_phase_recipe(run.recipe).search.proxy.train
    area = 1.0 if train is None else train.area
    costs = []
    for name, history in trials.items():
        images = macs = 0
        for record in history:
            count = record.attributes.get("images", 0)
            if isinstance(count, int) and isinstance(record.candidate, Architecture):
                images += count
                macs += 3 * count * round(area * cost(record.candidate, size).macs)
        seconds = round(sum(record.seconds for record in history), 1)
        one = PhaseCost(
            name=f"{name}: scoring", seconds=seconds, images=images, macs=macs, trials=len(history)
        )
        costs.append(_booked(one, history))
    return tuple(costs)


COUNTS: dict[str, Callable[[Run, Mapping[str, History], tuple[int, int]], tuple[PhaseCost, ...]]] = {
    "supernet": supernet_costs,
    "short trainings": short_training_costs,
    "own": own_costs,
}
"""By how candidates are scored, as the catalog of methods names it."""


def table_costs(run: Run, size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """The same of the final table, by the baseline's multiply-adds; nothing before its first training."""
    results = [
        run.read_json(str(path.relative_to(run.directory)))
        for path in sorted(run.directory.glob("retrain/*/*/result.json"))
    ]
    finished = [result for result in results if result is not None]
    if not finished:
        return ()
    seconds = sum(result["seconds"] for result in finished)
    images = sum(result["images"] for result in finished)
    retrain = run.recipe.retrain
    area = 1.0 if retrain is None else retrain.train.area
    macs = 3 * round(area * cost(baseline_of(run.recipe), size).macs)
    return (replace(_phase_cost("final table: trainings", seconds, images, macs), trials=len(finished)),)


def ledger(run: Run, trials: Mapping[str, History]) -> dict[str, Any]:
    """Everything that a run has cost until now, as plain data.

    Returns:
        ``activities``: seconds on the clock, of processors and of devices by what was done, lost work included;
        ``total`` of them; ``starts`` of the run and how many of these did not end in order (``unended``); ``phases``:
        images and multiply-adds that results came of; ``trials``: seconds of workers, their processors and devices,
        images and multiply-adds by what came of the trials, ``lost`` being what died with its worker.
    """
    starts = starts_of(run.directory)
    spent = by_activity(starts)
    facts = run.read_json("data.json")
    size = (224, 224) if facts is None else (facts["image_size"][0], facts["image_size"][1])
    phases = () if facts is None else (*phase_costs(run, trials, size), *table_costs(run, size))
    every = [record for history in trials.values() for record in history]
    devices = {name: _devices_of_worker(spent, name, run.recipe.workers) for name in trials}
    by_end: dict[str, dict[str, float]] = {}
    for state in ("complete", "failed", "pruned"):
        by_end[state] = _sums((record for record in every if record.state == state), devices)
    by_end["lost"] = _lost(every, devices)
    return {
        "starts": len(starts),
        "unended": sum(not start.ended for start in starts),
        "late": any(start.late for start in starts),
        "activities": {name: _rounded(one) for name, one in spent.items()},
        "total": _rounded(total(spent)),
        "phases": [asdict(one) for one in phases],
        "trials": by_end,
    }


def cost_line(costs: Mapping[str, Any]) -> str:
    """What a winner has cost, in one line.

    Args:
        costs: see :func:`ledger`.
    """
    spent, ended = costs["total"], costs["trials"]
    images = sum(one["images"] for one in costs["phases"])
    macs = sum(one["macs"] for one in costs["phases"])
    since = "since books are kept " if costs["late"] else ""
    parts = [
        f"{since}{duration(spent['wall'])} on the clock ({duration(spent['cpu'])} of processors, "
        f"{duration(spent['device'])} of devices)",
        f"{images:,} images",
        f"{macs:.2g} backbone MACs",
        f"{ended['complete']['count']:.0f} candidates scored",
    ]
    told = {"failed": ended["failed"]["count"], "lost workers": ended["lost"]["count"]}
    parts += [f"{count:.0f} {what}" for what, count in told.items() if count]
    if costs["starts"] != 1:
        parts.append(f"{costs['starts']} starts, {costs['unended']} of them not ended in order")
    return ", ".join(parts)


def _devices_of_worker(spent: Mapping[str, Spent], phase: str, workers: int) -> float:
    """GPUs that each worker has held while it scored candidates of a phase."""
    found = spent.get(f"{phase}: scoring", Spent())
    return found.device / found.wall / workers if found.wall else 0.0


def _sums(records: Iterable[Record], devices: Mapping[str, float]) -> dict[str, float]:
    found = list(records)
    return {
        "count": len(found),
        "seconds": round(sum(record.seconds for record in found), 3),
        "cpu_seconds": round(sum(record.cpu_seconds for record in found), 3),
        "device_seconds": round(sum(record.seconds * devices[record.phase] for record in found), 3),
        "images": sum(record.images_seen for record in found),
        "macs": sum(record.macs_spent for record in found),
    }


def _lost(records: Sequence[Record], devices: Mapping[str, float]) -> dict[str, float]:
    """What died with its worker.

    How many images it had seen died too: they, and processor seconds, are reckoned by the seconds on the clock, at the
    rate of the scored candidates of the same phase.
    """
    found = dict.fromkeys(("count", "seconds", "cpu_seconds", "device_seconds", "images", "macs"), 0.0)
    for phase, rate in devices.items():
        mine = [record for record in records if record.phase == phase]
        scored = _sums((record for record in mine if record.state == "complete"), devices)
        seconds = sum(record.lost_seconds for record in mine)
        found["count"] += sum(record.lost for record in mine)
        found["seconds"] += seconds
        found["device_seconds"] += seconds * rate
        for name in ("cpu_seconds", "images", "macs") if scored["seconds"] else ():
            found[name] += seconds / scored["seconds"] * scored[name]
    return {name: round(value, 3) for name, value in found.items()}


def _rounded(spent: Spent) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(spent).items()}


def mean_path_macs(run: Run, size: tuple[int, int]) -> int:
    """Multiply-adds of a path of the stage supernet, averaged over the uniform draws of its training.

    A stage's cost does not depend on the other stages, so means over stages add.
    """
    space = stage_space(crnas_recipe(run.recipe).space)
    base = space.baseline
    blocks = base.genes["blocks"]
    assert isinstance(blocks, tuple)
    total = whole = cost(base, size).macs
    for stage, counts in enumerate(space.branches):
        found = []
        for count in counts:
            changed = (*blocks[:stage], count, *blocks[stage + 1 :])
            found.append(cost(allocation(base, changed), size).macs - whole)
        total += round(sum(found) / len(found))
    return total


def _booked(counted: PhaseCost, history: History) -> PhaseCost:
    """With the images and multiply-adds that the trials have booked, failures included, where they have."""
    images = round(sum(record.images_seen for record in history))
    macs = round(sum(record.macs_spent for record in history))
    return replace(counted, images=images, macs=macs) if images else counted


def _phase_cost(name: str, seconds: float, images: int, macs_an_image: int) -> PhaseCost:
    return PhaseCost(name=name, seconds=round(seconds, 1), images=images, macs=images * macs_an_image)
