"""What the searches of all methods share: one phase, its engine, the end of a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from nas.agreement import agreements
from nas.choosing import ByMeanRank
from nas.controllers.base import DONE, Controller, Done
from nas.controllers.catalog import make_controller, make_own_controller
from nas.controllers.greedy import BEAM
from nas.controllers.optuna_sampler import MANY_OBJECTIVES, OptunaSampler
from nas.controllers.predictor_guided import PredictorGuided
from nas.engines.base import Engine, InProcess, Job, Lost, Outcome
from nas.engines.watched import Watched
from nas.engines.workers import Workers
from nas.loggers.base import About
from nas.loggers.listening import listening
from nas.methods.budgeting import Allowance, while_room, within
from nas.methods.catalog import baseline_of
from nas.methods.data import SearchData, open_data, ray_workers
from nas.methods.exporting import export_winner
from nas.methods.granting import grant
from nas.methods.reporting import write_report
from nas.methods.retraining import retrain_all
from nas.methods.shipping import open_scorer, open_shipped, pack
from nas.pareto import affordable_best
from nas.progress import RunProgress
from nas.proxies.base import Proxy
from nas.recipes.controller import ControllerRecipe
from nas.recipes.search import SearchRecipe
from nas.run import FINISHED, Run
from nas.rungs import Rungs
from nas.search import Measurement, search
from nas.show import histories, own_proxy, short_text
from nas.stopping import stopping
from nas.study import History, Json, Record, Study
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.files import sweep
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace
from trainers.loop import resolve_device

Limits = Callable[[Architecture], str | None]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """An objective beside the score.

    Args:
        objective: name of the attribute that every trial has; smaller is better.
        allowed: what the winner may cost, see :func:`nas.pareto.affordable_best`.
    """

    objective: str
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a phase searches, and how.

    Args:
        phase: its name.
        space: where.
        controller: proposes.
        beside: the objective beside the score, where there is one.
        pruning: what stops poor candidates on the way, where something does.
        by_mean_rank: whether the mean rank of score and NASWOT makes the winner, and not the score.
    """

    phase: str
    space: SearchSpace
    controller: ControllerRecipe
    beside: Beside | None = None
    pruning: Rungs | None = None
    by_mean_rank: bool = False

    def within(self, run: Run) -> ControllerRecipe:
        """The controller's recipe as far as the run's budget lets it go."""
        # The rival's end follows from what the search has spent.
        return self.controller if self.phase == "random" else within(run, self.phase, self.controller)

    def controller_of(self, run: Run) -> Controller:
        """The controller, as the search has it."""
        controller = controller_for(self.within(run), self.space, phase_seed(run, self.phase))
        if self.by_mean_rank:
            return ByMeanRank(controller)
        return controller if self.beside is None else TwoObjectives(controller, self.beside)


class TwoObjectives:
    """A controller in a search with two objectives: some see both, and the winner must be affordable.

    Args:
        controller: proposes; all but NSGA-II, NSGA-III and the predictor-guided one go by the score alone.
        beside: the second objective.
    """

    def __init__(self, controller: Controller, beside: Beside) -> None:
        if isinstance(controller, PredictorGuided) or (
            isinstance(controller, OptunaSampler) and controller.sampler in MANY_OBJECTIVES
        ):
            controller = controller.minimising(beside.objective)
        self._controller, self._beside = controller, beside

    def ask(self, history: History) -> Candidate | Done | None:
        """What the controller proposes."""
        return self._controller.ask(history)

    def winner(self, history: History) -> Architecture | None:
        """The best that is affordable."""
        return affordable_best(history, self._beside.objective, self._beside.allowed)


def finish(run: Run, winner: Architecture, rivals: Mapping[str, Architecture], progress: RunProgress) -> None:
    """From a winner to the end of a run: the final table, the bundle, the report.

    To be called while the study is open, which keeps a second process from training the same networks.
    """
    run.write_winner(winner, rivals, baseline_of(run.recipe))
    ranks = run.recipe.retrain.ranks if run.recipe.retrain is not None else 1
    devices = float(ranks * (resolve_device(run.recipe.device).type != "cpu"))
    with run.books.activity("final table", devices=devices):
        retrain_all(run, winner, rivals, progress)
    with run.books.activity("bundle and report"):
        export_winner(run, winner)
        run.write_json(FINISHED, {"winner": winner.digest})
        write_report(run, progress)
    allowance = Allowance.of(run)
    if allowance is not None and (line := allowance.last_line(histories(run))) is not None:
        progress.say(f"budget: {line}")


@contextmanager
def opened(run: Run, progress: RunProgress) -> Iterator[tuple[SearchData, Study, RunProgress]]:
    """A run with its lock, books, images and budget; and the progress to which its loggers listen too.

    Raises:
        RunError: another process carries it out, or its images are not those that it began with.
        ConfigError: its budget cannot hold it, or the package of a logger is not installed.
    """
    # The lock first: who is refused has spent nothing of this run.
    with Study.open(run.directory, run.recipe.storage) as study:
        # No other search writes here now; what kills left half written, weights and bundles too, would add up.
        sweep(run.directory)
        with run.books.open(), heard(run, progress) as listened:
            data = open_data(run, listened)
            grant(run, data, listened)
            run.keep()
            yield data, study, listened


def heard(run: Run, progress: RunProgress) -> AbstractContextManager[RunProgress]:
    """The progress to which the loggers of a run's recipe listen too.

    To be entered while the study is open, so that nothing is logged of a run that another process carries out.

    Raises:
        ConfigError: the package of a logger is not installed.
    """
    about = About(name=run.recipe.name, directory=run.directory, settings=run.data)
    return listening(run.recipe.loggers, progress, about)


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
    data: SearchData,
    searched: Searched,
    *,
    proxy: Callable[[], Proxy],
    progress: RunProgress,
    limits: Limits | None = None,
    measured: Callable[[], Measurement] | None = None,
) -> Architecture:
    """Carry a phase out from wherever it stands, and return its winner.

    Args:
        run: gives the phase's seed.
        study: holds the trials.
        data: the images, for the workers.
        searched: the phase.
        proxy: makes the scorer ready; not called when the search is over already.
        progress: listens.
        limits: see :func:`nas.search.search`.
        measured: makes ready what is measured before a candidate is scored; see there.
    """
    settings, name = run.recipe, searched.phase
    phase = study.phase(name, searched.space, seed=phase_seed(run, name))
    others = {}
    if settings.budget is not None:
        others = {one: study.records(one) for one in study.phase_names() if one != name}
    controller = while_room(run, name, searched.controller_of(run), others)
    history = phase.history()
    total = expected_trials(searched.within(run), searched.space)
    unit = "" if own_proxy(settings) else " AP"
    workers = 1 if settings.engine == "serial" else settings.workers
    looked_on = partial(progress.searching, name, history, workers=workers, unit=unit, text=short_text)
    if any(record.state == "running" for record in history) or controller.ask(history) is not DONE:
        scorer, done = proxy(), sum(record.finished for record in history)
        progress.phase(f"{name}: search", total, done=done)
        looked_on()

        def ended(job: Job, outcome: Outcome) -> None:
            progress.ended(job, lost=isinstance(outcome, Lost))

        def report(record: Record, history: History) -> None:
            nonlocal done
            del history
            done += 1
            progress.told(record)
            progress.advance(done)

        booked = run.books.activity(f"{name}: scoring", devices=scoring_devices(settings))
        opened = engine_for(run, data, name, scorer, progress)
        with booked, opened as engine, stopping(progress.say) as stop:
            winner = search(
                phase=phase,
                controller=controller,
                score=scorer,
                engine=Watched(engine, ended),
                batch=settings.batch,
                rounds=settings.order == "rounds",
                retries=settings.retries,
                stop=stop,
                on_trial=report,
                limits=limits,
                pruning=searched.pruning,
                facts=lambda architecture: _costs(run, architecture),
                measured=None if measured is None else measured(),
            )
    else:
        looked_on()
        found = controller.winner(history)
        assert found is not None, "a finished search has a winner, else search() would have raised"
        winner = found
    progress.say(f"  {name}: {short_text(winner)}")
    for line in agreements({name: history}).values():
        progress.say(f"  {name}: {line}")
    return winner


def engine_for(
    run: Run, data: SearchData, phase: str, proxy: Proxy, progress: RunProgress
) -> AbstractContextManager[Engine]:
    """The recipe's engine; ``proxy`` scores where it is this process."""
    recipe = run.recipe
    if recipe.engine == "serial":
        return nullcontext(InProcess(proxy, progress.began))
    if recipe.engine == "processes":
        opened = partial(open_scorer, run.directory, phase)
        return Workers(opened, recipe.workers, deadline=recipe.deadline, began=progress.began)
    # It takes a second that other searches need not spend.
    from nas.engines.ray_tune import RayTune

    return RayTune(
        partial(open_shipped, pack(run, phase, data)),
        ray_workers(recipe),
        deadline=recipe.deadline,
        address=recipe.ray.address,
        # Before torch is imported: OpenMP reads this once.
        environment={"OMP_NUM_THREADS": str(recipe.threads)},
        say=progress.say,
        began=progress.began,
    )


def scoring_devices(recipe: SearchRecipe) -> float:
    """GPUs that the scoring of candidates holds; processes of one machine share the one that the recipe names."""
    if recipe.engine == "ray":
        return recipe.ray.gpus * recipe.workers
    return float(resolve_device(recipe.device).type != "cpu")


def _costs(run: Run, architecture: Architecture) -> dict[str, Json]:
    """Parameters, and multiply-adds at the size of the images, for the trial."""
    facts = run.read_json("data.json")
    assert facts is not None, "the data is opened before anything is searched"
    height, width = facts["image_size"]
    found = cost(architecture, (height, width))
    return {"params": found.params, "macs": found.macs}


def beam_of(recipe: ControllerRecipe) -> int:
    """How many candidates of a level the next one comes from; 1 where the controller knows no levels."""
    beam = recipe.options.get("beam", BEAM) if recipe.name == "greedy" else 1
    assert isinstance(beam, int), "checked when the controller was made"
    return beam


def expected_trials(recipe: ControllerRecipe, space: SearchSpace) -> int | None:
    """How many trials a phase will have, for the progress bar; None where only the search will tell."""
    if recipe.name == "exhaustive":
        return space.size
    if recipe.name == "greedy":
        beam, survivors, total = beam_of(recipe), 1, 0
        for gene in space.genes.values():
            total += survivors * gene.size
            survivors = min(beam, survivors * gene.size)
        return total
    return recipe.budget
