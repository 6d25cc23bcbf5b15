"""Trials as plain data: what a proxy answers, what a study remembers, what a controller sees."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

from search_spaces.architecture import Candidate
from search_spaces.errors import CandidateFailed

Json = bool | int | float | str | None | Sequence["Json"] | Mapping[str, "Json"]
State = Literal["complete", "running", "failed", "pruned"]
STOPPED_AT = "stopped_at"
"""Attribute of a trial that repeats one that was stopped, in place of intermediate values."""
ROUND = "round"
"""Attribute of a trial that was asked for together with an earlier one: the number of their first."""
BESIDE = "beside"
"""Attribute of a trial in a search without rounds: the numbers of those under way when it was asked for."""
STAGE = "stage"
"""Attribute of a trial scored in stages: what it has cost until the last rung that it reached."""
NASWOT = "naswot"
"""Attribute of a scored trial in a phase that mean ranks decide: its network's NASWOT; see :mod:`nas.choosing`."""
AP_BY_SUPERNET = "AP_by_supernet"
"""Attribute of a trial that several supernets scored: AP in percent in each; see :mod:`nas.proxies.ensemble`."""
BY_GROUP = "by_group"
"""Attribute of a trial in a race: rung -> AP there of each group of images; see :mod:`nas.racing`."""
LOST = "lost"
"""Attribute of a trial: how many workers it has cost."""

LOST_SECONDS = "lost_seconds"
"""Attribute of such a trial: how long those workers had been at it."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a proxy says about a candidate.

    Args:
        value: larger is better.
        attributes: further measurements, ready for JSON (AP by size, seconds); never used to decide, but for
            :data:`NASWOT` where a recipe says so.

    Raises:
        CandidateFailed: the value is NaN or infinite; such a candidate has failed, it has no score.
        TypeError: attributes that JSON cannot carry (a proxy's mistake).
    """

    value: float
    attributes: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise CandidateFailed(f"the proxy's score is {self.value}; a score must be a finite number")
        check_attributes(self.attributes, what="a score's attributes")


class Stopped(Exception):
    """A candidate is not worth going on with.

    Args:
        reason: one sentence.
        attributes: what was spent until now, ready for JSON; the proxy adds them.
    """

    def __init__(self, reason: str, attributes: Mapping[str, Json] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.attributes = reason, dict(attributes or {})
        check_attributes(self.attributes, what="what a stopped candidate spent")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial, as plain data.

    Args:
        number: of the trial in its phase, from 0.
        phase: name of the phase.
        candidate: the architecture, or the decided prefix, that was tried.
        digest: of the candidate.
        value: the score; None unless complete.
        state: ``pruned`` marks a candidate that a cheap limit rejected before any proxy ran, or, with intermediate
            values, one that was stopped on the way.
        reason: one sentence when failed or pruned.
        attributes: those given at the beginning and the score's.
        intermediate: training step, or images of a race -> score there, of a proxy that scores in stages.
        kept: of a running trial: its score or failure, which waits for those of earlier trials.
    """

    number: int
    phase: str
    candidate: Candidate
    digest: str
    value: float | None = None
    state: State = "running"
    reason: str | None = None
    attributes: Mapping[str, Json] = field(default_factory=dict)
    intermediate: Mapping[int, float] = field(default_factory=dict)
    kept: Score | CandidateFailed | None = None

    @property
    def round(self) -> int:
        """Number of the first trial that was asked for together with this one, before any of them was scored."""
        found = self.attributes.get(ROUND, self.number)
        return found if isinstance(found, int) else self.number

    @property
    def beside(self) -> tuple[int, ...] | None:
        """Numbers of the trials under way when this one was asked for; None in a search by rounds."""
        found = self.attributes.get(BESIDE)
        return tuple(int(str(one)) for one in found) if isinstance(found, Sequence) else None

    @property
    def stage(self) -> Mapping[str, Json]:
        """What this trial has cost until the last rung that it reached; empty before the first."""
        found = self.attributes.get(STAGE, {})
        return found if isinstance(found, Mapping) else {}

    @property
    def lost(self) -> int:
        """How many workers this trial has cost."""
        found = self.attributes.get(LOST, 0)
        return found if isinstance(found, int) else 0

    @property
    def seconds(self) -> float:
        """Clock seconds that scoring has taken, as far as the proxy says; 0 where it was not scored."""
        return _number(self.attributes.get("seconds", self.stage.get("seconds")))

    @property
    def cpu_seconds(self) -> float:
        """The same of processors."""
        return _number(self.attributes.get("cpu_seconds", self.stage.get("cpu_seconds")))

    @property
    def images_seen(self) -> float:
        """Images that were shown to its network, as far as the proxy books them."""
        return _number(self.attributes.get("images_seen", self.stage.get("images_seen")))

    @property
    def macs_spent(self) -> float:
        """Backbone multiply-adds of that."""
        return _number(self.attributes.get("macs_spent", self.stage.get("macs_spent")))

    @property
    def lost_seconds(self) -> float:
        """How long the workers that this trial has cost had been at it."""
        return _number(self.attributes.get(LOST_SECONDS))

    @property
    def finished(self) -> bool:
        """Whether this record can no longer change."""
        return self.state != "running"

    @property
    def stopped_at(self) -> int | None:
        """The rung (training steps, or images of a race) where this candidate was stopped; None for any other."""
        if self.state != "pruned":
            return None
        if self.intermediate:
            return max(self.intermediate)
        repeated = self.attributes.get(STOPPED_AT)
        return repeated if isinstance(repeated, int) else None


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


History = Sequence[Record]
"""The trials of one phase in the order of their numbers."""


class Trials(Sequence[Record]):
    """The history of a phase as it stands whenever it is looked at; a slice of it stays as it was.

    A view, for a copy of ten thousand trials, made whenever one of them changes, costs as much as everything else. It
    knows which candidates are in it, so that a long search need not look through all of them.

    Args:
        records: of the phase, by number.
        first: digest -> number of the first trial that has it; may hold later trials too.
    """

    def __init__(self, records: Sequence[Record], first: Mapping[str, int]) -> None:
        self._records, self.first = records, first

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Record, ...]: ...

    def __getitem__(self, place: int | slice) -> Record | tuple[Record, ...]:
        return tuple(self._records[place]) if isinstance(place, slice) else self._records[place]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trials | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    # Like that of a list: it changes.
    __hash__ = None  # type: ignore[assignment]


def check_attributes(attributes: Mapping[str, Json], *, what: str) -> None:
    """Refuse what JSON cannot carry, NaN included.

    Raises:
        TypeError: names ``what`` and the attributes.
    """
    try:
        json.dumps(dict(attributes), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be plain data for JSON: {error}; found {dict(attributes)!r}") from error
