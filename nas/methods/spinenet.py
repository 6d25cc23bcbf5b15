"""SpineNet from images to a trained backbone (Du et al. 2020, arXiv 1912.05027, section 5.1).

A controller proposes whole networks; those within the limits are trained for a short time and scored on held-out
images; the best is trained to completion beside the baseline. Every step is skipped when its result is in the
run directory, so carrying out a run and resuming it are one function.
"""

from nas.methods.checking import refused, require_all
from nas.methods.costs import short_training_costs
from nas.methods.searching import SearchData, controller_for, finish, open_data, phase_seed, search_phase
from nas.methods.spinenet_space import Limits, narrowed, require_narrow, spinenet_recipe, spinenet_space
from nas.progress import RunProgress
from nas.proxies.short_training import ShortTraining
from nas.recipe import ControllerRecipe, SpineNetRecipe
from nas.run import Run
from nas.study import Study
from search_spaces.architecture import Architecture
from search_spaces.errors import RunError
from search_spaces.randomness import rng_for

TRIES = 100
"""Draws for each candidate of the random rival, where the limits reject most of the space."""
SHARE_DRAWS = 500
"""Uniform draws for the printed share of the space that the limits let through."""


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
    require_all(recipe, source=source, problems=problems, baseline=baseline)


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
    """The rival: as many uniform draws within the limits, trained as the search's candidates were."""
    space = spinenet_space(spinenet_recipe(run.recipe).space)

    def trained(phase: str) -> int:
        history = study.phase(phase, space, seed=phase_seed(run, phase)).history()
        return sum(record.state != "pruned" for record in history)

    wanted = budget = trained("search")
    while True:
        controller = ControllerRecipe(name="random", budget=budget)
        try:
            winner = _search(run, study, data, "random", controller, progress)
        except RunError:
            # All of the first draws may be outside of the limits.
            if trained("random") or budget > TRIES * wanted:
                raise
            budget += wanted
            continue
        missing = wanted - trained("random")
        if missing <= 0 or budget > TRIES * wanted:
            return winner
        budget += missing


def _search(
    run: Run, study: Study, data: SearchData, name: str, controller: ControllerRecipe, progress: RunProgress
) -> Architecture:
    recipe = spinenet_recipe(run.recipe)
    space = spinenet_space(recipe.space)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    return search_phase(
        run,
        study,
        name,
        space=space,
        recipe=controller,
        proxy=lambda: _proxy(run, name, data),
        progress=progress,
        limits=limits,
    )


def _proxy(run: Run, phase: str, data: SearchData) -> ShortTraining:
    recipe = spinenet_recipe(run.recipe)
    return ShortTraining(
        train_set=data.train_set,
        held_out=data.held_out,
        detector=recipe.detector,
        train=recipe.search.proxy.train,
        # Not that of the phase: random search and the controller are compared under one and the same proxy.
        seed=phase_seed(run, "search"),
        directory=run.directory / phase,
        device=recipe.device,
        narrowed=lambda architecture: narrowed(architecture, recipe.search.proxy),
    )


def tell_share(run: Run, data: SearchData, progress: RunProgress) -> None:
    """Print and keep the share of the space that the limits let through, from uniform draws."""
    recipe = spinenet_recipe(run.recipe)
    space = spinenet_space(recipe.space)
    limits = Limits(space, recipe.search.limits, data.train_set.image_size)
    if not limits.any or run.read_json("limits.json") is not None:
        return
    rng = rng_for(recipe.seed, "feasible share")
    within = sum(limits(space.sample(rng)) is None for _ in range(SHARE_DRAWS))
    progress.say(f"within the limits: {within / SHARE_DRAWS:.0%} of {SHARE_DRAWS} uniform draws ({limits})")
    run.write_json("limits.json", {"draws": SHARE_DRAWS, "within": within, "limits": str(limits)})


phase_costs = short_training_costs
"""What the phases cost; see :func:`nas.methods.costs.short_training_costs`."""
