"""A controller against random search at equal budget, seed by seed, under the short-training proxy of a recipe.

    python benchmarks/spinenet_controllers.py DIR benchmarks/results/NAME.json [--recipe FILE] [--seeds 8]
        [--budget 24] [--workers 2] [--set key=value ...]

All searches advance together, one candidate each a round. A candidate is trained once, whichever of them asks for it,
because equal candidates get equal scores; each search still pays for it in its budget, which counts trained candidates.
Under one seed both sides draw the same first candidates. Stop it at any time: DIR keeps what was scored.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, read_yaml, to_data
from nas.controllers.base import Controller, Done
from nas.controllers.catalog import make_controller
from nas.methods.catalog import check_search
from nas.methods.limits import Limits
from nas.methods.spinenet_space import narrowed, spinenet_recipe, spinenet_space
from nas.proxies.short_training import ShortTraining
from nas.recipes.controller import ControllerRecipe
from nas.recipes.spinenet import SpineNetRecipe
from nas.report.ranking import paired_difference
from nas.run import environment, split_seed
from nas.study import Phase, Study
from nas.trials import Record, Score
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed
from search_spaces.files import write_atomic
from search_spaces.randomness import seed_for
from trainers.data.catalog import open_split
from trainers.data.detection_set import hold_out
from trainers.process import prepare_process

RECIPE = Path(__file__).parents[1] / "examples/recipes/spinenet_digits.yaml"
ENDLESS = 10**6
"""Trials that a controller may propose; the budget counts those that were trained."""
_worker: list[ShortTraining] = []
"""The proxy of this process: the images are opened once."""


def open_worker(recipe: SpineNetRecipe, directory: Path) -> None:
    """Make the proxy of this process ready; every process has the same."""
    prepare_process(recipe.threads)
    train_set, held_out = hold_out(open_split(recipe.data, "train"), recipe.data.hold_out, split_seed(recipe))
    _worker.append(
        ShortTraining(
            train_set=train_set,
            held_out=held_out,
            detector=recipe.detector,
            train=recipe.search.proxy.train,
            seed=seed_for(recipe.seed, "search"),
            directory=directory / "trainings",
            device=recipe.device,
            recalibration_batches=recipe.search.proxy.recalibration_batches,
            narrowed=lambda architecture: narrowed(architecture, recipe.search.proxy),
        )
    )


def scored(candidate: Architecture) -> Score | str:
    """The score of a candidate, or why it has none."""
    try:
        return _worker[0](candidate)
    except CandidateFailed as failure:
        return str(failure)


class Search:
    """One controller under one seed: its phase, and the candidates it has had trained."""

    def __init__(self, phase: Phase, controller: Controller, limits: Limits) -> None:
        self.phase, self._controller, self._limits = phase, controller, limits

    def trained(self) -> list[Record]:
        """Trials that were trained, in order."""
        return [record for record in self.phase.history() if record.state in ("complete", "failed")]

    def waiting(self) -> Record:
        """The candidate to be trained next: the one under way, or the next that the limits let through."""
        for record in self.phase.history():
            if not record.finished:
                return record
        while True:
            asked = self._controller.ask(self.phase.history())
            assert not isinstance(asked, Done) and isinstance(asked, Architecture), (
                "the space is not exhausted"
            )
            record = self.phase.begin(asked)
            reason = self._limits(asked)
            if reason is None:
                return record
            self.phase.prune(record.number, reason)

    def best(self) -> list[float]:
        """Best score after each trained candidate; a failure before the first score counts as 0."""
        found, best = [], 0.0
        for record in self.trained():
            best = max(best, record.value if record.value is not None else best)
            found.append(best)
        return found


def searches_of(recipe: SpineNetRecipe, study: Study, seeds: Sequence[int]) -> dict[tuple[str, int], Search]:
    """Both sides under every seed."""
    space = spinenet_space(recipe.space)
    size = open_split(recipe.data, "train").image_size
    limits = Limits(space, recipe.search.limits, size)
    found = {}
    for one in (recipe.search.controller, ControllerRecipe(name="random")):
        for seed in seeds:
            controller = make_controller(
                one.name, space=space, seed=seed, budget=ENDLESS, options=one.options
            )
            phase = study.phase(f"{one.name}-{seed}", space, seed=seed)
            found[one.name, seed] = Search(phase, controller, limits)
    return found


def advance(
    searches: Sequence[Search], budget: int, known: dict[str, Score | str], pool: ProcessPoolExecutor
) -> bool:
    """One more trained candidate for each search below its budget; False when there is none."""
    open_ = [(search, search.waiting()) for search in searches if len(search.trained()) < budget]
    wanted = {record.digest: record.candidate for _, record in open_ if record.digest not in known}
    known.update(zip(wanted, pool.map(scored, wanted.values()), strict=True))
    for search, record in open_:
        score = known[record.digest]
        if isinstance(score, Score):
            search.phase.finish(record.number, score)
        else:
            search.phase.fail(record.number, score)
    return bool(open_)


def remembered(searches: Sequence[Search]) -> dict[str, Score | str]:
    """What was scored before a stop, by digest."""
    known: dict[str, Score | str] = {}
    for search in searches:
        for record in search.trained():
            if record.value is None:
                known[record.digest] = str(record.reason)
            else:
                known[record.digest] = Score(value=record.value, attributes=record.attributes)
    return known


def summary(searches: dict[tuple[str, int], Search], budget: int) -> dict[str, Any]:
    """Best scores over the budget, and the paired difference at several points of it."""
    names = list(dict.fromkeys(name for name, _ in searches))
    curves = {
        name: {seed: search.best() for (one, seed), search in searches.items() if one == name}
        for name in names
    }
    first, second = names
    differences = {}
    for count in sorted({budget // 2, 3 * budget // 4, budget}):
        sides = [{seed: curve[count - 1] for seed, curve in curves[name].items()} for name in names]
        found = paired_difference(*sides)
        differences[str(count)] = {
            "mean": found.mean,
            "standard_error": found.standard_error,
            "interval_95": [found.low, found.high],
            "wins_ties_losses": [
                sum(sides[0][seed] > sides[1][seed] for seed in sides[0]),
                sum(sides[0][seed] == sides[1][seed] for seed in sides[0]),
                sum(sides[0][seed] < sides[1][seed] for seed in sides[0]),
            ],
        }
    every = {
        record.digest: record.value
        for search in searches.values()
        for record in search.trained()
        if record.value is not None
    }
    return {
        "best_AP_after_each_trained_candidate": {
            name: {str(seed): [round(value, 3) for value in curve] for seed, curve in own.items()}
            for name, own in curves.items()
        },
        "mean_best_AP": {
            name: round(statistics.mean(curve[-1] for curve in own.values()), 3)
            for name, own in curves.items()
        },
        f"{first}_minus_{second}_after": differences,
        "AP_of_all_trained_candidates": {
            "count": len(every),
            "mean": round(statistics.mean(every.values()), 3),
            "deviation": round(statistics.stdev(every.values()), 3),
            "largest": round(max(every.values()), 3),
        },
        "rejected_by_limits": {
            f"{name}-{seed}": sum(record.state == "pruned" for record in search.phase.history())
            for (name, seed), search in searches.items()
        },
    }


def main() -> None:
    """Read the command line, carry the searches out, write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--budget", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    data = apply_overrides(read_yaml(arguments.recipe), arguments.overrides)
    recipe = spinenet_recipe(check_search(data, source=str(arguments.recipe)))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with (
        Study.open(arguments.directory) as study,
        ProcessPoolExecutor(
            arguments.workers,
            mp_context=get_context("spawn"),
            initializer=open_worker,
            initargs=(recipe, arguments.directory),
        ) as pool,
    ):
        searches = searches_of(recipe, study, range(arguments.seeds))
        known = remembered(list(searches.values()))
        while advance(list(searches.values()), arguments.budget, known, pool):
            done = min(len(search.trained()) for search in searches.values())
            print(f"{done} of {arguments.budget} candidates each, {len(known)} trained", flush=True)
        result = {
            "command": (
                "python benchmarks/spinenet_controllers.py DIR OUTPUT"
                + "".join(f" --set {one}" for one in arguments.overrides)
                + f" --seeds {arguments.seeds} --budget {arguments.budget}"
            ),
            "environment": environment(recipe),
            "recipe": to_data(replace(recipe, retrain=None)),
            **summary(searches, arguments.budget),
        }
    write_atomic(arguments.output, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps({name: result[name] for name in result if "minus" in name}, indent=1))


if __name__ == "__main__":
    main()
