"""CR-NAS from images to a trained backbone (Liang et al. 2020, section 3.3): read :func:`carry_out` first.

Every step is skipped when its result is in the run directory, so carrying out a run and resuming it are
one function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import torch

from nas.controllers.base import DONE, Controller
from nas.controllers.catalog import make_controller
from nas.methods.catalog import baseline_of
from nas.methods.checking import refused, require_all
from nas.methods.exporting import export_winner
from nas.methods.reporting import starved_level, write_report
from nas.methods.retraining import retrain_all
from nas.methods.spaces import allocation, crnas_recipe, dilation_space, stage_space
from nas.progress import RunProgress
from nas.proxies.supernet import SupernetProxy
from nas.recipe import ControllerRecipe, CRNASRecipe
from nas.run import FINISHED, Run
from nas.search import search
from nas.show import short_text
from nas.study import History, Record, Study
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.stages import StageSpace
from search_spaces.crnas.supernet import DilationSupernet, StageSupernet, Supernet
from search_spaces.errors import RunError
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out
from trainers.detectors.catalog import build_detector
from trainers.loop import resolve_device


@dataclass(frozen=True, kw_only=True)
class SearchData:
    """The training split in its two parts; ``val`` is not here, it is for the final table only."""

    train_set: DetectionSet
    held_out: DetectionSet


def check_recipe(recipe: CRNASRecipe, *, source: str) -> None:
    """Raise whatever would stop the run later, all at once; see :func:`nas.methods.checking.require_all`."""
    place = f"{source}: "
    problems = refused(place, lambda: stage_space(recipe.space))
    baseline = None
    if not problems:
        problems, baseline = _refused_controllers(recipe, place), baseline_of(recipe)
    require_all(recipe, source=source, problems=problems, baseline=baseline)


def _refused_controllers(recipe: CRNASRecipe, place: str) -> list[str]:
    space = stage_space(recipe.space)
    phases: list[tuple[str, SearchSpace, ControllerRecipe]] = [("stages", space, recipe.stages.controller)]
    if recipe.dilations is not None:
        phases.append(("dilations", dilation_space(space.baseline), recipe.dilations.controller))
    return [
        line
        for name, searched, controller in phases
        for line in refused(f"{place}{name}.controller.", partial(_controller, controller, searched, 0))
    ]


def _controller(recipe: ControllerRecipe, space: SearchSpace, seed: int) -> Controller:
    return make_controller(recipe.name, space=space, seed=seed, budget=recipe.budget, options=recipe.options)


def carry_out(run: Run, progress: RunProgress) -> Architecture:
    """Do whatever of the run is not done yet and return the winner."""
    recipe = crnas_recipe(run.recipe)
    torch.set_num_threads(recipe.threads)
    run.record_environment()
    train_set, held_out = hold_out(open_split(recipe.data, "train"), recipe.data.hold_out, run.split_seed)
    data = SearchData(train_set=train_set, held_out=held_out)
    record_data(run, data, progress)
    with Study.open(run.directory, recipe.storage) as study:
        allocation = search_stages(run, study, data, progress)
        winner = search_dilations(run, study, data, allocation, progress)
        rivals = {"stages": allocation}
        if recipe.retrain is not None and "random" in recipe.retrain.rivals:
            rivals["random"] = search_at_random(run, study, data, allocation, progress)
        run.write_winner(winner, rivals, baseline_of(recipe))

        # Inside, because the open study keeps a second process from training the same networks.
        retrain_all(run, winner, rivals, progress)
        export_winner(run, winner)
        run.write_json(FINISHED, {"winner": winner.digest})
        write_report(run, progress)
    return winner


def record_data(run: Run, data: SearchData, progress: RunProgress) -> None:
    """List which images were held out and what the levels have to learn, so that anyone can check.

    Raises:
        RunError: the images are not those that the run began with.
    """
    before = run.read_json("data.json")
    digests = {"train": data.train_set.digest, "held_out": data.held_out.digest}
    if before is not None and before["digest"] != digests:
        raise RunError(
            f"{run.directory} began with other images or annotations (digest {before['digest']['train']}, now "
            f"{digests['train']}); restore them, or start a new run with: nas search RECIPE --run NEW_DIR"
        )
    baseline = baseline_of(run.recipe)
    detector = build_detector(
        run.recipe.detector,
        family_of(baseline).build(baseline, seed=0),
        data.train_set.num_classes,
        data.train_set.image_size,
        seed=0,
    )
    by_level = detector.objects_by_level(data.train_set.targets, data.train_set.image_size)
    if by_level:
        progress.say("objects by level: " + ", ".join(f"{name} {count}" for name, count in by_level.items()))
    for name in (name for name, count in by_level.items() if count == 0):
        progress.say(f"warning: {starved_level(name)}")
    run.write_json(
        "data.json",
        {
            "objects_by_level": by_level,
            "digest": digests,
            "image_size": list(data.train_set.image_size),
            "categories": [category.name for category in data.train_set.categories],
            "train": list(data.train_set.file_names),
            "held_out": list(data.held_out.file_names),
            "objects": {"train": data.train_set.num_objects, "held_out": data.held_out.num_objects},
            "skipped": list(data.train_set.skipped),
        },
    )


def search_stages(run: Run, study: Study, data: SearchData, progress: RunProgress) -> Architecture:
    """Step 1: the best allocation of blocks to stages (section 3.2.1)."""
    recipe = crnas_recipe(run.recipe)
    space = stage_space(recipe.space)
    return _search(
        run, study, "stages", space, recipe.stages.controller, lambda: _stage_proxy(run, data), progress
    )


def search_dilations(
    run: Run, study: Study, data: SearchData, allocation: Architecture, progress: RunProgress
) -> Architecture:
    """Step 2: the best dilation of every block of that allocation (section 3.2.2, Algorithm 1)."""
    recipe = crnas_recipe(run.recipe).dilations
    if recipe is None:
        return allocation
    space = dilation_space(allocation)
    return _search(
        run, study, "dilations", space, recipe.controller, lambda: _dilation_proxy(run, space, data), progress
    )


def search_at_random(
    run: Run, study: Study, data: SearchData, allocation: Architecture, progress: RunProgress
) -> Architecture:
    """The rival: as many dilation lists drawn uniformly, scored by the same supernet."""
    space = dilation_space(allocation)
    spent = len(study.phase("dilations", space, seed=_seed(run, "dilations")).history())
    controller = ControllerRecipe(name="random", budget=min(spent, space.size))
    return _search(
        run, study, "random", space, controller, lambda: _dilation_proxy(run, space, data), progress
    )


def any_allocation(space: StageSpace, rng: Random) -> Architecture:
    """One branch a stage, uniformly; the block budget is for the search, not for training (section 3.2)."""
    return allocation(space.baseline, [rng.choice(counts) for counts in space.branches])


def _stage_proxy(run: Run, data: SearchData) -> SupernetProxy:
    recipe = crnas_recipe(run.recipe)
    space = stage_space(recipe.space)
    supernet = StageSupernet(
        settings=space.baseline.settings,
        family=space.baseline.family,
        branches=space.branches,
        sharing=recipe.stages.supernet.sharing,
        seed=seed_for(_seed(run, "stages"), "weights"),
    )
    return _proxy(run, "stages", space, supernet, lambda rng: any_allocation(space, rng), data)


def _dilation_proxy(run: Run, space: DilationSpace, data: SearchData) -> SupernetProxy:
    supernet = DilationSupernet(space.baseline, seed=seed_for(_seed(run, "dilations"), "weights"))
    proxy = _proxy(run, "dilations", space, supernet, space.sample, data)
    recipe = crnas_recipe(run.recipe).dilations
    if recipe is not None and recipe.supernet.inherit:
        donor = _stage_proxy(run, data)
        donor.prepare()  # trained already: this only reads its checkpoint
        assert isinstance(donor.supernet, StageSupernet)
        supernet.inherit(donor.supernet.slice(space.baseline))
        proxy.detector.load_around_body(donor.detector)
    return proxy


def _proxy(
    run: Run,
    phase: str,
    space: SearchSpace,
    supernet: Supernet,
    sample_path: Callable[[Random], Architecture],
    data: SearchData,
) -> SupernetProxy:
    recipe = crnas_recipe(run.recipe)
    settings = (recipe.stages if phase == "stages" else recipe.dilations or recipe.stages).supernet
    seed = _seed(run, phase)
    detector = build_detector(
        recipe.detector, supernet, data.train_set.num_classes, data.train_set.image_size, seed=seed
    )
    return SupernetProxy(
        space=space,
        sample_path=sample_path,
        supernet=supernet,
        detector=detector,
        train_set=data.train_set,
        held_out=data.held_out,
        recipe=settings,
        seed=seed,
        directory=run.directory / phase,
        device=resolve_device(recipe.device),
    )


def _search(
    run: Run,
    study: Study,
    name: str,
    space: SearchSpace,
    recipe: ControllerRecipe,
    proxy: Callable[[], SupernetProxy],
    progress: RunProgress,
) -> Architecture:
    """Train the phase's supernet unless its search is over already, then ask, score, tell."""
    seed = _seed(run, name)
    phase = study.phase(name, space, seed=seed)
    controller = _controller(recipe, space, seed)
    history = phase.history()
    total = expected_trials(recipe, space)
    progress.phase(f"{name}: search", total, done=len(history))
    if any(record.state == "running" for record in history) or controller.ask(history) is not DONE:
        scorer = proxy()
        progress.phase(f"{name}: supernet training", scorer.total_steps)
        scorer.prepare(lambda step: progress.advance(step.step + 1, f"loss {step.loss:.3f}"))
        progress.phase(f"{name}: search", total, done=len(history))

        def report(record: Record, history: History) -> None:
            values = [seen.value for seen in history if seen.value is not None]
            best = f"best {max(values):.2f}" if values else "nothing scored yet"
            progress.advance(len(history), f"{short_text(record.candidate)} {_outcome(record)}, {best}")

        winner = search(phase=phase, controller=controller, score=scorer, on_trial=report)
    else:
        found = controller.winner(history)
        assert found is not None, "a finished search has a winner, else search() would have raised"
        winner = found
    progress.say(f"  {name}: {short_text(winner)}")
    return winner


def expected_trials(recipe: ControllerRecipe, space: SearchSpace) -> int | None:
    """How many trials a phase will have, for the progress bar; None where only the search will tell."""
    if recipe.name == "exhaustive":
        return space.size
    if recipe.name == "greedy":
        beam, survivors, total = recipe.options.get("beam", 3), 1, 0
        assert isinstance(beam, int), "checked when the controller was made"
        for gene in space.genes.values():
            total += survivors * gene.size
            survivors = min(beam, survivors * gene.size)
        return total
    return recipe.budget


def _outcome(record: Record) -> str:
    return f"{record.value:.2f} AP" if record.value is not None else f"{record.state}: {record.reason}"


def _seed(run: Run, phase: str) -> int:
    return seed_for(run.recipe.seed, phase)
