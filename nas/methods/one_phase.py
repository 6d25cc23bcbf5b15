"""One search, no paper's: any space, any controller, any proxy, each the house's or a person's own.

Candidates within the limits are scored, trained for a short time where no other proxy is named; the best is trained
to completion beside the space's baseline.
"""

from collections.abc import Iterator
from functools import partial
from random import Random

from nas.export.source import backbone_source
from nas.methods.any_space import any_space, one_phase_recipe
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
from nas.methods.rehearsing import drawn_within, repeated
from nas.methods.searching import Searched, controller_for, phase_seed
from nas.planning import PlannedSpace, Work
from nas.progress import RunProgress, Silent
from nas.proxies.base import Proxy
from nas.proxies.own import make_own_proxy, require_own_proxy
from nas.proxies.short_training import ShortTraining
from nas.pruning import Pruning
from nas.recipes.any_space import OnePhaseRecipe
from nas.run import Run
from nas.study import Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.data.stored import Say
from trainers.detectors.pyramid import declared_levels
from trainers.loop import total_steps

DRAWS = 20
"""Uniform draws that the family is shown before anything is spent."""


def check_recipe(recipe: OnePhaseRecipe, *, source: str, say: Say | None = None) -> None:
    """Raise whatever would stop the run later, all at once; see :func:`nas.methods.checking.require_all`."""
    place = f"{source}: "
    problems = refused(place, lambda: any_space(recipe.space))
    baseline = None
    if not problems:
        space = any_space(recipe.space)
        problems = refused(f"{place}space: ", lambda: require_network(space))
        baseline = None if problems else space.baseline
        problems += refused(
            f"{place}search.controller.", lambda: controller_for(recipe.search.controller, space, 0)
        )
    problems += refused(f"{place}search.proxy.", lambda: require_own_proxy(recipe.search.proxy))
    if (rungs := recipe.search.rungs) is not None and (train := recipe.search.proxy.train) is not None:
        steps = planned_steps(recipe, train, say)
        if steps is not None:
            problems += refused(
                f"{place}search.rungs.", lambda: Pruning(rungs, total_steps=steps, phase="search")
            )
    require_all(recipe, source=source, problems=problems, baseline=baseline, say=say)


def require_network(space: SearchSpace) -> None:
    """Look at the network of a space's baseline: it can be built, keeps its word and can be exported; and at draws.

    Raises:
        ConfigError: it does not; names what was found.
    """
    try:
        baseline = space.validate(space.baseline)
        family = family_of(baseline)
        declared = {name: tuple(level) for name, level in family.levels(baseline).items()}
        built = declared_levels(family.build(baseline, seed=0))
        backbone_source(baseline)
        for index in range(DRAWS):
            drawn = space.sample(rng_for(0, "door", index))
            family_of(drawn).validate(drawn)
    except InvalidArchitecture as error:
        raise ConfigError(f"holds networks that cannot be built: {error}") from error
    if built != declared:
        raise ConfigError(
            f"the family {type(family).__name__} says that the levels of the baseline are {declared}, its network "
            f"{family.network} declares {built}; make them equal"
        )


def carry_out(run: Run, progress: RunProgress) -> Architecture:
    """Do whatever of the run is not done yet and return the winner."""
    return carry_out_search(run, progress, begin)


def begin(run: Run, data: SearchData, study: Study, progress: RunProgress) -> OneSearch:
    """The search with short trainings, or with a person's own proxy."""
    recipe = one_phase_recipe(run.recipe)
    train = recipe.search.proxy.train
    return OneSearch(
        run=run,
        data=data,
        study=study,
        space=any_space(recipe.space),
        recipe=recipe.search,
        proxy=partial(scorer, run, data),
        steps=None if train is None else total_steps(train, len(data.train_set)),
        progress=progress,
    )


def searched(run: Run, data: SearchData, study: Study) -> Iterator[Searched]:
    """The phases begun so far."""
    yield from begin(run, data, study, Silent()).begun()


def scorer(run: Run, data: SearchData, phase: str) -> Proxy:
    """The short training of a phase's candidates, or a person's own proxy for them."""
    recipe = one_phase_recipe(run.recipe)
    scored = recipe.search.proxy
    if scored.train is not None:
        return short_training(
            run, data, phase, scored.train, recalibration_batches=scored.recalibration_batches
        )
    # Not the seed of the phase: random search and the controller are compared under one and the same proxy.
    return make_own_proxy(
        scored,
        space=any_space(recipe.space),
        train_set=data.train_set,
        held_out=data.held_out,
        detector=recipe.detector,
        seed=phase_seed(run, "search"),
        directory=run.directory / phase,
        device=recipe.device,
    )


def foreseen(run: Run, data: SearchData) -> Iterator[PlannedSpace | Work]:
    """What the search and its random rival search and take."""
    recipe, size = one_phase_recipe(run.recipe), data.train_set.image_size
    space, train = any_space(recipe.space), recipe.search.proxy.train
    images = 0.0 if train is None else total_steps(train, len(data.train_set)) * train.batch_size * train.area
    yield from foreseen_phases(
        run,
        planned_phases(recipe, space, recipe.search),
        Limits(space, recipe.search.limits, size),
        macs=None if train is None else lambda one: 3.0 * images * cost(one, size).macs,
        at_most=recipe.search.rungs is not None,
    )


def rehearse(run: Run, data: SearchData, work: str, seconds: float, rng: Random) -> list[float]:
    """Seconds of short trainings of candidates within the limits, or of calls of a person's own proxy."""
    recipe, proxy = one_phase_recipe(run.recipe), scorer(run, data, work.partition(": ")[0])
    space = any_space(recipe.space)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    if isinstance(proxy, ShortTraining):
        return rehearse_trainings(proxy, space, limits, seconds, rng)
    draws = drawn_within(space, limits, rng)
    return repeated(lambda: proxy(next(draws)), seconds)
