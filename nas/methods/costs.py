"""What every phase of a run cost. An image trained on counts as three forward passes."""

from collections.abc import Mapping
from dataclasses import replace

from nas.methods.catalog import baseline_of
from nas.methods.spaces import allocation, crnas_recipe, stage_space
from nas.methods.spinenet_space import narrowed, spinenet_recipe
from nas.report.data import PhaseCost
from nas.run import Run
from nas.show import scoring_seconds
from nas.study import History
from search_spaces.architecture import Architecture
from search_spaces.cost import cost


def supernet_costs(run: Run, trials: Mapping[str, History], size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """Seconds, images and backbone multiply-adds of each supernet training and each scoring of CR-NAS.

    Args:
        run: finished or not.
        trials: of every phase.
        size: (height, width) of the images, px.
    """
    macs = cost(baseline_of(run.recipe), size).macs
    paths = {"stages": mean_path_macs(run, size)}
    facts = run.read_json("data.json") or {"held_out": [], "train": []}
    costs = []
    for name, history in trials.items():
        spent = run.read_json(f"{name}/spent.json")
        if spent is not None:
            costs.append(
                _phase_cost(
                    f"{name}: supernet training", spent["seconds"], spent["images"], 3 * paths.get(name, macs)
                )
            )
        whole = crnas_recipe(run.recipe)
        recipe = whole.stages if name == "stages" else whole.dilations or whole.stages
        each = len(facts["held_out"]) + recipe.supernet.recalibration_batches * min(
            recipe.supernet.train.batch_size, max(len(facts["train"]), 1)
        )
        scored = sum("seconds" in record.attributes for record in history)
        spent_scoring = sum(scoring_seconds(record) for record in history)
        costs.append(
            replace(_phase_cost(f"{name}: scoring", spent_scoring, each * scored, macs), trials=len(history))
        )
    return tuple(costs)


def short_training_costs(
    run: Run, trials: Mapping[str, History], size: tuple[int, int]
) -> tuple[PhaseCost, ...]:
    """Seconds, images and backbone multiply-adds of the short trainings of SpineNet; arguments as above."""
    recipe = spinenet_recipe(run.recipe).search.proxy
    costs = []
    for name, history in trials.items():
        images = macs = steps = 0
        for record in history:
            count, taken = (record.attributes.get(key, 0) for key in ("images", "steps"))
            if (
                isinstance(count, int)
                and isinstance(taken, int)
                and isinstance(record.candidate, Architecture)
            ):
                images += count
                steps += taken
                macs += 3 * count * cost(narrowed(record.candidate, recipe), size).macs
        seconds = round(sum(scoring_seconds(record) for record in history), 1)
        one = PhaseCost(name=f"{name}: short trainings", seconds=seconds, images=images, macs=macs)
        costs.append(replace(one, trials=len(history), steps=steps))
    return tuple(costs)


def table_costs(run: Run, size: tuple[int, int]) -> tuple[PhaseCost, ...]:
    """The same of the final table, by the baseline's multiply-adds; nothing before its first training."""
    results = [
        run.read_json(str(path.relative_to(run.directory)))
        for path in sorted(run.directory.glob("retrain/*/*/result.json"))
    ]
    finished = [result for result in results if result is not None]
    if not finished:
        return ()
    seconds = sum(result["seconds"] for result in finished)
    images = sum(result["images"] for result in finished)
    macs = 3 * cost(baseline_of(run.recipe), size).macs
    return (replace(_phase_cost("final table: trainings", seconds, images, macs), trials=len(finished)),)


def mean_path_macs(run: Run, size: tuple[int, int]) -> int:
    """Multiply-adds of a path of the stage supernet, averaged over the uniform draws of its training.

    A stage's cost does not depend on the other stages, so means over stages add.
    """
    space = stage_space(crnas_recipe(run.recipe).space)
    base = space.baseline
    blocks = base.genes["blocks"]
    assert isinstance(blocks, tuple)
    total = whole = cost(base, size).macs
    for stage, counts in enumerate(space.branches):
        found = []
        for count in counts:
            changed = (*blocks[:stage], count, *blocks[stage + 1 :])
            found.append(cost(allocation(base, changed), size).macs - whole)
        total += round(sum(found) / len(found))
    return total


def _phase_cost(name: str, seconds: float, images: int, macs_an_image: int) -> PhaseCost:
    return PhaseCost(name=name, seconds=round(seconds, 1), images=images, macs=images * macs_an_image)
