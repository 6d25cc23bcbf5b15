"""SpineNet from images to a trained backbone (Du et al. 2020, arXiv 1912.05027, section 5.1).

A controller proposes whole networks; those within the limits are trained for a short time and scored on held-out
images; the best is trained to completion beside the baseline. Every step is skipped when its result is in the
run directory, so carrying out a run and resuming it are one function.
"""

from collections.abc import Mapping
from typing import Any

from nas.latency import LATENCY, LatencyRatio, Measured, known_latencies
from nas.methods.checking import refused, require_all
from nas.methods.costs import short_training_costs
from nas.methods.searching import (
    Beside,
    SearchData,
    controller_for,
    finish,
    open_data,
    phase_seed,
    search_phase,
)
from nas.methods.spinenet_space import Limits, narrowed, require_narrow, spinenet_recipe, spinenet_space
from nas.progress import RunProgress
from nas.proxies.short_training import ShortTraining
from nas.pruning import Pruning, rungs_within
from nas.recipe import ControllerRecipe, SpineNetRecipe
from nas.run import Run, split_seed
from nas.study import Json, Record, Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import DataError, RunError
from search_spaces.randomness import rng_for
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.loop import resolve_device, total_steps

TRIES = 100
"""Draws for each candidate of the random rival, where the limits reject most of the space."""
SHARE_DRAWS = 500
"""Uniform draws for the printed share of the space that the limits let through."""
LATENCY_DRAWS = 10
"""So many of them, the first within the other limits, are timed for the share of a latency limit."""


def check_recipe(recipe: SpineNetRecipe, *, source: str) -> None:
    """Raise whatever would stop the run later, all at once; see :func:`nas.methods.checking.require_all`."""
    place = f"{source}: "
    problems = refused(place, lambda: spinenet_space(recipe.space))
    baseline = None
    if not problems:
        space = spinenet_space(recipe.space)
        baseline = space.baseline
        problems = refused(
            f"{place}search.controller.", lambda: controller_for(recipe.search.controller, space, 0)
        )
        problems += refused(
            f"{place}search.proxy: ", lambda: require_narrow(space.baseline, recipe.search.proxy)
        )
    if (rungs := recipe.search.rungs) is not None and (steps := _short_steps(recipe)) is not None:
        problems += refused(
            f"{place}search.rungs.", lambda: Pruning(rungs, total_steps=steps, phase="search")
        )
    require_all(recipe, source=source, problems=problems, baseline=baseline)


def _short_steps(recipe: SpineNetRecipe) -> int | None:
    """Steps of one short training; None where that takes images and they cannot be read."""
    train = recipe.search.proxy.train
    if train.steps is not None:
        return train.steps
    try:
        rest, _ = hold_out(open_split(recipe.data, "train"), recipe.data.hold_out, split_seed(recipe))
    except DataError:
        return None
    return total_steps(train, len(rest))


def carry_out(run: Run, progress: RunProgress) -> Architecture:
    """Do whatever of the run is not done yet and return the winner."""
    recipe = spinenet_recipe(run.recipe)
    data = open_data(run, progress)
    with Study.open(run.directory, recipe.storage) as study:
        tell_share(run, data, progress)
        winner = _search(run, study, data, "search", recipe.search.controller, progress)
        rivals = {}
        if recipe.retrain is not None and "random" in recipe.retrain.rivals:
            rivals["random"] = search_at_random(run, study, data, progress)
        finish(run, winner, rivals, progress)
    return winner


def search_at_random(run: Run, study: Study, data: SearchData, progress: RunProgress) -> Architecture:
    """The rival: uniform draws within the limits, trained as the search's candidates were, for as many steps.

    Without rungs these are as many draws as the search trained. With rungs the draws pass the same ones, and go on
    until they have had at least the search's training steps; the last of them may run over by less than one
    whole training, to the rival's advantage.
    """
    space = spinenet_space(spinenet_recipe(run.recipe).space)
    whole = total_steps(spinenet_recipe(run.recipe).search.proxy.train, len(data.train_set))

    def spent(phase: str) -> int:
        history = study.phase(phase, space, seed=phase_seed(run, phase)).history()
        return sum(steps_spent(record, whole) for record in history)

    steps = spent("search")
    wanted = budget = max(steps // whole, 1)
    while True:
        controller = ControllerRecipe(name="random", budget=budget)
        try:
            winner = _search(run, study, data, "random", controller, progress)
        except RunError:
            # All of the first draws may be outside of the limits.
            if spent("random") or budget > TRIES * wanted:
                raise
            budget += wanted
            continue
        missing = steps - spent("random")
        if missing <= 0 or budget > TRIES * wanted:
            return winner
        budget += max(missing // whole, 1)


def steps_spent(record: Record, whole: int) -> int:
    """Training steps of one trial: none where a limit rejected it or an earlier score was repeated.

    Args:
        record: finished.
        whole: steps of a training to the end; counted for one that diverged, however early.
    """
    if "same_as_trial" in record.attributes or (record.state == "pruned" and record.stopped_at is None):
        return 0
    steps = record.attributes.get("steps", whole)
    assert isinstance(steps, int)
    return steps


def _search(
    run: Run, study: Study, data: SearchData, name: str, controller: ControllerRecipe, progress: RunProgress
) -> Architecture:
    recipe = spinenet_recipe(run.recipe)
    space = spinenet_space(recipe.space)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    rungs, steps = recipe.search.rungs, total_steps(recipe.search.proxy.train, len(data.train_set))
    return search_phase(
        run,
        study,
        name,
        space=space,
        recipe=controller,
        proxy=lambda: _proxy(run, name, data),
        progress=progress,
        limits=limits,
        pruning=None if rungs is None else lambda: Pruning(rungs, total_steps=steps, phase=name),
        beside=_beside(recipe, data),
        measured=(lambda: _measured(run, study, data)) if recipe.search.needs_latency else None,
    )


def _beside(recipe: SpineNetRecipe, data: SearchData) -> Beside | None:
    """The second objective; the winner may cost what the baseline costs."""
    objective = recipe.search.cost
    if objective is None:
        return None
    if objective == LATENCY:
        return Beside(objective=objective, allowed=1.0)
    base = cost(spinenet_space(recipe.space).baseline, data.train_set.image_size)
    return Beside(objective=objective, allowed=getattr(base, objective))


def _proxy(run: Run, phase: str, data: SearchData) -> ShortTraining:
    recipe = spinenet_recipe(run.recipe)
    rungs, train = recipe.search.rungs, recipe.search.proxy.train
    return ShortTraining(
        train_set=data.train_set,
        held_out=data.held_out,
        detector=recipe.detector,
        train=train,
        # Not that of the phase: random search and the controller are compared under one and the same proxy.
        seed=phase_seed(run, "search"),
        directory=run.directory / phase,
        device=recipe.device,
        recalibration_batches=recipe.search.proxy.recalibration_batches,
        narrowed=lambda architecture: narrowed(architecture, recipe.search.proxy),
        rungs=() if rungs is None else rungs_within(rungs, total_steps(train, len(data.train_set))),
    )


def tell_share(run: Run, data: SearchData, progress: RunProgress) -> None:
    """Print and keep the share of the space that the limits let through, from uniform draws."""
    recipe = spinenet_recipe(run.recipe)
    space = spinenet_space(recipe.space)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    if not limits.any or run.read_json("limits.json") is not None:
        return
    rng = rng_for(recipe.seed, "feasible share")
    counted = [drawn for drawn in (space.sample(rng) for _ in range(SHARE_DRAWS)) if limits(drawn) is None]
    share: dict[str, Any] = {"draws": SHARE_DRAWS, "within": len(counted), "limits": str(limits)}
    allowed = recipe.search.limits.latency
    told = f"within the limits: {len(counted) / SHARE_DRAWS:.0%} of {SHARE_DRAWS} uniform draws ({limits})"
    if allowed is not None:
        measure = _latency(run, data)
        found = {drawn.digest: measure(drawn) for drawn in counted[:LATENCY_DRAWS]}
        ratios = [float(str(one[LATENCY])) for one in found.values()]
        quick = sum(ratio <= allowed for ratio in ratios)
        share |= {"measured": found, "latency_within": quick}
        told += (
            f"; latency is not counted there: of {len(ratios)} of these that were timed {quick} are within"
        )
        told += " its limit"
        told += f" ({min(ratios):.2f} to {max(ratios):.2f} of the baseline's)" if ratios else ""
    progress.say(told)
    run.write_json("limits.json", share)


def _latency(run: Run, data: SearchData) -> LatencyRatio:
    recipe = spinenet_recipe(run.recipe)
    return LatencyRatio(
        spinenet_space(recipe.space).baseline,
        image_size=data.train_set.image_size,
        threads=recipe.threads,
        device=resolve_device(recipe.device),
    )


def _measured(run: Run, study: Study, data: SearchData) -> Measured:
    """What the share and the phases before have measured already is not measured again."""
    known: dict[str, Mapping[str, Json]] = {}
    for phase in study.phase_names():
        known |= known_latencies(study.records(phase))
    known |= (run.read_json("limits.json") or {}).get("measured", {})
    allowed = spinenet_recipe(run.recipe).search.limits.latency
    return Measured(_latency(run, data), allowed=allowed, known=known)


phase_costs = short_training_costs
"""What the phases cost; see :func:`nas.methods.costs.short_training_costs`."""
