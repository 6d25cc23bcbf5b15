"""``nas plan``: what a recipe searches and what that will take, from a measured minute. Nothing of it is kept."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas.engines.processes import in_processes
from nas.methods.catalog import baseline_of, procedure
from nas.methods.data import SearchData, read_data
from nas.methods.hand_made import rival
from nas.methods.rehearsing import Piece, rehearse
from nas.methods.retraining import job_recipe
from nas.planning import (
    SHARE_DRAWS,
    Foreseen,
    Place,
    Plan,
    PlannedSpace,
    Row,
    Sample,
    Share,
    Work,
    foresee,
    threads_line,
)
from nas.progress import RunProgress
from nas.recipes.search import SearchRecipe
from nas.run import Run
from nas.training import TrainingJob
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, RunError
from search_spaces.randomness import rng_for
from trainers.loop import resolve_device, total_steps
from trainers.recipes import DetectorRecipe

MINUTE = 60.0
ENUMERATED = 2000
"""Spaces up to this size are looked at whole."""


def make_plan(
    recipe: SearchRecipe, progress: RunProgress, *, seconds: float = MINUTE, there: Place | None = None
) -> Plan:
    """Look at a recipe's spaces, carry out some units of every work, and foresee the rest.

    Args:
        recipe: checked.
        progress: listens.
        seconds: to be measured, about; a work gets at least one unit.
        there: another place to foresee it for.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vertebra-plan-") as folder:
        run = Run.create(Path(folder), recipe)
        data = read_data(run.recipe, progress.say)
        parts = list(procedure(run.recipe).foreseen(run, data))
        spaces = tuple(
            (one.name, one.space.name, share_of(one, run.recipe.seed))
            for one in parts
            if isinstance(one, PlannedSpace)
        )
        jobs = table_jobs(run, data)
        works = [*(one for one in parts if isinstance(one, Work)), *(work for work, _ in jobs)]
        samples = _samples(run, works, {work.name: job for work, job in jobs}, progress, seconds)
    side_by_side = workers_here(recipe)
    rows = [
        Row(
            work=work,
            sample=samples[work.like or work.name],
            here=_foreseen(work, samples, Place(workers=side_by_side[work.by]), recipe.batch),
            there=None if there is None else _foreseen(work, samples, there, recipe.batch),
        )
        for work in works
    ]
    return Plan(
        spaces=spaces,
        threads=threads_line(
            recipe.workers, recipe.threads, os.cpu_count() or 1, batch=recipe.batch, engine=recipe.engine
        ),
        rows=tuple(rows),
        measured=time.perf_counter() - began,
    )


def table_jobs(run: Run, data: SearchData) -> list[tuple[Work, TrainingJob]]:
    """The trainings of the final table; the baseline stands for every network of the search, at equal cost."""
    retrain = run.recipe.retrain
    if retrain is None:
        return []
    baseline, classes, size = baseline_of(run.recipe), data.train_set.num_classes, data.train_set.image_size
    others = len(retrain.rivals) + len(run.recipe.ablated)
    networks: list[tuple[str, int, Architecture, DetectorRecipe]] = [
        ("trainings", 2 * retrain.seeds + retrain.rival_seeds * others, baseline, run.recipe.detector)
    ]
    for one in retrain.hand_made:
        made = rival(one, run.recipe, classes, size)
        networks.append((one.name, retrain.seeds, made.architecture, made.detector))
    images = len(data.train_set) + len(data.held_out)
    found = []
    for name, count, architecture, detector in networks:
        plain = job_recipe(run.recipe, retrain.train, retrain.first_seed)
        job = TrainingJob(
            architecture=architecture,
            recipe=replace(plain, detector=detector),
            directory=run.directory / "plan",
        )
        work = Work(
            name=f"final table: {name}",
            count=count,
            unit="trainings",
            by="processes" if run.recipe.workers > 1 else "driver",
            macs=3.0
            * total_steps(retrain.train, images)
            * retrain.train.batch_size
            * retrain.train.area
            * cost(architecture, size).macs,
            # One seed of the winner and of what it is compared with.
            least=2 if name == "trainings" else 1,
        )
        found.append((work, job))
    return found


def share_of(planned: PlannedSpace, seed: int) -> Share:
    """How much of a space is within its limits."""
    space, limits = planned.space, planned.limits
    if limits is None:
        return Share(within=space.size, draws=None, size=space.size)
    if space.size <= ENUMERATED:
        found = [limits(one) is None for one in space.enumerate()]
        return Share(within=sum(found), draws=None, size=len(found))
    rng = rng_for(seed, "feasible share")
    within = sum(limits(space.sample(rng)) is None for _ in range(SHARE_DRAWS))
    return Share(within=within, draws=SHARE_DRAWS, size=space.size)


def workers_here(recipe: SearchRecipe) -> dict[str, int]:
    """How many of the recipe's workers gain anything on this machine, by who carries a work out."""
    fit = max(1, (os.cpu_count() or 1) // recipe.threads)
    if resolve_device(recipe.device).type != "cpu":
        fit = recipe.workers
    workers = min(recipe.workers, fit)
    return {
        "driver": 1,
        "engine": 1 if recipe.engine == "serial" else min(workers, recipe.batch),
        "processes": workers,
    }


def _foreseen(work: Work, samples: dict[str, Sample], place: Place, batch: int) -> Foreseen | None:
    if work.count is None:
        return None
    return foresee(work, samples[work.like or work.name], place, batch=batch)


def _samples(
    run: Run, works: Sequence[Work], jobs: dict[str, TrainingJob], progress: RunProgress, seconds: float
) -> dict[str, Sample]:
    """A sample of every work that is like no other before it, from as many processes as will work side by side."""
    own = [work for work in works if work.like in (None, work.name)]
    progress.phase("measuring", len(own))
    found: dict[str, Sample] = {}
    for index, work in enumerate(own):
        workers = workers_here(run.recipe)[work.by]
        pieces = [
            Piece(
                directory=run.directory,
                work=work.name,
                seconds=seconds / len(own),
                number=number,
                job=jobs.get(work.name),
            )
            for number in range(workers)
        ]
        units: list[float] = []
        starts, memory, began = [], 0, time.perf_counter()
        try:
            for _, one in in_processes(rehearse, pieces, workers):
                starts.append(time.perf_counter() - began - one.inside)
                units += one.units
                memory = max(memory, one.memory)
        except RunError as error:
            # Of its advice on what to do with a run nothing holds here.
            reason = str(error).partition(". What was finished is kept")[0]
            raise ConfigError(f"{work.name} cannot be tried out: {reason}") from error
        at_once = work.by == "driver" or (work.by == "engine" and run.recipe.engine == "serial")
        found[work.name] = Sample(seconds=tuple(units), start=0.0 if at_once else max(starts), memory=memory)
        progress.advance(index + 1, f"{work.name}: {found[work.name].mean:.3g} s each")
    return found
