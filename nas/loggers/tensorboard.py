"""Numbers of a run as event files of TensorBoard, under ``RUN/tensorboard``, one folder a group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.loggers.base import About, Ending, Scalar

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes fresh files at every start, which hold what those before held; so no number is there twice or torn."""

    def __init__(self) -> None:
        self._directory = Path()
        self._writers: dict[str, Any] = {}

    def begin(self, about: About) -> None:
        """Remember where; a group's folder is made with its first number."""
        # Now, for torch leaves it to the first writer to find out that TensorBoard is not there.
        import torch.utils.tensorboard  # noqa: F401

        self._directory = about.directory / FOLDER

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        """One event each."""
        for one in scalars:
            self._writer(one.group).add_scalar(one.name, one.value, one.step)

    def end(self, ending: Ending) -> None:
        """Close the files."""
        del ending
        for writer in self._writers.values():
            writer.close()

    def _writer(self, group: str) -> Any:
        if group not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            folder = self._directory / group
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            # A TensorBoard that looks on holds the old ones in memory; it forgets what lies from the purged step on.
            self._writers[group] = SummaryWriter(str(folder), purge_step=0, flush_secs=5)
        return self._writers[group]
