"""One session of another system on the objective that our own search has in ``fault_table.py``; see there.

    python benchmarks/fault_peers.py PLAN

with PLAN a JSON object of ``system`` (``optuna``, ``neps`` or ``ray``), ``do`` (``search``: from the beginning or from
wherever it stands, as the system's documentation has it; ``tell``: print what is on disk), ``directory``, ``log``,
``seed``, ``budget`` and ``seconds``. It imports nothing of ours but the objective, so that a system may have an
environment of its own.
"""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/faults"))

from objective import GENES, OPTIONS, evaluate, key_of

NAMES = [f"g{place}" for place in range(GENES)]
RETRIES = 2
"""Of a trial whose worker died, as ours has them."""


def values_of(point: Mapping[str, Any]) -> list[int]:
    """A system's own point as numbers."""
    return [int(point[name]) for name in NAMES]


class OptunaStudy:
    """A journal file, the default sampler with a seed, as many further trials as have no result yet."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        import optuna

        self.plan, self.optuna = plan, optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = optuna.storages.journal.JournalFileBackend(str(Path(plan["directory"]) / "study.log"))
        self.storage = optuna.storages.JournalStorage(backend)

    def search(self) -> None:
        def objective(trial: Any) -> float:
            values = [trial.suggest_int(name, 1, OPTIONS) for name in NAMES]
            return evaluate(values, Path(self.plan["log"]), self.plan["seconds"])

        study = self.optuna.create_study(
            study_name="toy",
            storage=self.storage,
            direction="maximize",
            sampler=self.optuna.samplers.TPESampler(seed=self.plan["seed"]),
            load_if_exists=True,
        )
        complete = sum(trial.state.name == "COMPLETE" for trial in study.trials)
        study.optimize(objective, n_trials=self.plan["budget"] - complete)

    def tell(self) -> dict[str, Any]:
        begun = self.optuna.get_all_study_names(self.storage)
        trials = self.optuna.load_study(study_name="toy", storage=self.storage).trials if begun else []
        return {
            "complete": [key_of(values_of(one.params)) for one in trials if one.state.name == "COMPLETE"],
            "stuck": sum(not one.state.is_finished() for one in trials),
            "trials": [key_of(values_of(one.params)) for one in trials if len(one.params) == GENES],
        }


class Neps:
    """``neps.run`` with the same root directory and the same total, called again."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan, self.root = plan, Path(plan["directory"]) / "neps"

    def search(self) -> None:
        import logging

        import neps
        import numpy as np
        import torch

        logging.getLogger("neps").setLevel(logging.ERROR)
        # NePS draws from the global ones.
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.plan["seed"])

        class Space(neps.PipelineSpace):  # type: ignore[misc]
            g0 = neps.Integer(1, OPTIONS)
            g1 = neps.Integer(1, OPTIONS)
            g2 = neps.Integer(1, OPTIONS)
            g3 = neps.Integer(1, OPTIONS)
            g4 = neps.Integer(1, OPTIONS)
            g5 = neps.Integer(1, OPTIONS)

        def pipeline(**point: Any) -> float:
            return -evaluate(values_of(point), Path(self.plan["log"]), self.plan["seconds"])

        neps.run(
            pipeline,
            Space(),
            root_directory=self.root,
            total_evaluations_to_spend=self.plan["budget"],
            optimizer="random_search",
        )

    def tell(self) -> dict[str, Any]:
        import neps.state

        if not self.root.exists():
            return {"complete": [], "stuck": 0, "trials": []}
        state = neps.state.NePSState.create_or_load(path=self.root, load_only=True)
        trials = list(state.lock_and_read_trials().values())
        named = [(str(one.metadata.state.value), self._key(one.config)) for one in trials]
        return {
            "complete": [key for state, key in named if state == "success"],
            "stuck": sum(state in ("evaluating", "submitted", "pending") for state, _ in named),
            "trials": [key for _, key in named],
        }

    @staticmethod
    def _key(point: Mapping[str, Any]) -> str:
        found = {name: value for key, value in point.items() for name in NAMES if key.endswith(name)}
        return key_of(values_of(found))


class RayTune:
    """``Tuner.fit``, then ``Tuner.restore`` with its unfinished and failed trials; one trial at a time."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        import ray
        from ray import tune

        self.plan, self.tune = plan, tune
        self.path = Path(plan["directory"]) / "toy"
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)

    def _tuner(self) -> Any:
        plan, tune = dict(self.plan), self.tune

        def trainable(point: dict[str, Any]) -> dict[str, float]:
            sys.path.insert(0, plan["objective"])
            from objective import evaluate as score

            return {"score": score([point[name] for name in NAMES], Path(plan["log"]), plan["seconds"])}

        if tune.Tuner.can_restore(str(self.path)):
            return tune.Tuner.restore(str(self.path), trainable, resume_unfinished=True, restart_errored=True)
        random.seed(plan["seed"])
        import numpy as np

        np.random.seed(plan["seed"])  # noqa: NPY002 - Tune draws from the global one
        return tune.Tuner(
            trainable,
            param_space={name: tune.randint(1, OPTIONS + 1) for name in NAMES},
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=plan["budget"], max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(
                name=self.path.name,
                storage_path=str(self.path.parent),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )

    def search(self) -> None:
        results = self._tuner().fit()
        found = {
            "complete": [
                key_of([one.config[name] for name in NAMES])
                for one in results
                if "score" in (one.metrics or {})
            ],
            "stuck": sum("score" not in (one.metrics or {}) and one.error is None for one in results),
            "trials": [key_of([one.config[name] for name in NAMES]) for one in results],
        }
        Path(self.plan["directory"], "told.json").write_text(json.dumps(found))

    def tell(self) -> dict[str, Any]:
        told = Path(self.plan["directory"], "told.json")
        return (
            dict(json.loads(told.read_text()))
            if told.exists()
            else {"complete": [], "stuck": 0, "trials": []}
        )


SYSTEMS = {"optuna": OptunaStudy, "neps": Neps, "ray": RayTune}


def main(words: Sequence[str]) -> None:
    """Search, or tell."""
    plan = json.loads(words[0])
    if plan["do"] == "tell" and plan["system"] == "ray":
        print(json.dumps(RayTune.tell(type("", (), {"plan": plan})())))  # without a cluster
        return
    system = SYSTEMS[plan["system"]](plan)
    if plan["do"] == "search":
        system.search()
    else:
        print(json.dumps(system.tell()))


if __name__ == "__main__":
    main(sys.argv[1:])
