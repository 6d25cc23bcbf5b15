"""A few units of every work of a run, carried out for a plan; nothing of them is kept."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import torch

from nas.methods.catalog import procedure
from nas.methods.data import read_data
from nas.run import Run
from nas.saying import tell
from nas.training import TrainingJob, detector_for, evaluate_detector
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed, ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detector
from trainers.loop import Trainer, resolve_device
from trainers.process import prepare_process

WARM = 2
"""Steps that are not counted: memory is taken and kernels are chosen in them."""
FAILURES = 10
"""Candidates in a row that may fail while a plan is made."""
T = TypeVar("T")
TRIES = 1000
"""Draws, at most, for one within the limits."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one process rehearses.

    Args:
        directory: of a run that is thrown away.
        work: its name.
        seconds: to be spent on it, about.
        number: of the process, so that others draw other candidates.
        job: the training, of works of the final table.
    """

    directory: Path
    work: str
    seconds: float
    number: int
    job: TrainingJob | None = None


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What came of it.

    Args:
        units: seconds of each.
        inside: seconds that the rehearsal took, the start of the process not counted.
        memory: bytes of the process at its largest.
    """

    units: tuple[float, ...]
    inside: float
    memory: int


def rehearse(piece: Piece) -> Rehearsed:
    """Carry a piece out in a process of its own."""
    run = Run.open(piece.directory)
    prepare_process(run.recipe.threads)
    if piece.job is not None:
        recipe = piece.job.recipe.data
        splits = open_split(recipe, "train", say=tell), open_split(recipe, "val", say=tell)
        began = time.perf_counter()
        units: Sequence[float] = [rehearse_job(piece.job, *splits, piece.seconds)]
    else:
        data = read_data(run.recipe, tell)
        rng = rng_for(run.recipe.seed, "plan", piece.work, piece.number)
        began = time.perf_counter()
        units = procedure(run.recipe).rehearse(run, data, piece.work, piece.seconds, rng)
    return Rehearsed(units=tuple(units), inside=time.perf_counter() - began, memory=peak_memory())


def rehearse_job(job: TrainingJob, train_set: DetectionSet, val: DetectionSet, seconds: float) -> float:
    """Seconds of a whole training of the final table, from some of its steps and one look at ``val``."""
    device = resolve_device(job.recipe.device)
    detector = detector_for(job.architecture, job.recipe, train_set)
    trainer = Trainer(
        detector=detector,
        data=train_set,
        recipe=job.recipe.train,
        seed=job.recipe.seed,
        directory=None,
        device=device,
        evaluate=lambda _: {},
    )
    step = seconds_a_step(trainer, seconds)
    began = time.perf_counter()
    evaluate_detector(detector, val, job.recipe, device)
    looks = len(trainer.evaluation_steps()) + 1
    return trainer.total_steps * step + looks * (time.perf_counter() - began)


def seconds_a_step(trainer: Trainer[Detector], seconds: float) -> float:
    """Mean time of a training's steps after the first, from about so many seconds of them."""
    warm = now = trainer.run(WARM)
    while now.steps < now.total_steps and now.seconds - warm.seconds < seconds:
        now = trainer.run(now.steps + max(1, now.steps // 2))
    if now is warm:
        return warm.seconds / warm.steps
    return (now.seconds - warm.seconds) / (now.steps - warm.steps)


def repeated(unit: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, as many calls as fit into so many seconds, at least one after the first is forgotten.

    Raises:
        ConfigError: see :func:`until_one_works`.
    """
    until_one_works(unit)
    found: list[float] = []
    while not found or sum(found) < seconds:
        began = time.perf_counter()
        until_one_works(unit)
        found.append(time.perf_counter() - began)
    return found


def until_one_works(unit: Callable[[], T]) -> T:
    """The result of the first of some calls that does not fail.

    A failure would be a failed trial of a search, and no reason to know nothing of the others.

    Raises:
        ConfigError: all of them failed.
    """
    for _ in range(FAILURES - 1):
        try:
            return unit()
        except CandidateFailed:
            continue
    try:
        return unit()
    except CandidateFailed as error:
        raise ConfigError(f"each of {FAILURES} candidates failed when tried out: {error}") from error


def drawn_within(
    space: SearchSpace, limits: Callable[[Architecture], str | None], rng: Random
) -> Iterator[Architecture]:
    """Uniform draws that the limits let through; any draw where these are too rare to be found."""
    while True:
        draws = [space.sample(rng)]
        while limits(draws[-1]) is not None and len(draws) < TRIES:
            draws.append(space.sample(rng))
        yield draws[-1]


def peak_memory() -> int:
    """Bytes of this process at its largest, on its GPU where it has used one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kilobytes but on a Mac.
    return peak if sys.platform == "darwin" else 1024 * peak
