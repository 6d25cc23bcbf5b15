"""Numbers of a run as metrics of MLflow; where to is said by MLflow's own variables of the environment."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nas.loggers.base import About, Ending, Scalar

_BATCH, _PARAMETERS, _LENGTH = 1000, 100, 500
"""The most that MLflow takes in one request: metrics, parameters, characters of a parameter in its oldest stores."""
_STATUS: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflowLogger:
    """Every start is a run of MLflow, in the experiment ``MLFLOW_EXPERIMENT_NAME`` (``vertebra``)."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""

    def begin(self, about: About) -> None:
        """Create the run, with the recipe as its parameters."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        # Not the functions of the package, whose run of the moment belongs to the program around this one.
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "vertebra"
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        tags = {"run_directory": str(about.directory.resolve())}
        self._run = self._client.create_run(experiment, run_name=about.name, tags=tags).info.run_id
        parameters = [Param(key, text[:_LENGTH]) for key, text in flat(about.settings).items()]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first : first + _PARAMETERS])

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        """A metric ``group/name`` each."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(plain(f"{one.group}/{one.name}"), one.value, now, one.step) for one in scalars]
        for first in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._run, metrics=metrics[first : first + _BATCH])

    def end(self, ending: Ending) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, status=_STATUS[ending])


def plain(name: str) -> str:
    """A name without the signs that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", name)


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Dotted path -> text of a value; lists in one piece, what is empty left out."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        path = plain(f"{place}{key}")
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.")
        elif value not in (None, [], ""):
            found[path] = str(value)
    return found
