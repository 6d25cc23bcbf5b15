"""SpineNet from images to a trained backbone (Du et al. 2020, arXiv 1912.05027, section 5.1).

A controller proposes whole networks; those within the limits are trained for a short time, narrower, and scored on
held-out images; the best is trained to completion beside the baseline.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from nas.methods.checking import refused, require_all
from nas.methods.data import SearchData
from nas.methods.limits import Limits
from nas.methods.one_search import (
    OneSearch,
    carry_out_search,
    foreseen_phases,
    planned_phases,
    planned_steps,
    rehearse_trainings,
    short_training,
)
from nas.methods.searching import Searched, controller_for
from nas.methods.spinenet_ablations import ablations, order_space, searched_orders
from nas.methods.spinenet_space import narrowed, require_narrow, spinenet_recipe, spinenet_space
from nas.planning import PlannedSpace, Work
from nas.progress import RunProgress, Silent
from nas.proxies.short_training import ShortTraining
from nas.pruning import Pruning
from nas.recipes.controller import ControllerRecipe
from nas.recipes.spinenet import SpineNetRecipe
from nas.run import Run
from nas.study import Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.space import SearchSpace
from trainers.data.stored import Say
from trainers.loop import total_steps


def check_recipe(recipe: SpineNetRecipe, *, source: str, say: Say | None = None) -> None:
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
        for name in recipe.ablations.orders if recipe.ablations is not None else ():
            problems += refused(f"{place}ablations.", partial(order_space, recipe, name))
        if recipe.ablations is not None and (controller := recipe.ablations.controller) is not None:
            problems += refused(f"{place}ablations.controller.", lambda: controller_for(controller, space, 0))
    steps = planned_steps(recipe, recipe.search.proxy.train, say)
    if (rungs := recipe.search.rungs) is not None and steps is not None:
        problems += refused(
            f"{place}search.rungs.", lambda: Pruning(rungs, total_steps=steps, phase="search")
        )
    require_all(recipe, source=source, problems=problems, baseline=baseline, say=say)


def carry_out(run: Run, progress: RunProgress) -> Architecture:
    """Do whatever of the run is not done yet and return the winner."""
    return carry_out_search(run, progress, begin, ablations)


def begin(run: Run, data: SearchData, study: Study, progress: RunProgress) -> OneSearch:
    """SpineNet's search: the narrow relative of each candidate is trained in its place."""
    recipe = spinenet_recipe(run.recipe)
    return OneSearch(
        run=run,
        data=data,
        study=study,
        space=spinenet_space(recipe.space),
        recipe=recipe.search,
        proxy=partial(scorer, run, data),
        steps=total_steps(recipe.search.proxy.train, len(data.train_set)),
        progress=progress,
    )


def searched(run: Run, data: SearchData, study: Study) -> Iterator[Searched]:
    """The phases begun so far."""
    search = begin(run, data, study, Silent())
    yield from search.begun()
    yield from searched_orders(search)


def scorer(run: Run, data: SearchData, phase: str) -> ShortTraining:
    """The short training of a phase's candidates."""
    short = spinenet_recipe(run.recipe).search.proxy
    return short_training(
        run,
        data,
        phase,
        short.train,
        recalibration_batches=short.recalibration_batches,
        narrowed=lambda architecture: narrowed(architecture, short),
    )


def foreseen(run: Run, data: SearchData) -> Iterator[PlannedSpace | Work]:
    """What the phases search and take: the search, its random rival, the ablations' orders."""
    recipe, size = spinenet_recipe(run.recipe), data.train_set.image_size
    space, short = spinenet_space(recipe.space), recipe.search.proxy
    phases: dict[str, tuple[SearchSpace, ControllerRecipe]] = planned_phases(recipe, space, recipe.search)
    if recipe.ablations is not None and (controller := recipe.ablations.controller) is not None:
        phases |= {name: (order_space(recipe, name), controller) for name in recipe.ablations.orders}
    images = total_steps(short.train, len(data.train_set)) * short.train.batch_size
    yield from foreseen_phases(
        run,
        phases,
        Limits(space, recipe.search.limits, size),
        macs=lambda one: 3.0 * images * short.train.area * cost(narrowed(one, short), size).macs,
        at_most=recipe.search.rungs is not None,
    )


def rehearse(run: Run, data: SearchData, work: str, seconds: float, rng: Random) -> list[float]:
    """Seconds of short trainings of candidates within the limits."""
    recipe, phase = spinenet_recipe(run.recipe), work.partition(": ")[0]
    space = spinenet_space(recipe.space) if phase in ("search", "random") else order_space(recipe, phase)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    return rehearse_trainings(scorer(run, data, phase), space, limits, seconds, rng)


def worker_files(run: Run, phase: str) -> list[Path]:
    """Nothing but the recipe: every candidate is trained from scratch."""
    del run, phase
    return []
