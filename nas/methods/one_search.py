"""What methods with one search over whole candidates share, from images to the end of a run.

A controller proposes; what is within the limits is scored; the best is trained to completion beside the baseline, and
beside the best of random search at the same expense. Every step is skipped when its result is in the run directory,
so carrying out a run and resuming it are one function.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from nas.latency import LATENCY, LatencyRatio, Measured, known_latencies
from nas.methods.budgeting import Allowance
from nas.methods.data import SearchData
from nas.methods.limits import Limits
from nas.methods.rehearsing import drawn_within, seconds_a_step, until_one_works
from nas.methods.searching import Beside, Searched, expected_trials, finish, opened, phase_seed, search_phase
from nas.planning import LEAST, SHARE_DRAWS, PlannedSpace, Work
from nas.progress import RunProgress
from nas.proxies.base import Proxy
from nas.proxies.short_training import ShortTraining
from nas.pruning import Pruning
from nas.recipes.controller import ControllerRecipe
from nas.recipes.one_search import OneSearchRecipe
from nas.recipes.search import SearchRecipe
from nas.run import Run, split_seed
from nas.study import History, Json, Record, Study
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import DataError, RunError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.data.stored import Say
from trainers.loop import resolve_device, total_steps
from trainers.recipes import TrainRecipe

TRIES = 100
"""Draws for each candidate of the random rival, where the limits reject most of the space."""
CANDIDATES = 5
"""Different candidates, at least, of which a plan trains some steps in the time that it has."""
LATENCY_DRAWS = 10
"""So many of them, the first within the other limits, are timed for the share of a latency limit."""


@dataclass(frozen=True, kw_only=True)
class OneSearch:
    """A search under way.

    Args:
        run: where everything is kept.
        data: the images.
        study: the open ledger.
        space: where it searches.
        recipe: controller, limits, rungs, objectives.
        proxy: makes the scorer of a phase ready; in a worker process the method's ``scorer`` does.
        steps: of one candidate's whole training; None where the proxy does not train.
        progress: listens.
    """

    run: Run
    data: SearchData
    study: Study
    space: SearchSpace
    recipe: OneSearchRecipe
    proxy: Callable[[str], Proxy]
    steps: int | None
    progress: RunProgress

    def phase(
        self, name: str, controller: ControllerRecipe, space: SearchSpace | None = None
    ) -> Architecture:
        """Carry a phase out under the search's proxy, limits and rungs, and return its winner.

        Args:
            name: of the phase.
            controller: proposes.
            space: another one than the search's, for a comparison.
        """
        return search_phase(
            self.run,
            self.study,
            self.data,
            self.searched(name, controller, space),
            proxy=lambda: self.proxy(name),
            progress=self.progress,
            limits=self.limits,
            measured=self._measured if self.recipe.needs_latency else None,
        )

    def searched(self, name: str, controller: ControllerRecipe, space: SearchSpace | None = None) -> Searched:
        """What :meth:`phase` searches."""
        rungs, steps = self.recipe.rungs, self.steps
        return Searched(
            phase=name,
            space=self.space if space is None else space,
            controller=controller,
            beside=self._beside(),
            pruning=None if rungs is None or steps is None else Pruning(rungs, total_steps=steps, phase=name),
        )

    def begun(self) -> Iterator[Searched]:
        """The search and its random rival, as far as they were begun."""
        names = self.study.phase_names()
        if "search" in names:
            yield self.searched("search", self.recipe.controller)
        if "random" in names:
            # Its budget grew on the way; what was drawn does not depend on it.
            drawn = len(self.study.records("random"))
            yield self.searched("random", ControllerRecipe(name="random", budget=max(1, drawn)))

    @property
    def limits(self) -> Limits:
        """What candidates may cost."""
        return Limits(self.space, self.recipe.limits, self.data.train_set.image_size)

    def at_random(self) -> Architecture:
        """The rival: uniform draws within the limits, scored as the search's candidates were, at the same expense.

        Without rungs these are as many draws as the search scored. With rungs the draws pass the same ones, and go on
        until they have had at least the search's training steps; the last of them may run over by less than one
        whole training, to the rival's advantage.
        """
        whole = 1 if self.steps is None else self.steps

        def spent(phase: str, trials: int | None = None) -> int:
            return sum(expense(record, self.steps) for record in self._history(phase)[:trials])

        steps = spent("search")
        wanted = budget = min(max(steps // whole, 1), self.space.size)
        while True:
            # Resumed, the budgets are those of a run that was never stopped, and with them the rounds.
            if len(self._history("random")) > budget and (missing := steps - spent("random", budget)) > 0:
                budget += max(missing // whole, 1)
                continue
            failure: RunError | None = None
            try:
                winner = self.phase("random", ControllerRecipe(name="random", budget=budget))
            except RunError as error:
                # All draws so far may be outside of the limits, or stopped at a rung.
                failure = error
            missing = steps - spent("random")
            ended = (allowance := Allowance.of(self.run)) is not None and "random" in allowance.closed
            if missing <= 0 or ended or budget > TRIES * wanted or budget >= self.space.size:
                if failure is not None:
                    raise failure
                if missing > 0:
                    self.progress.say(
                        f"random search ended {missing} short of the search's {steps}: "
                        + ("the budget has no more room" if ended else "too few draws are within the limits")
                    )
                return winner
            budget += max(missing // whole, 1)

    def _history(self, phase: str) -> History:
        return self.study.phase(phase, self.space, seed=phase_seed(self.run, phase)).history()

    def tell_share(self) -> None:
        """Print and keep the share of the space that the limits let through, from uniform draws."""
        limits, run = self.limits, self.run
        if not limits.any or run.read_json("limits.json") is not None:
            return
        rng = rng_for(run.recipe.seed, "feasible share")
        drawn = [self.space.sample(rng) for _ in range(SHARE_DRAWS)]
        counted = [one for one in drawn if limits(one) is None]
        share: dict[str, Any] = {"draws": SHARE_DRAWS, "within": len(counted), "limits": str(limits)}
        told = (
            f"within the limits: {len(counted) / SHARE_DRAWS:.0%} of {SHARE_DRAWS} uniform draws ({limits})"
        )
        if (allowed := self.recipe.limits.latency) is not None:
            measure = self._latency()
            found = {one.digest: measure(one) for one in counted[:LATENCY_DRAWS]}
            ratios = [float(str(one[LATENCY])) for one in found.values()]
            quick = sum(ratio <= allowed for ratio in ratios)
            share |= {"measured": found, "latency_within": quick}
            told += f"; latency is not counted there: of {len(ratios)} of these that were timed {quick} are within"
            told += " its limit"
            told += f" ({min(ratios):.2f} to {max(ratios):.2f} of the baseline's)" if ratios else ""
        self.progress.say(told)
        run.write_json("limits.json", share)

    def _beside(self) -> Beside | None:
        """The second objective; the winner may cost what the baseline costs."""
        objective = self.recipe.cost
        if objective is None:
            return None
        if objective == LATENCY:
            return Beside(objective=objective, allowed=1.0)
        base = cost(self.space.baseline, self.data.train_set.image_size)
        return Beside(objective=objective, allowed=getattr(base, objective))

    def _latency(self) -> LatencyRatio:
        return LatencyRatio(
            self.space.baseline,
            image_size=self.data.train_set.image_size,
            threads=self.run.recipe.threads,
            device=resolve_device(self.run.recipe.device),
        )

    def _measured(self) -> Measured:
        """What the share and the phases before have measured already is not measured again."""
        known: dict[str, Mapping[str, Json]] = {}
        for phase in self.study.phase_names():
            known |= known_latencies(self.study.records(phase))
        known |= (self.run.read_json("limits.json") or {}).get("measured", {})
        return Measured(self._latency(), allowed=self.recipe.limits.latency, known=known)


def short_training(
    run: Run,
    data: SearchData,
    phase: str,
    train: TrainRecipe,
    *,
    recalibration_batches: int,
    narrowed: Callable[[Architecture], Architecture] | None = None,
) -> ShortTraining:
    """The proxy that trains candidates; its seed is the search's in every phase, so that phases can be compared."""
    return ShortTraining(
        train_set=data.train_set,
        held_out=data.held_out,
        detector=run.recipe.detector,
        train=train,
        seed=phase_seed(run, "search"),
        directory=run.directory / phase,
        device=run.recipe.device,
        recalibration_batches=recalibration_batches,
        narrowed=narrowed,
    )


def carry_out_search(
    run: Run,
    progress: RunProgress,
    begin: Callable[[Run, SearchData, Study, RunProgress], OneSearch],
    further: Callable[[OneSearch], Mapping[str, Architecture]] | None = None,
) -> Architecture:
    """Do whatever of the run is not done yet and return the winner.

    Args:
        run: to be carried out.
        progress: listens.
        begin: makes the method's search.
        further: more networks of the final table by name.
    """
    with opened(run, progress) as (data, study, progress):
        one = begin(run, data, study, progress)
        one.tell_share()
        winner = one.phase("search", one.recipe.controller)
        rivals: dict[str, Architecture] = {}
        if run.recipe.retrain is not None and "random" in run.recipe.retrain.rivals:
            rivals["random"] = one.at_random()
        if further is not None:
            rivals |= further(one)
        finish(run, winner, rivals, progress)
    return winner


def expense(record: Record, whole: int | None) -> int:
    """Training steps of one trial: none where a limit rejected it or an earlier score was repeated.

    Args:
        record: finished.
        whole: steps of a training to the end; counted for one that diverged, however early. Where the proxy does
            not train (None), a scored trial counts 1.
    """
    if "same_as_trial" in record.attributes or (record.state == "pruned" and record.stopped_at is None):
        return 0
    if whole is None:
        return 1
    steps = record.attributes.get("steps", whole)
    assert isinstance(steps, int)
    return steps


def planned_phases(
    recipe: SearchRecipe, space: SearchSpace, search: OneSearchRecipe
) -> dict[str, tuple[SearchSpace, ControllerRecipe]]:
    """The search and, where the table wants it, its random rival, which spends as much."""
    names = ["search"]
    if recipe.retrain is not None and "random" in recipe.retrain.rivals:
        names.append("random")
    return dict.fromkeys(names, (space, search.controller))


def foreseen_phases(
    run: Run,
    phases: Mapping[str, tuple[SearchSpace, ControllerRecipe]],
    limits: Limits,
    *,
    macs: Callable[[Architecture], float] | None,
    at_most: bool,
) -> Iterator[PlannedSpace | Work]:
    """What phases search under one proxy, and what their scoring takes.

    Args:
        run: gives the seed.
        phases: space and controller of each by its name.
        limits: what candidates may cost.
        macs: multiply-adds of scoring a candidate; None where a proxy of a person's own decides.
        at_most: whether candidates are stopped on the way.
    """
    for name, (space, controller) in phases.items():
        if name != "random":
            yield PlannedSpace(name=name, space=space, limits=limits if limits.any else None)
        # The same draws that the search will print its share from.
        rng = rng_for(run.recipe.seed, "feasible share")
        drawn = [space.sample(rng) for _ in range(SHARE_DRAWS)] if limits.any else []
        share = sum(limits(one) is None for one in drawn) / SHARE_DRAWS if drawn else 1.0
        count = expected_trials(controller, space)
        within = list(islice(drawn_within(space, limits, rng), LATENCY_DRAWS))
        yield Work(
            name=f"{name}: scoring",
            # What a limit rejects counts as a trial and takes no time.
            count=None if count is None else max(1, round(share * count)),
            unit="candidates",
            by="engine",
            macs=None if macs is None else sum(map(macs, within)) / len(within),
            at_most=at_most,
            like="search: scoring" if name == "random" else None,
            least=None if controller.budget is None and controller.name != "exhaustive" else LEAST,
            trials=count,
            exhaustive=controller.name == "exhaustive" and name != "random",
        )


def rehearse_trainings(
    proxy: ShortTraining,
    space: SearchSpace,
    limits: Limits,
    seconds: float,
    rng: Random,
) -> list[float]:
    """Seconds of whole short trainings, each from some steps and a scoring of another candidate."""
    draws = drawn_within(space, limits, rng)

    def whole() -> float:
        trainer = proxy.trainer(next(draws), None)
        step = seconds_a_step(trainer, seconds / CANDIDATES)
        scored = time.perf_counter()
        proxy.measure(trainer.detector)
        return trainer.total_steps * step + time.perf_counter() - scored

    began = time.perf_counter()
    found = [until_one_works(whole)]
    while time.perf_counter() - began < seconds:
        found.append(until_one_works(whole))
    return found


def planned_steps(recipe: SearchRecipe, train: TrainRecipe, say: Say | None = None) -> int | None:
    """Steps of one short training before the data is opened; None where they count images that cannot be read.

    Args:
        recipe: whose images are counted.
        train: of the short training.
        say: see :func:`trainers.data.catalog.open_split`.
    """
    if train.steps is not None:
        return train.steps
    try:
        whole = open_split(recipe.data, "train", say=say)
        rest, _ = hold_out(whole, recipe.data.hold_out, split_seed(recipe))
    except DataError:
        return None
    return total_steps(train, len(rest))
