"""What the searches of all methods share: the data in its two parts, one phase, the end of a run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from nas.controllers.base import DONE, Controller, Done
from nas.controllers.catalog import make_controller, make_own_controller
from nas.controllers.optuna_sampler import MANY_OBJECTIVES, OptunaSampler
from nas.engines.base import Engine
from nas.engines.workers import Workers
from nas.methods.catalog import baseline_of, procedure
from nas.methods.exporting import export_winner
from nas.methods.reporting import starved_level, write_report
from nas.methods.retraining import retrain_all
from nas.pareto import affordable_best
from nas.progress import RunProgress
from nas.proxies.base import Proxy
from nas.pruning import Pruning
from nas.recipes.controller import ControllerRecipe
from nas.recipes.search import SearchRecipe
from nas.run import FINISHED, Run, split_seed
from nas.search import Measurement, search
from nas.show import own_proxy, short_text
from nas.study import History, Json, Record, Study
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.errors import RunError
from search_spaces.families import family_of
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out
from trainers.detectors.catalog import build_detector
from trainers.process import prepare_process

Limits = Callable[[Architecture], str | None]


@dataclass(frozen=True, kw_only=True)
class SearchData:
    """The training split in its two parts; ``val`` is not here, it is for the final table only."""

    train_set: DetectionSet
    held_out: DetectionSet


@dataclass(frozen=True, kw_only=True)
class Beside:
    """An objective beside the score.

    Args:
        objective: name of the attribute that every trial has; smaller is better.
        allowed: what the winner may cost, see :func:`nas.pareto.affordable_best`.
    """

    objective: str
    allowed: float


class TwoObjectives:
    """A controller in a search with two objectives: NSGA-II and III see both, and the winner must be affordable.

    Args:
        controller: proposes; all but those two go by the score alone.
        beside: the second objective.
    """

    def __init__(self, controller: Controller, beside: Beside) -> None:
        if isinstance(controller, OptunaSampler) and controller.sampler in MANY_OBJECTIVES:
            controller = controller.minimising(beside.objective)
        self._controller, self._beside = controller, beside

    def ask(self, history: History) -> Candidate | Done | None:
        """What the controller proposes."""
        return self._controller.ask(history)

    def winner(self, history: History) -> Architecture | None:
        """The best that is affordable."""
        return affordable_best(history, self._beside.objective, self._beside.allowed)


def open_data(run: Run, progress: RunProgress) -> SearchData:
    """The training split in its two parts, written down in the run.

    Raises:
        RunError: the images are not those that the run began with.
    """
    prepare_process(run.recipe.threads)
    run.record_environment()
    data = read_data(run.recipe)
    record_data(run, data, progress)
    return data


def read_data(recipe: SearchRecipe) -> SearchData:
    """The training split in its two parts."""
    train_set, held_out = hold_out(open_split(recipe.data, "train"), recipe.data.hold_out, split_seed(recipe))
    return SearchData(train_set=train_set, held_out=held_out)


def open_scorer(directory: Path, phase: str) -> Proxy:
    """The proxy of a phase in a worker process, which learns of everything else from the run's directory."""
    run = Run.open(directory)
    prepare_process(run.recipe.threads)
    return cast(Proxy, procedure(run.recipe).scorer(run, read_data(run.recipe), phase))


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


def finish(run: Run, winner: Architecture, rivals: Mapping[str, Architecture], progress: RunProgress) -> None:
    """From a winner to the end of a run: the final table, the bundle, the report.

    To be called while the study is open, which keeps a second process from training the same networks.
    """
    run.write_winner(winner, rivals, baseline_of(run.recipe))
    retrain_all(run, winner, rivals, progress)
    export_winner(run, winner)
    run.write_json(FINISHED, {"winner": winner.digest})
    write_report(run, progress)


def phase_seed(run: Run, phase: str) -> int:
    """Seed of everything in a phase."""
    return seed_for(run.recipe.seed, phase)


def controller_for(recipe: ControllerRecipe, space: SearchSpace, seed: int) -> Controller:
    """The recipe's controller.

    Raises:
        ConfigError: see :func:`nas.controllers.catalog.make_controller`.
    """
    if recipe.target is not None:
        return make_own_controller(
            recipe.target, space=space, seed=seed, budget=recipe.budget, options=recipe.options
        )
    assert recipe.name is not None, "a recipe has a name or a target"
    return make_controller(recipe.name, space=space, seed=seed, budget=recipe.budget, options=recipe.options)


def search_phase(
    run: Run,
    study: Study,
    name: str,
    *,
    space: SearchSpace,
    recipe: ControllerRecipe,
    proxy: Callable[[], Proxy],
    progress: RunProgress,
    limits: Limits | None = None,
    pruning: Callable[[], Pruning] | None = None,
    beside: Beside | None = None,
    measured: Callable[[], Measurement] | None = None,
) -> Architecture:
    """Carry a phase out from wherever it stands, and return its winner.

    Args:
        run: gives the phase's seed.
        study: holds the trials.
        name: of the phase.
        space: where it searches.
        recipe: of the controller.
        proxy: makes the scorer ready; not called when the search is over already.
        progress: listens.
        limits: see :func:`nas.search.search`.
        pruning: makes ready what stops poor candidates on the way; see there.
        beside: the objective beside the score, where there is one.
        measured: makes ready what is measured before a candidate is scored; see there.
    """
    settings, seed = run.recipe, phase_seed(run, name)
    phase = study.phase(name, space, seed=seed)
    controller = controller_for(recipe, space, seed)
    if beside is not None:
        controller = TwoObjectives(controller, beside)
    history = phase.history()
    total = expected_trials(recipe, space)
    if any(record.state == "running" for record in history) or controller.ask(history) is not DONE:
        scorer, unit = proxy(), "" if own_proxy(settings) else " AP"
        progress.phase(f"{name}: search", total, done=_finished(history))

        def report(record: Record, history: History) -> None:
            values = [seen.value for seen in history if seen.value is not None]
            best = f"best {max(values):.2f}" if values else "nothing scored yet"
            progress.advance(
                _finished(history), f"{short_text(record.candidate)} {_outcome(record, unit)}, {best}"
            )

        with engine_for(settings, partial(open_scorer, run.directory, name)) as engine:
            winner = search(
                phase=phase,
                controller=controller,
                score=scorer,
                engine=engine,
                batch=settings.batch,
                retries=settings.retries,
                on_trial=report,
                limits=limits,
                pruning=None if pruning is None else pruning(),
                facts=lambda architecture: _costs(run, architecture),
                measured=None if measured is None else measured(),
            )
    else:
        found = controller.winner(history)
        assert found is not None, "a finished search has a winner, else search() would have raised"
        winner = found
    progress.say(f"  {name}: {short_text(winner)}")
    return winner


def _finished(history: History) -> int:
    return sum(record.finished for record in history)


def engine_for(
    recipe: SearchRecipe, open_proxy: Callable[[], Proxy]
) -> AbstractContextManager[Engine | None]:
    """The recipe's engine; None stands for this process."""
    if recipe.engine == "serial":
        return nullcontext()
    return Workers(open_proxy, recipe.workers, deadline=recipe.deadline)


def _costs(run: Run, architecture: Architecture) -> dict[str, Json]:
    """Parameters, and multiply-adds at the size of the images, for the trial."""
    facts = run.read_json("data.json")
    assert facts is not None, "the data is opened before anything is searched"
    height, width = facts["image_size"]
    found = cost(architecture, (height, width))
    return {"params": found.params, "macs": found.macs}


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


def _outcome(record: Record, unit: str) -> str:
    return f"{record.value:.2f}{unit}" if record.value is not None else f"{record.state}: {record.reason}"
