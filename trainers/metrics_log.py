"""The metrics file of a training: one JSON object a line, replay-safe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.files import write_atomic, writing


class MetricsLog:
    """Appends lines; a resumed training cuts back what lies after its checkpoint, so no line occurs twice.

    Args:
        path: the file; None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line; ``entry["steps"]`` says after how many steps it was written."""
        if self._path is None:
            return
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def truncate(self, steps: int) -> None:
        """Keep the lines of the first ``steps`` steps; a torn last line goes too."""
        if self._path is None or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not isinstance(entry, dict) or entry.get("steps", steps + 1) > steps:
                break
            kept.append(line)
        write_atomic(self._path, "".join(f"{line}\n" for line in kept).encode())
