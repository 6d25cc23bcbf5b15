"""CR-NAS from images to a trained backbone (Liang et al. 2020, section 3.3): read :func:`carry_out` first.

Every step is skipped when its result is in the run directory, so carrying out a run and resuming it are
one function.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

from nas.choosing import MEAN_RANK
from nas.methods.catalog import baseline_of
from nas.methods.checking import refused, require_all
from nas.methods.costs import mean_path_macs
from nas.methods.crnas_supernets import (
    directory_of,
    members_of,
    phase_recipe,
    supernets,
    together,
)
from nas.methods.data import SearchData, require_parts
from nas.methods.rehearsing import repeated, seconds_a_step
from nas.methods.searching import (
    Searched,
    beam_of,
    controller_for,
    expected_trials,
    finish,
    opened,
    phase_seed,
    search_phase,
)
from nas.methods.spaces import crnas_recipe, dilation_space, stage_space
from nas.planning import LEAST, PlannedSpace, Work
from nas.progress import RunProgress
from nas.proxies.base import Proxy
from nas.proxies.supernet import SupernetProxy
from nas.proxies.zero_cost import IMAGES, first_images
from nas.racing import Race
from nas.recipes.controller import ControllerRecipe
from nas.recipes.crnas import CRNASRecipe, PhaseRecipe
from nas.run import Run
from nas.study import Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace
from trainers.data.stored import Say
from trainers.loop import CHECKPOINT, StepRecord, total_steps

HELD_OUT = "held_out.json"
"""The images that a further supernet of a phase holds out, in its directory; the first one's are in ``data.json``."""
ALLOCATION = "dilations/allocation.json"
"""The winner of the first step, for workers, which never open the study."""


def check_recipe(recipe: CRNASRecipe, *, source: str, say: Say | None = None) -> None:
    """Raise whatever would stop the run later, all at once; see :func:`nas.methods.checking.require_all`."""
    place = f"{source}: "
    problems = refused(place, lambda: stage_space(recipe.space))
    baseline = None
    if not problems:
        problems, baseline = _refused_controllers(recipe, place), baseline_of(recipe)
    require_all(recipe, source=source, problems=problems, baseline=baseline, say=say)


def _refused_controllers(recipe: CRNASRecipe, place: str) -> list[str]:
    space = stage_space(recipe.space)
    phases: list[tuple[str, SearchSpace, ControllerRecipe]] = [("stages", space, recipe.stages.controller)]
    if recipe.dilations is not None:
        phases.append(("dilations", dilation_space(space.baseline), recipe.dilations.controller))
    return [
        line
        for name, searched, controller in phases
        for line in refused(f"{place}{name}.controller.", partial(controller_for, controller, searched, 0))
    ]


def carry_out(run: Run, progress: RunProgress) -> Architecture:
    """Do whatever of the run is not done yet and return the winner."""
    with opened(run, progress) as (data, study, progress):
        require_races(run, data)
        require_images(run, data)
        allocation = search_stages(run, study, data, progress)
        winner = search_dilations(run, study, data, allocation, progress)
        rivals = {"stages": allocation}
        if run.recipe.retrain is not None and "random" in run.recipe.retrain.rivals:
            rivals["random"] = search_at_random(run, study, data, allocation, progress)
        finish(run, winner, rivals, progress)
    return winner


def search_stages(run: Run, study: Study, data: SearchData, progress: RunProgress) -> Architecture:
    """Step 1: the best allocation of blocks to stages (section 3.2.1)."""
    _followed(run, "stages", progress)
    return search_phase(
        run,
        study,
        data,
        stages(run, data),
        proxy=lambda: _trained(run, supernets(run, data), "stages", progress),
        progress=progress,
    )


def search_dilations(
    run: Run, study: Study, data: SearchData, allocation: Architecture, progress: RunProgress
) -> Architecture:
    """Step 2: the best dilation of every block of that allocation (section 3.2.2, Algorithm 1)."""
    recipe = crnas_recipe(run.recipe).dilations
    if recipe is None:
        return allocation
    run.write_json(ALLOCATION, {"architecture": allocation.to_dict()})
    return _search_lists(run, study, data, "dilations", allocation, recipe.controller, progress)


def search_at_random(
    run: Run, study: Study, data: SearchData, allocation: Architecture, progress: RunProgress
) -> Architecture:
    """The rival: as many dilation lists drawn uniformly, scored by the same supernet."""
    spent = len(study.phase("dilations", dilation_space(allocation), phase_seed(run, "dilations")).history())
    return _search_lists(run, study, data, "random", allocation, drawn(allocation, spent), progress)


def _search_lists(
    run: Run,
    study: Study,
    data: SearchData,
    phase: str,
    allocation: Architecture,
    controller: ControllerRecipe,
    progress: RunProgress,
) -> Architecture:
    space = dilation_space(allocation)
    _followed(run, "dilations", progress)
    return search_phase(
        run,
        study,
        data,
        lists(run, data, phase, space, controller),
        proxy=lambda: _trained(run, supernets(run, data, space), "dilations", progress),
        progress=progress,
    )


def stages(run: Run, data: SearchData | None = None) -> Searched:
    """The first phase; with its race where the images are known."""
    recipe = crnas_recipe(run.recipe)
    return Searched(
        phase="stages",
        space=stage_space(recipe.space),
        controller=recipe.stages.controller,
        pruning=None if data is None else race(recipe.stages, recipe.stages.controller, data),
        by_mean_rank=recipe.stages.choose_by == MEAN_RANK,
    )


def lists(
    run: Run, data: SearchData, phase: str, space: DilationSpace, controller: ControllerRecipe
) -> Searched:
    """The second phase, or its rival."""
    recipe = crnas_recipe(run.recipe).dilations
    assert recipe is not None, "else nobody searches dilations"
    pruning = race(recipe, controller, data)
    return Searched(phase=phase, space=space, controller=controller, pruning=pruning)


def race(recipe: PhaseRecipe, controller: ControllerRecipe, data: SearchData) -> Race | None:
    """The race of a phase, if it has one; a greedy controller goes on from the best of a level.

    Raises:
        ConfigError: its first rung holds all held-out images.
    """
    if recipe.race is None:
        return None
    return Race(
        recipe.race,
        images=len(data.held_out),
        mini_batch=recipe.supernet.score_batch,
        keep=beam_of(controller),
    )


def require_races(run: Run, data: SearchData) -> None:
    """Refuse a race that cannot be run, before anything is spent.

    Raises:
        ConfigError: names the field.
    """
    recipe = crnas_recipe(run.recipe)
    for name, phase in (("stages", recipe.stages), ("dilations", recipe.dilations)):
        if phase is not None:
            problems = refused(f"{name}.race.", partial(race, phase, phase.controller, data))
            if problems:
                raise ConfigError("\n".join(problems))


def require_images(run: Run, data: SearchData) -> None:
    """Refuse images that cannot do what the recipe asks of them, before anything is spent.

    Raises:
        ConfigError: they say nothing of a network by its NASWOT; names the field.
        DataError: what one of several supernets learns from, or holds out, has no object.
    """
    for member in range(1, max(members_of(run, phase) for phase in ("stages", "dilations"))):
        require_parts(data, member, run.split_seed)
    if crnas_recipe(run.recipe).stages.choose_by == MEAN_RANK and len(first_images(data.train_set)) < 2:
        raise ConfigError(
            f"stages.choose_by: found 'mean_rank'; allowed for {len(data.train_set)} images to learn from, of which no "
            "two differ, is score, for NASWOT says how networks tell images apart; or add other images"
        )


def drawn(allocation: Architecture, spent: int) -> ControllerRecipe:
    """As many dilation lists of an allocation by chance, as far as there are so many."""
    return ControllerRecipe(name="random", budget=min(spent, dilation_space(allocation).size))


def searched(run: Run, data: SearchData, study: Study) -> Iterator[Searched]:
    """The phases begun so far."""
    begun, first = study.phase_names(), stages(run, data)
    allocation = first.controller_of(run).winner(study.records("stages"))
    yield first
    recipe = crnas_recipe(run.recipe).dilations
    if allocation is None or recipe is None:
        return
    space = dilation_space(allocation)
    if "dilations" in begun:
        yield lists(run, data, "dilations", space, recipe.controller)
    if "random" in begun:
        spent = len(study.records("dilations"))
        yield lists(run, data, "random", space, drawn(allocation, spent))


def _followed(run: Run, phase: str, progress: RunProgress) -> None:
    for member in range(members_of(run, phase)):
        progress.training(directory_of(run, phase, member))


def _trained(run: Run, members: Sequence[SupernetProxy], phase: str, progress: RunProgress) -> Proxy:
    title = f"{phase}: supernet training"
    progress.phase(title, sum(one.total_steps for one in members))
    with run.books.activity(title, devices=float(members[0].device.type != "cpu")):
        before = 0
        for number, member in enumerate(members, start=1):
            whose = "" if len(members) == 1 else f"supernet {number} of {len(members)}, "

            def stepped(step: StepRecord, before: int = before, whose: str = whose) -> None:
                progress.advance(before + step.step + 1, f"{whose}loss {step.loss:.3f}")

            if number > 1:
                run.write_json(
                    str((member.directory / HELD_OUT).relative_to(run.directory)),
                    {"held_out": list(member.held_out.file_names)},
                )
            member.prepare(stepped, progress.say)
            before += member.total_steps
    return together(members)


def scorer(run: Run, data: SearchData, phase: str) -> Proxy:
    """The proxy of a phase whose supernets are trained."""
    space = None
    if phase != "stages":
        facts = run.read_json(ALLOCATION)
        assert facts is not None, "written before the second step begins"
        space = dilation_space(Architecture.from_dict(facts["architecture"]))
    proxy = together(supernets(run, data, space, trained=True))
    proxy.load()
    return proxy


def worker_files(run: Run, phase: str) -> list[Path]:
    """What :func:`scorer` reads in the run's directory."""
    # The rival of the dilations is scored by their supernets.
    own = "stages" if phase == "stages" else "dilations"
    weights = [directory_of(run, own, one) / CHECKPOINT for one in range(members_of(run, own))]
    return weights if phase == "stages" else [run.directory / ALLOCATION, *weights]


def foreseen(run: Run, data: SearchData) -> Iterator[PlannedSpace | Work]:
    """What the steps search and what they take; of the second the baseline's allocation stands for the winner's."""
    require_races(run, data)
    require_images(run, data)
    recipe, first = crnas_recipe(run.recipe), stages(run)
    size, macs = data.train_set.image_size, cost(first.space.baseline, data.train_set.image_size).macs
    steps = [("stages", first.space, recipe.stages, mean_path_macs(run, size))]
    if recipe.dilations is not None:
        steps.append(("dilations", dilation_space(first.space.baseline), recipe.dilations, macs))
    for name, space, phase, path in steps:
        yield PlannedSpace(name=name, space=space)
        train, count = phase.supernet.train, expected_trials(phase.controller, space)
        batch, members = min(train.batch_size, len(data.train_set)), phase.supernet.members
        yield Work(
            name=f"{name}: supernet training",
            count=members * total_steps(train, len(data.train_set)),
            unit="steps",
            by="driver",
            macs=3.0 * train.batch_size * train.area * path,
        )
        # Every rung of a race begins again.
        raced = race(phase, phase.controller, data)
        rungs = () if raced is None else tuple(raced.rungs)
        recalibration = phase.supernet.recalibration_batches * batch
        looked_at = members * (sum((*rungs, len(data.held_out))) + (1 + len(rungs)) * recalibration)
        by_rank = phase.choose_by == MEAN_RANK
        if by_rank:
            looked_at += min(IMAGES, len(data.train_set))
        searches = [name]
        if name == "dilations" and recipe.retrain is not None and "random" in recipe.retrain.rivals:
            searches.append("random")
        for one in searches:
            yield Work(
                name=f"{one}: scoring",
                count=count,
                unit="candidates",
                by="engine",
                macs=float(looked_at * macs),
                like=f"{name}: scoring",
                # A greedy search that ends early has no whole network to show, and a rank is one among all.
                least=None if phase.controller.name == "greedy" or by_rank or one == "random" else LEAST,
                trials=count,
                at_most=bool(rungs),
                exhaustive=phase.controller.name == "exhaustive" and one != "random",
            )


def rehearse(run: Run, data: SearchData, work: str, seconds: float, rng: Random) -> list[float]:
    """Seconds of steps of a supernet's training, or of the scoring of candidates with one that has learned little."""
    phase, _, what = work.partition(": ")
    space = None if phase == "stages" else dilation_space(stages(run).space.baseline)
    members = supernets(run, data, space, trained=True)
    first, proxy = members[0], together(members)
    if what == "supernet training":
        return [seconds_a_step(first.trainer(None), seconds)]
    recipe = phase_recipe(run, phase)
    raced = race(recipe, recipe.controller, data)

    def scored() -> None:
        candidate = first.space.sample(rng)
        for step in () if raced is None else raced.rungs:
            # A race has one supernet.
            first.at(candidate, step)
        proxy(candidate)

    return repeated(scored, seconds)
