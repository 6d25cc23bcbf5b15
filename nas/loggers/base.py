"""What a logger is: numbers of a run in, and nothing out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class About:
    """Which run is logged.

    Args:
        name: of its recipe.
        directory: of the run.
        settings: the resolved recipe as plain data.
    """

    name: str
    directory: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """One number.

    Args:
        group: what it is of: the trials of a phase, or a training.
        name: what it is.
        step: number of the trial, or training steps done; rises within a group.
        value: finite.
    """

    group: str
    name: str
    step: int
    value: float


class RunLogger(Protocol):
    """Takes the numbers of one start of a run, in one thread; whatever it raises switches it off and nothing else."""

    def begin(self, about: About) -> None:
        """Before the first number."""
        ...

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        """Numbers, as many as came since the last call, no two of one group, name and step."""
        ...

    def end(self, ending: Ending) -> None:
        """After the last number."""
        ...
