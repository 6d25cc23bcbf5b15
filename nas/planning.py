"""What a search will take, foreseen from a measured minute: arithmetic only, torch-free.

A run is a list of works: so many equal units, carried out by the driver alone, by the workers of an engine in rounds,
or each by a process of its own. A sample of units gives the time of one; who waits for whom gives the rest.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any, Literal

from nas.saying import duration
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace

By = Literal["driver", "engine", "processes"]
LEAST = 4
"""Candidates without which no search is worth its name."""
SHARE_DRAWS = 500
"""Uniform draws for the share of a space that its limits let through."""
Z = 1.96
"""Of a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class PlannedSpace:
    """What a phase searches, with what it may cost.

    Args:
        name: of the phase.
        space: where.
        limits: the sentence that rejects an architecture before anything is spent, or None; None for no limits.
    """

    name: str
    space: SearchSpace
    limits: Callable[[Architecture], str | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A part of a run.

    Args:
        name: as the ledger books it.
        count: of units; None where only the search will tell.
        unit: what they are, in the plural.
        by: the driver, one unit after the other; the engine's workers, in rounds; or a process for each unit.
        macs: multiply-adds of one unit, backbone only, an image trained on counted as three forward passes; None
            where a proxy of a person's own decides.
        at_most: the count is a bound, because some are stopped on the way.
        like: the work whose units are the same, so that they are measured once.
        least: units below which a budget must not cut it; None: it cannot be cut.
        trials: of the candidates' phase, those that its limits reject included.
        exhaustive: whether its controller looks at all of a space, in the order of the genes.
    """

    name: str
    count: int | None
    unit: str
    by: By
    macs: float | None
    at_most: bool = False
    like: str | None = None
    least: int | None = None
    trials: int | None = None
    exhaustive: bool = False


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Units that were carried out for the plan.

    Args:
        seconds: of each.
        start: seconds until a fresh process was ready for its first one.
        memory: bytes of one process at its largest.
    """

    seconds: tuple[float, ...]
    start: float
    memory: int

    @property
    def mean(self) -> float:
        """Seconds of one."""
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run may take place.

    Args:
        workers: side by side.
        speed: of one of them, in that of a worker here.
        price: of one, an hour.

    Raises:
        ConfigError: a number that no place has.
    """

    workers: int
    speed: float = 1.0
    price: float | None = None

    def __post_init__(self) -> None:
        wrong = [
            f"--{name}: found {value:g}; allowed is {allowed}"
            for name, value, fits, allowed in (
                ("devices", self.workers, self.workers >= 1, "1 or more"),
                ("speed", self.speed, self.speed > 0, "above 0, 1 for a worker of this machine"),
                ("price", self.price or 0.0, (self.price or 0.0) >= 0, "0 or more"),
            )
            if not fits
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """What one work takes in one place.

    Args:
        seconds: on the clock.
        busy: seconds that all its workers together compute.
        memory: bytes of all its processes.
        cost: of the whole place while it lasts, in the price's currency.
    """

    seconds: float
    busy: float
    memory: int
    cost: float | None


def foresee(work: Work, sample: Sample, place: Place, *, batch: int) -> Foreseen:
    """The time, memory and price of a work.

    Args:
        work: with a known count.
        sample: of its units.
        place: where.
        batch: candidates of one round, all of which are told before the next is begun.
    """
    assert work.count is not None, "asked of works whose count is known"
    units = [one / place.speed for one in islice(cycle(sample.seconds), work.count)]
    if work.by == "driver" or not units:
        workers, seconds = 1, sum(units)
    elif work.by == "engine":
        workers = min(place.workers, batch)
        rounds = [units[first : first + batch] for first in range(0, len(units), batch)]
        seconds = sample.start + sum(makespan(one, workers) for one in rounds)
    else:
        workers = min(place.workers, len(units))
        seconds = makespan([sample.start + one for one in units], workers)
    cost = None if place.price is None else place.workers * place.price * seconds / 3600
    return Foreseen(seconds=seconds, busy=sum(units), memory=workers * sample.memory, cost=cost)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of some units ends, each begun in turn by the worker that is free first."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a space the limits let through.

    Args:
        within: of the draws, or of the whole space.
        draws: uniform ones; None: every architecture was looked at.
        size: of the space.
    """

    within: int
    draws: int | None
    size: int

    @property
    def value(self) -> float:
        """As a fraction."""
        return self.within / (self.draws or self.size)

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, Wilson's (1927); the share itself where every architecture was looked at."""
        if self.draws is None:
            return self.value, self.value
        middle = (self.value + Z**2 / (2 * self.draws)) / (1 + Z**2 / self.draws)
        spread = self.value * (1 - self.value) / self.draws + Z**2 / (4 * self.draws**2)
        reach = Z * math.sqrt(spread) / (1 + Z**2 / self.draws)
        return max(0.0, middle - reach), min(1.0, middle + reach)

    def __str__(self) -> str:
        if self.draws is None:
            return f"{self.value:.0%} within the limits ({self.within:,} of {self.size:,})"
        low, high = self.interval
        return f"{self.value:.0%} within the limits ({low:.0%} to {high:.0%}, {self.draws} uniform draws)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One work of a plan.

    Args:
        work: what is done.
        sample: units of it that were measured here.
        here: what it takes on this machine; None where only the search will tell how many units there are.
        there: the same in the place that was described.
    """

    work: Work
    sample: Sample
    here: Foreseen | None
    there: Foreseen | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will take.

    Args:
        spaces: name of a phase, of its space, its size, and the share within the limits.
        threads: whether the workers have cores, in a sentence.
        rows: the works in their order.
        measured: seconds that measuring took.
    """

    spaces: tuple[tuple[str, str, Share], ...]
    threads: str
    rows: tuple[Row, ...]
    measured: float

    def total(self, where: str) -> Foreseen | None:
        """All works together; None without such a place. What nobody can count is left out.

        Args:
            where: ``here`` or ``there``.
        """
        found: list[Foreseen] = [one for row in self.rows if (one := getattr(row, where)) is not None]
        if not found:
            return None
        costs = [one.cost for one in found if one.cost is not None]
        return Foreseen(
            seconds=sum(one.seconds for one in found),
            busy=sum(one.busy for one in found),
            memory=max(one.memory for one in found),
            cost=sum(costs) if costs else None,
        )

    @property
    def macs(self) -> float:
        """Multiply-adds of all works that can be counted."""
        return sum((row.work.macs or 0.0) * (row.work.count or 0) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        totals = {where: self.total(where) for where in ("here", "there")}
        return {
            "spaces": [
                {
                    "phase": phase,
                    "space": space,
                    "size": share.size,
                    "share": share.value,
                    "interval_95": list(share.interval),
                    "draws": share.draws,
                }
                for phase, space, share in self.spaces
            ],
            "threads": self.threads,
            "works": [
                {
                    **asdict(row.work),
                    "seconds_each": row.sample.mean,
                    "units_measured": len(row.sample.seconds),
                    "seconds_to_start": row.sample.start,
                    "here": None if row.here is None else asdict(row.here),
                    "there": None if row.there is None else asdict(row.there),
                }
                for row in self.rows
            ],
            "total": {name: None if one is None else asdict(one) for name, one in totals.items()},
            "macs": self.macs,
            "measured_seconds": self.measured,
        }


def threads_line(workers: int, threads: int, cores: int, *, batch: int, engine: str) -> str:
    """Whether all workers' threads have a core each, in a sentence."""
    side_by_side = workers if engine == "serial" else min(workers, batch)
    wanted = side_by_side * threads
    said = f"{_several(side_by_side, 'worker')} of {_several(threads, 'thread')} each on {_several(cores, 'core')}"
    if wanted > cores:
        said += f": {wanted} threads share {cores}, so nothing is gained beyond {max(1, cores // threads)} of them"
        said += "; what is found stays the same"
    if engine != "serial" and batch < workers:
        said += f"; batch is {batch}, so {workers - batch} of {workers} workers never score a candidate"
    return said


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def plan_lines(
    plan: Plan,
) -> tuple[list[tuple[str, str]], list[str], list[list[str]], list[str]]:
    """A plan for people: facts with their names, a table's head and rows, and last lines."""
    facts = [
        (f"{phase} searches", f"{space}: {share.size:,} architectures, {share}")
        for phase, space, share in plan.spaces
    ]
    facts.append(("threads", plan.threads))
    there = any(row.there is not None for row in plan.rows)
    whole = plan.total("there")
    priced = whole is not None and whole.cost is not None
    columns = ["work", "units", "each", "here", "memory", "MACs"]
    columns += ["there"] * there + ["cost"] * priced
    rows = []
    for row in plan.rows:
        work, here = row.work, row.here
        count = "?" if work.count is None else f"{'up to ' if work.at_most else ''}{work.count:,} {work.unit}"
        macs = "?" if work.macs is None or work.count is None else f"{work.macs * work.count:.1e}"
        cells = [work.name, count, duration(row.sample.mean, fine=True)]
        cells += ["?", "?"] if here is None else [duration(here.seconds, fine=True), size(here.memory)]
        rows.append([*cells, macs, *_in_place(row.there, there, priced)])
    if (total := plan.total("here")) is not None:
        sums = ["together", "", "", duration(total.seconds), size(total.memory), f"{plan.macs:.1e}"]
        rows.append([*sums, *_in_place(plan.total("there"), there, priced)])
    last = [f"measured for {duration(plan.measured)} on this machine"]
    if any(row.here is None for row in plan.rows):
        last.append("?: only the search will tell how many; left out of the sum")
    return facts, columns, rows, last


def _in_place(found: Foreseen | None, wanted: bool, priced: bool) -> list[str]:
    time = "?" if found is None else duration(found.seconds, fine=True)
    cost = "?" if found is None or found.cost is None else f"{found.cost:,.2f}"
    return [time] * wanted + [cost] * priced


def size(memory: int) -> str:
    """Bytes as a person says them."""
    return f"{memory / 2**30:.1f} GiB"


def plain(value: object) -> Any:
    """A plan as plain data for JSON; figures that nobody can use all of the digits of are rounded."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
