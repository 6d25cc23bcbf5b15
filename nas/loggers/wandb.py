"""Numbers of a run for Weights & Biases; where to is said by its own variables of the environment."""

import os
from collections.abc import Sequence
from typing import Any

from nas.loggers.base import About, Ending, Scalar


class WandbLogger:
    """Every start is a run of Weights & Biases, in the project ``WANDB_PROJECT`` (``vertebra``)."""

    def __init__(self) -> None:
        self._run: Any = None
        self._groups: set[str] = set()

    def begin(self, about: About) -> None:
        """Create the run, with the recipe as its configuration."""
        import wandb

        # Silent: who is not logged in gets an error and no question in the middle of the search's own view.
        wandb.setup(wandb.Settings(silent=True))

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "vertebra",
            name=about.name,
            dir=str(about.directory),
            config={**about.settings, "run_directory": str(about.directory.resolve())},
            reinit="create_new",
            # Standard output is the view's, and nobody else may wrap it.
            settings=wandb.Settings(console="off", silent=True),
        )

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        """One row for a group's step; every group has an axis of its own."""
        rows: dict[tuple[str, int], dict[str, float]] = {}
        for one in scalars:
            rows.setdefault((one.group, one.step), {})[f"{one.group}/{one.name}"] = one.value
        for (group, step), row in rows.items():
            if group not in self._groups:
                self._groups.add(group)
                self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
            self._run.log({**row, f"{group}/step": step})

    def end(self, ending: Ending) -> None:
        """Say how it ended."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)
