"""What a run has cost: clock, processors and devices of every start, by what was being done. Torch-free.

Each start of a run keeps one file under ``ledger/``, replaced every few seconds: a process that is killed has booked
all but its last moments, those whose results it lost included. At any time exactly one activity is booked, so the clock
seconds of all activities are the time that the run has been under way.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.errors import RunError
from search_spaces.files import write_atomic

FOLDER = "ledger"
BEGUN = "data.json"
"""Is in the directory of every run that has begun."""
BEAT = 2.0
"""Seconds between two entries of a running process; so much of it a kill can lose."""
REST = "everything else"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds on the clock, of processors and of devices.

    Args:
        wall: on the clock.
        cpu: of this process and those that it started, on this machine.
        device: of GPUs, each counted while it was held.
    """

    wall: float = 0.0
    cpu: float = 0.0
    device: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(wall=self.wall + other.wall, cpu=self.cpu + other.cpu, device=self.device + other.device)


@dataclass(frozen=True, kw_only=True)
class Start:
    """One process that carried a run on.

    Args:
        host: its machine.
        pid: its number there.
        began: seconds since 1970.
        ended: whether it came to an orderly end; the others were killed, or run still.
        late: whether the run had begun before books were kept.
        activities: what was spent on each.
    """

    host: str
    pid: int
    began: float
    ended: bool
    late: bool = False
    activities: Mapping[str, Spent]


@dataclass
class Books:
    """Books of one process; an activity outside of :meth:`open` is not booked.

    Args:
        directory: of the run.
    """

    directory: Path
    _path: Path | None = None
    _began: float = 0.0
    _late: bool = False
    _spent: dict[str, Spent] = field(default_factory=dict)
    _stack: list[tuple[str, float]] = field(default_factory=list)
    _since: Spent = field(default_factory=Spent)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep books of this process until the end, an error and Ctrl-C included."""
        if self._path is not None:
            yield
            return
        self._began = time.time()
        self._path = self.directory / FOLDER / f"{time.time_ns()}-{os.getpid()}.json"
        self._spent, self._stack, self._since = {}, [(REST, 0.0)], _now()
        self._late = (self.directory / BEGUN).exists() and not _starts(self.directory)
        self._write(ended=False)
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="ledger", daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            self._write(ended=True)
            self._path, self._spent = None, {}

    @contextmanager
    def activity(self, name: str, devices: float = 0.0) -> Iterator[None]:
        """Book what follows under a name; an activity inside of another is taken out of it.

        Args:
            name: of it; several of one name are added.
            devices: GPUs held, fractions of them counted.
        """
        with self._lock:
            self._settle()
            self._stack.append((name, devices))
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                self._stack.pop()

    def elapsed(self) -> float:
        """Clock seconds of all starts of the run, this one included."""
        with self._lock:
            mine = sum(one.wall for one in self._spent.values())
            mine += 0.0 if self._path is None else _now().wall - self._since.wall
        own = None if self._path is None else self._path.name
        return mine + sum(
            spent.wall
            for path, start in _starts(self.directory).items()
            if path.name != own
            for spent in start.activities.values()
        )

    def _settle(self) -> None:
        """Book the time since the last entry under the activity under way."""
        if self._path is None or not self._stack:
            return
        name, devices = self._stack[-1]
        now = _now()
        wall = now.wall - self._since.wall
        passed = Spent(wall=wall, cpu=max(0.0, now.cpu - self._since.cpu), device=devices * wall)
        self._spent[name] = self._spent.get(name, Spent()) + passed
        self._since = now

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            self._write(ended=False)

    def _write(self, *, ended: bool) -> None:
        with self._lock:
            self._settle()
            start = Start(
                host=platform.node(),
                pid=os.getpid(),
                began=self._began,
                ended=ended,
                late=self._late,
                activities=dict(self._spent),
            )
            path = self._path
        assert path is not None, "written while open only"
        # Books must not hurt what they are about; where the disk is full the next entry holds this one too.
        with suppress(RunError):
            write_atomic(path, (json.dumps(asdict(start), indent=1) + "\n").encode())


def starts_of(directory: Path) -> list[Start]:
    """All starts of a run, oldest first."""
    return list(_starts(directory).values())


def by_activity(starts: list[Start]) -> dict[str, Spent]:
    """What all starts together spent on each activity, in the order of their first."""
    found: dict[str, Spent] = {}
    for start in starts:
        for name, spent in start.activities.items():
            found[name] = found.get(name, Spent()) + spent
    return found


def total(spent: Mapping[str, Spent]) -> Spent:
    """All activities together."""
    return sum(spent.values(), Spent())


def _starts(directory: Path) -> dict[Path, Start]:
    found = {}
    for path in sorted((directory / FOLDER).glob("*.json")):
        try:
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            spent = {name: Spent(**one) for name, one in plain.pop("activities").items()}
            found[path] = Start(**plain, activities=spent)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            # A damaged entry costs its figures, not the run.
            continue
    return found


@dataclass
class Looked:
    """What the scoring of a candidate has looked at until now.

    Attributes:
        images: shown to a network, each as often as it was.
        macs: backbone multiply-adds of that; an image that is learned from counts three times.
    """

    images: int = 0
    macs: int = 0

    def read(self) -> dict[str, float]:
        """As attributes of a trial; nothing where the proxy does not book."""
        return {"images_seen": self.images, "macs_spent": self.macs} if self.images else {}


_LOOKED: ContextVar[Looked | None] = ContextVar("looked", default=None)


@contextmanager
def looking() -> Iterator[Looked]:
    """Collect what is booked by :func:`looked_at` from here on."""
    found = Looked()
    token = _LOOKED.set(found)
    try:
        yield found
    finally:
        _LOOKED.reset(token)


def looked_at(images: int, macs: int, *, learned: bool = False) -> None:
    """Book images that the candidate under way was shown, for its trial; a proxy calls it as it goes along.

    Args:
        images: how many.
        macs: backbone multiply-adds of one of them.
        learned: whether gradients were computed, which is twice as much again.
    """
    if (now := _LOOKED.get()) is not None:
        now.images += images
        now.macs += images * macs * (3 if learned else 1)


class Stopwatch:
    """Clock and processor seconds of this process from its making on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """``seconds`` and ``cpu_seconds``, as the attributes of a trial have them."""
        return {
            "seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
        }


def _now() -> Spent:
    return Spent(wall=time.perf_counter(), cpu=cpu_seconds())


def cpu_seconds() -> float:
    """Processor seconds of this process and of those that it started, ended ones included."""
    mine = os.times()
    ended = mine.children_user + mine.children_system
    return mine.user + mine.system + ended + _of_descendants(os.getpid())


def _of_descendants(pid: int) -> float:
    """The same of the processes under this one that are alive; 0 where the system does not say."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            one = int(path.parent.name)
            parents[one], ticks[one] = int(fields[1]), sum(map(int, fields[11:15]))
    below = {pid}
    # A parent may have a larger number than its child, once numbers have gone round.
    while more := {one for one, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(ticks[one] for one in below if one in ticks and one != pid) / os.sysconf("SC_CLK_TCK")
