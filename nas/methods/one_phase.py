"""One phase, no paper's: any space, any controller, any proxy, each the house's or a person's own.

Candidates within the limits are scored, trained for a short time where no other proxy is named; the best is trained
to completion beside the space's baseline. Every step is skipped when its result is in the run directory, so carrying
out a run and resuming it are one function.
"""

from collections.abc import Mapping

from nas.export.source import backbone_source
from nas.methods.any_space import CostLimits, any_space, one_phase_recipe
from nas.methods.checking import refused, require_all
from nas.methods.searching import SearchData, controller_for, finish, open_data, phase_seed, search_phase
from nas.progress import RunProgress
from nas.proxies.base import Proxy
from nas.proxies.own import make_own_proxy, require_own_proxy
from nas.proxies.short_training import ShortTraining
from nas.recipe import ControllerRecipe, OnePhaseRecipe
from nas.report.data import PhaseCost
from nas.run import Run
from nas.show import scoring_seconds
from nas.study import History, Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.detectors.pyramid import declared_levels

TRIES = 100
"""Draws for each candidate of the random rival, where the limits reject most of the space."""
DRAWS = 20
"""Uniform draws that the family is shown before anything is spent."""
SHARE_DRAWS = 500
"""Uniform draws for the printed share of the space that the limits let through."""


def check_recipe(recipe: OnePhaseRecipe, *, source: str) -> None:
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
    require_all(recipe, source=source, problems=problems, baseline=baseline)


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
    recipe = one_phase_recipe(run.recipe)
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
    """The rival: as many uniform draws within the limits, scored by the same proxy."""
    space = any_space(one_phase_recipe(run.recipe).space)

    def scored(phase: str) -> int:
        history = study.phase(phase, space, seed=phase_seed(run, phase)).history()
        return sum(record.state != "pruned" for record in history)

    wanted = budget = min(scored("search"), space.size)
    while True:
        controller = ControllerRecipe(name="random", budget=budget)
        try:
            winner = _search(run, study, data, "random", controller, progress)
        except RunError:
            # All of the first draws may be outside of the limits.
            if scored("random") or budget > TRIES * wanted:
                raise
            budget += wanted
            continue
        missing = wanted - scored("random")
        if missing <= 0 or budget > TRIES * wanted:
            return winner
        budget += missing


def tell_share(run: Run, data: SearchData, progress: RunProgress) -> None:
    """Print and keep the share of the space that the limits let through, from uniform draws."""
    recipe = one_phase_recipe(run.recipe)
    space = any_space(recipe.space)
    limits = CostLimits(space, recipe.search.limits, data.train_set.image_size)
    if not limits.any or run.read_json("limits.json") is not None:
        return
    rng = rng_for(recipe.seed, "feasible share")
    within = sum(limits(space.sample(rng)) is None for _ in range(SHARE_DRAWS))
    progress.say(f"within the limits: {within / SHARE_DRAWS:.0%} of {SHARE_DRAWS} uniform draws ({limits})")
    run.write_json("limits.json", {"draws": SHARE_DRAWS, "within": within, "limits": str(limits)})


def phase_costs(run: Run, trials: Mapping[str, History], size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """Seconds, images trained on and backbone multiply-adds of each phase.

    A proxy of a person's own counts as far as it says: ``images`` and ``seconds`` among a score's attributes.

    Args:
        run: finished or not.
        trials: of every phase.
        size: (height, width) of the images, px.
    """
    del run
    costs = []
    for name, history in trials.items():
        images = macs = 0
        for record in history:
            count = record.attributes.get("images", 0)
            if isinstance(count, int) and isinstance(record.candidate, Architecture):
                images += count
                macs += 3 * count * cost(record.candidate, size).macs
        seconds = round(sum(scoring_seconds(record) for record in history), 1)
        costs.append(
            PhaseCost(name=f"{name}: scoring", seconds=seconds, images=images, macs=macs, trials=len(history))
        )
    return tuple(costs)


def _search(
    run: Run, study: Study, data: SearchData, name: str, controller: ControllerRecipe, progress: RunProgress
) -> Architecture:
    recipe = one_phase_recipe(run.recipe)
    space = any_space(recipe.space)
    return search_phase(
        run,
        study,
        name,
        space=space,
        recipe=controller,
        proxy=lambda: _proxy(run, name, space, data),
        progress=progress,
        limits=CostLimits(space, recipe.search.limits, data.train_set.image_size),
    )


def _proxy(run: Run, phase: str, space: SearchSpace, data: SearchData) -> Proxy:
    recipe = one_phase_recipe(run.recipe)
    # Not the seed of the phase: random search and the controller are compared under one and the same proxy.
    seed, directory = phase_seed(run, "search"), run.directory / phase
    if recipe.search.proxy.train is None:
        return make_own_proxy(
            recipe.search.proxy,
            space=space,
            train_set=data.train_set,
            held_out=data.held_out,
            detector=recipe.detector,
            seed=seed,
            directory=directory,
            device=recipe.device,
        )
    return ShortTraining(
        train_set=data.train_set,
        held_out=data.held_out,
        detector=recipe.detector,
        train=recipe.search.proxy.train,
        seed=seed,
        directory=directory,
        device=recipe.device,
    )
