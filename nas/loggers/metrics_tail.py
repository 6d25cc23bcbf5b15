"""The metrics file of a training read while it is written, by this process or another one."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.loggers.base import Scalar


class MetricsTail:
    """Gives every line once.

    A training that was stopped cuts its file back to a checkpoint and writes the rest again, with the same numbers;
    what was given before is not given again.

    Args:
        path: of the file; it may come later.
        group: of its numbers.
    """

    def __init__(self, path: Path, group: str) -> None:
        self._path, self._group = path, group
        self._file: tuple[int, int] = (0, 0)
        self._read = 0
        self._given: set[tuple[str, int]] = set()

    def new(self) -> list[Scalar]:
        """The numbers of the lines that are whole by now."""
        try:
            with self._path.open("rb") as file:
                text = self._rest(file)
        except OSError:
            return []
        return [one for line in text.splitlines() for one in self._scalars(line)]

    def _rest(self, file: Any) -> bytes:
        status = os.fstat(file.fileno())
        # One that was cut back is another file.
        if (status.st_dev, status.st_ino) != self._file or status.st_size < self._read:
            self._file, self._read = (status.st_dev, status.st_ino), 0
        file.seek(self._read)
        text: bytes = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole

    def _scalars(self, line: bytes) -> Iterator[Scalar]:
        try:
            entry: dict[str, Any] = json.loads(line)
            kind, step = str(entry["kind"]), int(entry["steps"])
        except (ValueError, KeyError, TypeError):
            return
        if (kind, step) in self._given:
            return
        self._given.add((kind, step))
        if kind == "step":
            values = {"loss": entry["loss"], "lr": entry["lr"]}
            values |= {f"loss {name}": value for name, value in entry["terms"].items()}
        else:
            values = entry["metrics"]
        for name, value in values.items():
            if math.isfinite(value):
                yield Scalar(group=self._group, name=name, step=step, value=value)
