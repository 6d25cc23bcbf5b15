"""What the engines cost: empty trials a second, growth over ten thousand of them, overhead beside trials of 5 s.

    python benchmarks/engines.py [--rounds 3] [--json]

Everything is measured in turn in one process on one machine, medians over the rounds: Ray Tune as it comes and with
reused actors, our engine on Ray, a bare loop of Optuna's ``add_trial`` and ``tell`` on a journal, our search on the
same kind of journal. The result is benchmarks/results/engines.json; ``--json`` prints its ratios. Run it on an idle
machine: the journal syncs every record to the disk, and a busy disk is what is measured then.
"""

import argparse
import datetime
import json
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from nas.controllers.catalog import make_controller
from nas.distributions import distributions_of
from nas.engines.base import Engine
from nas.engines.ray_cluster import RayWorkers, connected
from nas.engines.ray_tune import RayTune
from nas.engines.workers import Workers
from nas.run import environment
from nas.search import search
from nas.study import History, Record, Study
from nas.testing import SeparableSpace
from nas.trials import Score
from search_spaces.architecture import Candidate

RESULT = Path(__file__).parent / "results/engines.json"
SPACE = SeparableSpace(10, 3)
WORKERS = 2
LONG = 5.0


class Sleeping:
    """A proxy that takes so many seconds and does nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, candidate: Candidate) -> Score:
        """Equal scores for all."""
        del candidate
        if self.seconds:  # even a sleep of nothing takes a tenth of a millisecond
            time.sleep(self.seconds)
        return Score(value=0.0)


class Empty(tune.Trainable):  # type: ignore[misc]
    """The same as a trial of Ray Tune that lets its actor be used again."""

    def step(self) -> dict[str, Any]:
        """Done at once."""
        return {"value": 0.0, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Nothing to reset."""
        del new_config
        return True


class Uniform(Searcher):  # type: ignore[misc]
    """Uniform draws, as the random controller's."""

    def __init__(self) -> None:
        super().__init__(metric="value", mode="max")
        self._rng = random.Random(0)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """A candidate as parameters."""
        del trial_id
        return dict(SPACE.encode(SPACE.sample(self._rng)))

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to learn."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing kept."""


def tune_seconds(trials: int, *, reuse: bool) -> float:
    """Seconds of so many empty trials of Ray Tune itself."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tune.Tuner(
            tune.with_resources(Empty, {"CPU": 1}),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(Uniform(), max_concurrent=WORKERS),
                num_samples=trials,
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
        return time.perf_counter() - began


def bare_seconds(trials: int) -> float:
    """Seconds of so many candidates written with ``add_trial`` and told, by nothing but Optuna and a journal."""
    kinds, rng = distributions_of(SPACE.parameters), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        storage = JournalStorage(JournalFileBackend(str(Path(folder) / "study.log")))
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
        began = time.perf_counter()
        for number in range(trials):
            params = dict(SPACE.encode(SPACE.sample(rng)))
            study.add_trial(_running(params, {name: kinds[name] for name in params}))
            study.tell(number, 0.0)
        return time.perf_counter() - began


def _running(params: dict[str, Any], kinds: dict[str, Any]) -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        intermediate_values={},
        system_attrs={},
        datetime_start=datetime.datetime.now(),
        datetime_complete=None,
        params=params,
        distributions=kinds,
        user_attrs={},
    )


def our_marks(trials: int, engine: Engine | None, *, seconds: float = 0.0, batch: int = 4) -> list[float]:
    """Seconds from the beginning of a search to the end of each of its trials."""
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Study.open(Path(folder)) as study:
        began = time.perf_counter()

        def note(record: Record, history: History) -> None:
            del record, history
            marks.append(time.perf_counter() - began)

        search(
            phase=study.phase("empty", SPACE, 0),
            controller=make_controller("random", space=SPACE, seed=0, budget=trials, options={}),
            score=Sleeping(seconds),
            engine=engine,
            batch=batch,
            on_trial=note,
        )
    return marks


@contextmanager
def warm(engine: Any) -> Iterator[Engine]:
    """An engine whose workers have started: the start is told apart from the trials."""
    with engine as opened:
        our_marks(4, opened)
        yield opened


def processes() -> Any:
    return Workers(partial(Sleeping, 0.0), WORKERS)


def on_ray(seconds: float = 0.0) -> Any:
    return RayTune(partial(Sleeping, seconds), RayWorkers(count=WORKERS))


def growth(make: Callable[[], Any], trials: int) -> dict[str, float]:
    """Time per trial around the last of so many over that around the hundredth, and memory for each thousand."""
    with warm(make()) if make is not nothing else nothing() as engine:
        before = resident()
        marks = our_marks(trials, engine)
        after = resident()
    window = min(400, trials // 4)
    early = (marks[100 + window] - marks[100]) / window
    late = (marks[-1] - marks[-1 - window]) / window
    return {
        "trials": trials,
        "ms_per_trial_early": round(1000 * early, 3),
        "ms_per_trial_late": round(1000 * late, 3),
        "ratio": round(late / early, 3),
        "MB_per_1000_trials": round((after - before) / 2**20 / (trials / 1000), 2),
    }


def nothing() -> Any:
    """The serial engine."""
    return nullcontext()


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def overhead(make: Callable[[], Any], trials: int) -> dict[str, float]:
    """Share of wall time that is not a trial's, for trials of five seconds on two workers; the start told apart."""
    began = time.perf_counter()
    with make() as engine:
        our_marks(WORKERS, engine, batch=WORKERS)
        start = time.perf_counter() - began
        wall = our_marks(trials, engine, seconds=LONG)[-1]
    ideal = LONG * trials / WORKERS
    return {
        "trials": trials,
        "wall_s": round(wall, 2),
        "share": round((wall - ideal) / wall, 4),
        "start_s": round(start - LONG, 2),
    }


def measured(rounds: int, *, tune_trials: int, local_trials: int, ray_trials: int) -> dict[str, list[float]]:
    """Trials a second of everything, once a round in turn."""
    found: dict[str, list[float]] = {
        name: [] for name in ("tune_default", "tune_reuse", "ray", "processes", "bare", "local")
    }
    for _ in range(rounds):
        with connected(RayWorkers(count=WORKERS), address=None, environment={"OMP_NUM_THREADS": "1"}):
            found["tune_default"].append(tune_trials / tune_seconds(tune_trials, reuse=False))
            found["tune_reuse"].append(4 * tune_trials / tune_seconds(4 * tune_trials, reuse=True))
            with warm(on_ray()) as engine:
                found["ray"].append(ray_trials / our_marks(ray_trials, engine)[-1])
        with warm(processes()) as engine:
            found["processes"].append(local_trials / our_marks(local_trials, engine)[-1])
        found["bare"].append(local_trials / bare_seconds(local_trials))
        found["local"].append(local_trials / our_marks(local_trials, None)[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=40, help="trials of five seconds; 0 leaves them out")
    parser.add_argument("--many", type=int, default=10_000, help="trials of the growth")
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    load = os.getloadavg()[0]
    rates = measured(chosen.rounds, tune_trials=20, local_trials=1000, ray_trials=1000)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    grown = {"local": growth(nothing, chosen.many), "ray": growth(on_ray, chosen.many)}
    ratios = {
        "ray_vs_tune_default": round(middle["ray"] / middle["tune_default"], 2),
        "ray_vs_tune_reuse": round(middle["ray"] / middle["tune_reuse"], 2),
        "local_vs_optuna_journal": round(middle["local"] / middle["bare"], 3),
        "growth_100_to_10000": grown["local"]["ratio"],
        "growth_100_to_10000_ray": grown["ray"]["ratio"],
    }
    long = (
        {
            "processes": overhead(lambda: Workers(partial(Sleeping, LONG), WORKERS), chosen.long),
            "ray": overhead(lambda: on_ray(LONG), chosen.long),
        }
        if chosen.long
        else {}
    )
    result = {
        "command": "python benchmarks/engines.py",
        **ratios,
        "trials_per_second": {
            name: {"median": round(middle[name], 2), "rounds": [round(one, 2) for one in values]}
            for name, values in rates.items()
        },
        "growth": grown,
        "overhead_of_5_s_trials": long,
        "workers": WORKERS,
        "ray": ray.__version__,
        "load_before": load,
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(ratios if chosen.json else result, indent=1))


if __name__ == "__main__":
    main()
