"""The final table: winner, baseline and rivals trained alone, from scratch, equally long, seed by seed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.engines.processes import in_processes
from nas.initial_weights import InitialWeights
from nas.methods.budgeting import table_room
from nas.methods.catalog import baseline_of
from nas.methods.hand_made import hand_made
from nas.progress import RunProgress
from nas.recipes.search import SearchRecipe
from nas.recipes.train_job import TrainJobRecipe
from nas.run import Run
from nas.training import TrainingJob, read_result, train_to_completion
from search_spaces.architecture import Architecture
from search_spaces.errors import Diverged, RunError
from search_spaces.files import write_atomic
from trainers.loop import CHECKPOINT
from trainers.recipes import TrainRecipe

FAILED = "failed.json"


def retrain_all(
    run: Run, winner: Architecture, rivals: Mapping[str, Architecture], progress: RunProgress
) -> None:
    """Train winner, baseline and rivals equally long; a network that fills two roles is trained once.

    Results lie in ``retrain/<digest>/seed-<n>/result.json``; those that exist are kept.
    """
    jobs = retrain_jobs(run, winner, rivals)
    run_jobs(jobs, run.recipe.workers, progress, "final table", has_room=table_room(run))


def run_jobs(
    jobs: Sequence[TrainingJob],
    workers: int,
    progress: RunProgress,
    title: str,
    has_room: Callable[[int, int], bool] | None = None,
) -> None:
    """Carry out trainings side by side; finished ones are kept, and a stopped one continues next time.

    A training that diverges is a result too: it is written down with its reason, and the others go on.

    Args:
        jobs: the trainings, in the order in which they are worth having.
        workers: processes at a time.
        progress: listens.
        title: of all of them together.
        has_room: asked before each is begun, with the number begun and of those under way; None: always.
    """
    for job in jobs:
        progress.training(job.directory)
    waiting = [
        job for job in jobs if read_result(job.directory) is None and read_failure(job.directory) is None
    ]
    begun = finished = len(jobs) - len(waiting)

    def affordable() -> Iterator[TrainingJob]:
        nonlocal begun
        for job in waiting:
            # What a training under way has cost would be lost with it.
            started = (job.directory / CHECKPOINT).exists()
            if has_room is None or started or has_room(begun, begun - finished):
                begun += 1
                yield job

    if not waiting:
        return
    progress.phase(
        f"{title}: {len(jobs)} trainings, {workers} at a time", len(jobs), done=len(jobs) - len(waiting)
    )
    if workers == 1:
        for job in affordable():
            train_or_fail(job, progress)
            finished += 1
        return
    for job, result in in_processes(train_or_fail, affordable(), workers):
        finished += 1
        outcome = f"{100 * result['metrics']['AP']:.2f} AP" if "metrics" in result else result["reason"]
        progress.advance(finished, f"{job.architecture.digest}, seed {job.recipe.seed}: {outcome}")


def train_or_fail(job: TrainingJob, progress: RunProgress | None = None) -> dict[str, Any]:
    """:func:`nas.training.train_to_completion`, or the record of why the training diverged.

    Returns:
        The training's result, or ``{"seed": ..., "reason": ...}`` as it lies in ``failed.json``.
    """
    try:
        return train_to_completion(job, progress)
    except Diverged as error:
        failure = {"seed": job.recipe.seed, "reason": str(error)}
        write_atomic(job.directory / FAILED, (json.dumps(failure, indent=1) + "\n").encode())
        return failure


def read_failure(directory: Path) -> dict[str, Any] | None:
    """Why a training of the table diverged, or None. Delete the file to have it tried again."""
    path = directory / FAILED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def retrain_jobs(run: Run, winner: Architecture, rivals: Mapping[str, Architecture]) -> list[TrainingJob]:
    """All trainings of the final table: winner, baseline and hand-made rivals seed by seed, then the others."""
    recipe = run.recipe.retrain
    if recipe is None:
        return []
    networks = {one.digest: (one, run.recipe.detector) for one in (winner, baseline_of(run.recipe))}
    by_hand = hand_made(run)
    networks |= {one.name: (one.architecture, one.detector) for one in by_hand.values()}
    seeds = range(recipe.first_seed, recipe.first_seed + recipe.seeds)
    wanted = [(folder, seed) for seed in seeds for folder in networks]
    for name in (name for name in (*recipe.rivals, *run.recipe.ablated) if name in rivals):
        networks.setdefault(rivals[name].digest, (rivals[name], run.recipe.detector))
        wanted += [(rivals[name].digest, recipe.first_seed + index) for index in range(recipe.rival_seeds)]
    jobs: dict[Path, TrainingJob] = {}
    begun: dict[str, InitialWeights | None] = {}
    for folder, seed in wanted:
        architecture, detector = networks[folder]
        directory = training_directory(run, folder, seed)
        job = replace(job_recipe(run.recipe, recipe.train, seed), detector=detector, ranks=recipe.ranks)
        jobs[directory] = TrainingJob(architecture=architecture, recipe=job, directory=directory)
        # Not for a finished one, so that the file may be gone by then.
        if folder in by_hand and by_hand[folder].init != "scratch" and read_result(directory) is None:
            begun.setdefault(folder, by_hand[folder].weights())
            with_init = replace(job, init=by_hand[folder].init)
            jobs[directory] = replace(jobs[directory], recipe=with_init, weights=begun[folder])
    return list(jobs.values())


def job_recipe(recipe: SearchRecipe, train: TrainRecipe, seed: int) -> TrainJobRecipe:
    """The training recipe that a search recipe implies."""
    return TrainJobRecipe(
        name=recipe.name,
        seed=seed,
        threads=recipe.threads,
        device=recipe.device,
        data=recipe.data,
        detector=recipe.detector,
        train=train,
    )


def folder_of(network: Architecture | str) -> str:
    """Where a network's trainings lie under ``retrain/``: its digest, or the name of a hand-made rival."""
    return network if isinstance(network, str) else network.digest


def results_of(run: Run, network: Architecture | str) -> list[dict[str, Any]]:
    """Finished trainings of one network in a run, by seed; see :func:`folder_of`."""
    directories = (run.directory / "retrain" / folder_of(network)).glob("seed-*")
    results = (read_result(directory) for directory in directories)
    return sorted((one for one in results if one is not None), key=lambda result: int(result["seed"]))


def failures_of(run: Run, network: Architecture | str) -> list[dict[str, Any]]:
    """Diverged trainings of one network in a run, by seed; see :func:`folder_of`."""
    directories = (run.directory / "retrain" / folder_of(network)).glob("seed-*")
    failures = (read_failure(directory) for directory in directories)
    return sorted((one for one in failures if one is not None), key=lambda failure: int(failure["seed"]))


def training_directory(run: Run, network: Architecture | str, seed: int) -> Path:
    """Where the table's training of one network under one seed lies; see :func:`folder_of`."""
    return run.directory / "retrain" / folder_of(network) / f"seed-{seed}"


def trained_directory(directory: Path) -> Path:
    """The training to evaluate: the directory itself, or that of a finished search's winner.

    Raises:
        RunError: a search that has not retrained its winner yet.
    """
    if not (directory / "recipe.yaml").exists():
        return directory
    run = Run.open(directory)
    winner = run.read_winner()
    results = results_of(run, winner) if winner is not None else []
    if winner is None or not results:
        raise RunError(
            f"{directory} has not retrained its winner yet; finish it with: nas resume {directory}"
        )
    return training_directory(run, winner, results[0]["seed"])
