"""``nas report --check N``: allocations trained alone against what the supernet said of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nas.methods.catalog import method_of
from nas.methods.retraining import job_recipe, run_jobs
from nas.progress import RunProgress
from nas.report.data import RankCheck, RankEntry
from nas.run import Run
from nas.show import histories, short_text
from nas.study import Record
from nas.training import TrainingJob, read_result
from search_spaces.architecture import Architecture
from search_spaces.cost import cost
from search_spaces.errors import RunError

SEED = 500
"""Of the short trainings; the final table's seeds are used for nothing else."""
SHARE = 0.4
"""Length of a short training in that of the final table."""


def check_ranking(run: Run, count: int, progress: RunProgress) -> None:
    """Train ``count`` scored allocations alone; finished trainings are kept, so more can be added later.

    Raises:
        RunError: fewer than three scored allocations, or a recipe without a ``retrain`` section.
    """
    chosen = _spread(_scored(run), count)
    if count < 3:
        raise RunError(f"--check: found {count}; allowed is 3 and more, else there is no order to compare")
    if len(chosen) < 3:
        raise RunError(
            f"{run.directory}: --check needs at least 3 scored allocations; this run has {len(chosen)} so far"
        )
    run_jobs(
        [_job(run, record) for record in chosen], run.recipe.workers, progress, "allocations trained alone"
    )


def read_ranking(run: Run) -> RankCheck | None:
    """The short trainings done so far, or None."""
    if run.recipe.retrain is None:
        return None
    size = (run.read_json("data.json") or {}).get("image_size", [224, 224])
    entries = []
    for record in _scored(run):
        result: dict[str, Any] | None = read_result(_job(run, record).directory)
        if result is None:
            continue
        assert isinstance(record.candidate, Architecture) and record.value is not None
        found = cost(record.candidate, (size[0], size[1]))
        entries.append(
            RankEntry(
                text=short_text(record.candidate),
                digest=record.digest,
                supernet=record.value / 100.0,
                alone=result["metrics"]["AP"],
                params=found.params,
                macs=found.macs,
            )
        )
    if not entries:
        return None
    how = f"each trained alone for {SHARE:.0%} of the final length, seed {SEED}, AP on the held-out images"
    return RankCheck(how=how, entries=tuple(entries))


def _scored(run: Run) -> list[Record]:
    history = histories(run).get(method_of(run.recipe).phases[0], ())
    # Once each: a controller may propose an allocation again.
    scored = {record.digest: record for record in history if record.value is not None}
    return list(scored.values())


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    """Evenly spaced over the ranking of the proxy, best and worst included."""
    ranked = sorted(records, key=lambda record: -(record.value or 0.0))
    if count >= len(ranked):
        return ranked
    return [ranked[index * (len(ranked) - 1) // max(count - 1, 1)] for index in range(count)]


def _job(run: Run, record: Record) -> TrainingJob:
    recipe = run.recipe.retrain
    if recipe is None:
        raise RunError(
            f"{run.directory}: --check needs the recipe's retrain section for the length of a training"
        )
    train = recipe.train
    short = replace(
        train,
        epochs=None if train.epochs is None else train.epochs * SHARE,
        steps=None if train.steps is None else max(int(train.steps * SHARE), 1),
        final_epochs=tuple(SHARE * one for one in train.final_epochs),
        evaluate_every=0,
    )
    assert isinstance(record.candidate, Architecture)
    return TrainingJob(
        architecture=record.candidate,
        recipe=job_recipe(run.recipe, short, SEED),
        directory=run.directory / "ranking" / record.digest,
        held_out_seed=run.split_seed,
    )
