"""The fault driver: a search, one kind of fault at a moment that a seed draws, ``resume`` until the budget is reached.

What it returns is an :class:`Account`, counted from what the processes logged and from the study as it lies on disk,
never from what the search says of itself. Used by the tests beside it and by ``benchmarks/fault_table.py``.
"""

import ctypes
import dataclasses
import itertools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from faulty import PHASE, Plan, run, values_of
from objective import key_of, lines_of

from nas.journal import JOURNAL, SUMS, Guard, cut_before
from nas.study import History, Record, Study

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT = 240.0
"""Seconds after which a search that has not ended is stuck."""
GRACE = 0.25
"""Seconds in which a result has to be on disk."""
ROOM = 12_000
"""Bytes that a disk has left at most when it fills up, less than a search writes."""

Outline = list[tuple[int, str, str, float | None]]


@dataclass
class Account:
    """What a search has cost that was disturbed.

    Args:
        kind: of the faults.
        engine: of the search.
        seed: of the moments.
        faults: that took place.
        lost: results that were on disk before a fault and are not, or not the same, at the end.
        repeated: evaluations of candidates whose result was on disk, or that nothing had interrupted.
        again: evaluations of candidates that a fault had interrupted.
        charged: trials beyond the budget.
        stuck: trials without an end, searches that did not end, workers that outlived theirs.
        equal: whether the history is that of the undisturbed search.
        told: what the search said at its end, where a fault ended it.
        problems: anything else that was not as it should be.
    """

    kind: str
    engine: str
    seed: int
    faults: int = 0
    lost: int = 0
    repeated: int = 0
    again: int = 0
    charged: int = 0
    stuck: int = 0
    equal: bool = False
    told: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing lost, repeated, charged twice or stuck, and the same search."""
        return self.equal and not (
            self.lost or self.repeated or self.charged or self.stuck or self.problems or not self.faults
        )


class Session:
    """A process that works at a search until it ends or is ended.

    Args:
        command: of the process.
        log: of the evaluations.
        prepare: called in it before anything else.
        limit: seconds after which it is stuck.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        prepare: Callable[[], None] | None = None,
        limit: float = LIMIT,
    ) -> None:
        self.log = log
        self.began = len(lines_of(self.log))
        self._errors = self.log.with_suffix(".err").open("w+b")
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            preexec_fn=prepare,
            start_new_session=True,
        )
        self._deadline = time.monotonic() + limit

    def new(self) -> list[list[str]]:
        """Lines of the log since the session began."""
        return lines_of(self.log)[self.began :]

    def wait_for(self, ready: Callable[[], bool]) -> bool:
        """Whether it is so before the process ends."""
        while not ready():
            if self.process.poll() is not None or time.monotonic() > self._deadline:
                return False
            time.sleep(0.002)
        return True

    def kill(self) -> float:
        """SIGKILL to the process itself, at what time; those that it started must see to themselves."""
        killed = time.monotonic()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._errors.close()
        return killed

    def end(self) -> tuple[int | None, str]:
        """Its exit code (None: it did not end in time) and all it said."""
        code: int | None = None
        try:
            code = self.process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        self._errors.close()
        return code, text


def moment(session: Session, rng: random.Random, evaluations: float, seconds: float) -> bool:
    """Wait for a moment of a search, somewhere in its next evaluations; False: it was over before.

    Args:
        session: under way.
        rng: draws the moment.
        evaluations: how many.
        seconds: that each takes.
    """
    lines = len(session.new()) + rng.randint(1, max(1, round(2 * evaluations)))
    pause = rng.uniform(0.0, 1.2 * seconds)
    reached = session.wait_for(lambda: len(session.new()) >= lines)
    time.sleep(pause)
    return reached and session.process.poll() is None


class Case:
    """One search and what happens to it; kinds of faults are its methods, see :data:`KINDS`."""

    def __init__(self, kind: str, plan: Plan, rng: random.Random, seed: int, last: str | None = None) -> None:
        self.plan, self.rng, self._last = plan, rng, last
        self.account = Account(kind=kind, engine=plan.engine, seed=seed)
        self.log, self.directory = Path(plan.log), Path(plan.directory)
        self._read = 0
        self._durable: dict[int, tuple[str, float | None]] = {}
        self._lost_before: Counter[str] = Counter()
        self._open: set[str] = set()
        """Candidates that a fault has interrupted."""

    # What is counted.

    def count(self) -> History:
        """After a session: what is on disk, and what the session evaluated beyond what it had to."""
        history = self.records()
        losses: Counter[str] = Counter()
        for record in history:
            losses[word_of(record)] += record.lost
        lines = lines_of(self.log)
        begun = Counter(words[2] for words in lines[self._read :] if words[0] == "begin")
        self._read = len(lines)
        done_before = {key for key, _ in self._durable.values()}
        for key, times in begun.items():
            may = 0 if key in done_before else 1 + losses[key] - self._lost_before[key]
            self.account.repeated += max(0, times - may)
            self.account.again += min(times, may) - (key not in self._open) if may else 0
        self._lost_before = losses
        now = {record.number: result_of(record) for record in history if is_durable(record)}
        self.account.lost += sum(now.get(number) != result for number, result in self._durable.items())
        self._durable = now
        self._open = {key for key in (*begun, *self._open) if key not in {one for one, _ in now.values()}}
        return history

    def forget(self) -> None:
        """What a fault has taken off the disk itself is no longer on it."""
        self._durable = {one.number: result_of(one) for one in self.records() if is_durable(one)}

    def records(self) -> History:
        """The study as it lies on disk."""
        if not (self.directory / JOURNAL).exists():
            return ()
        with Study.open(self.directory, read_only=True) as study:
            return study.records(PHASE) if PHASE in study.phase_names() else ()

    def finish(self) -> Account:
        """Resume to the end, and compare with the undisturbed search."""
        if self._last is not None:
            self.plan = dataclasses.replace(self.plan, engine=self._last, seconds=0.0)
        session = self.session()
        code, text = session.end()
        if code != 0:
            self.account.problems.append(f"the last session ended with {code}: {text[-600:]}")
            self.account.stuck += code is None
        return self.settle()

    def settle(self) -> Account:
        """What came out in the end."""
        history, account = self.count(), self.account
        account.charged = max(0, len(history) - self.plan.budget)
        account.stuck += sum(not record.finished for record in history) + len(self.outliving())
        expected = undisturbed(self.plan.seed, self.plan.budget, tuple(self.failing()))
        account.equal = outline(history) == expected
        if account.equal:
            account.problems += self.reasons(history)
        return account

    def failing(self) -> list[str]:
        """Candidates that must have failed in the end."""
        return sorted(key for key, trouble in self.plan.trouble.items() if " once" not in trouble)

    def reasons(self, history: History) -> Iterator[str]:
        """Failures that do not say why."""
        says = {"die": "died", "hang": "deadline", "exceed": "out of memory", "starve": "died"}
        for record in history:
            if record.state == "failed":
                wanted = says[self.plan.trouble[word_of(record)]]
                if wanted not in str(record.reason) or "it was tried 3 times" not in str(record.reason):
                    yield f"trial {record.number} failed for another reason: {record.reason}"

    def outliving(self) -> set[int]:
        """Workers that live although their search is over."""
        pids = {int(words[1]) for words in lines_of(self.log) if words[0] == "begin"} - {os.getpid()}
        deadline = time.monotonic() + 10
        while (left := {pid for pid in pids if working(pid)}) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def ended(self, session: Session, wanted: str) -> None:
        """A fault that must end the search in one sentence and exit code 2."""
        code, text = session.end()
        self.account.stuck += code is None
        said = [line for line in text.splitlines() if line.startswith("error: ")]
        if code != 2 or len(said) != 1 or not re.search(wanted, said[0]) or "Traceback" in text:
            self.account.problems.append(f"ended with {code} and not one sentence: {text[-600:]}")
        self.account.told += said

    # What happens.

    def session(self, prepare: Callable[[], None] | None = None) -> Session:
        """From wherever the search stands."""
        plan = json.dumps(dataclasses.asdict(self.plan))
        return Session([sys.executable, "-c", "from faulty import main; main()", plan], self.log, prepare)

    def moment(self, session: Session, share: float = 1.0) -> bool:
        """Wait for a moment within a share of the budget."""
        return moment(session, self.rng, share * self.plan.budget, self.plan.seconds)

    def driver(self, times: int) -> Account:
        """SIGKILL to the driver, so many times."""
        for _ in range(times):
            if not self.killed(1 / times):
                break
        return self.finish()

    def killed(self, share: float) -> bool:
        """A session that ends by SIGKILL."""
        session = self.session()
        reached = self.moment(session, share)
        killed = session.kill()
        self.account.faults += reached
        self.account.stuck += len(self.outliving())
        self.count()
        on_disk = {key for key, _ in self._durable.values()}
        late = completed(session.new(), killed) - on_disk
        self.account.problems += [f"{key} was scored and is not on disk" for key in late]
        return reached

    def worker(self, times: int) -> Account:
        """SIGKILL to the worker of an evaluation under way, so many times, no candidate more than twice."""
        session = self.session()
        hit: Counter[str] = Counter()
        for _ in range(times):
            if not self.moment(session, 0.8 / times):
                break
            if busy := wait_for_busy(
                session, spared={key for key, times_hit in hit.items() if times_hit == 2}
            ):
                pid, key = self.rng.choice(busy)
                hit[key] += 1
                self.account.faults += kill_below(pid)
        return self._to_the_end(session)

    def _to_the_end(self, session: Session) -> Account:
        """A fault that must not end the search."""
        code, text = session.end()
        if code != 0:
            self.account.problems.append(f"ended with {code}: {text[-600:]}")
            self.account.stuck += code is None
        self.count()
        return self.settle() if code == 0 else self.finish()

    def raylet(self, times: int) -> Account:
        """SIGKILL to the raylet of a node that is not the driver's."""
        session = self.session()
        pids = self.log.with_name("raylets.json")
        for _ in range(times):
            if self.moment(session, 0.6 / times):
                own, *others = json.loads(pids.read_text())
                assert own not in others
                self.account.faults += kill_below(self.rng.choice(others))
        return self._to_the_end(session)

    def own_raylet(self, times: int) -> Account:
        """SIGKILL to the raylet of the driver's machine: the search ends with a sentence, and is resumed."""
        for _ in range(times):
            session = self.session()
            if self.moment(session, 0.3 / times):
                pids = self.log.with_name("raylets.json")
                raylet = json.loads(pids.read_text())[0] if pids.exists() else raylet_of(session.process.pid)
                self.account.faults += kill_below(raylet)
                self.ended(session, "Ray's raylet .* died.*resume")
            else:
                session.kill()
            self.account.stuck += len(self.outliving())
            self.count()
        return self.finish()

    def candidate(self, times: int) -> Account:
        """Candidates that make trouble, so many, drawn among those that the search will ask for."""
        del times
        account = self._to_the_end(self.session())
        begun = {words[2] for words in lines_of(self.log) if words[0] == "begin"}
        account.faults = len(begun & self.plan.trouble.keys())
        return account

    def disk(self, times: int) -> Account:
        """A disk that is full, or a file that may not grow, while the search writes; then there is room again."""
        for _ in range(times):
            if self.rng.random() < 0.5 and can_mount(self.log.parent):
                with small_disk(self.directory) as grow:
                    other = self.directory / "other"
                    # A page for each of the small files beside the journal.
                    fill(other, leaving=self.rng.randint(1, ROOM // times + 2 * 4096))
                    self._filled(None)
                    other.unlink()
                    grow()
            else:
                size = (self.directory / JOURNAL).stat().st_size if (self.directory / JOURNAL).exists() else 0
                limit = size + self.rng.randint(1, ROOM // times)
                self._filled(lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        return self.finish()

    def _filled(self, prepare: Callable[[], None] | None) -> None:
        session = self.session(prepare)
        self.ended(session, rf"{re.escape(str(self.directory))}.*: (No space left|File too large)")
        self.account.faults += 1
        self.count()

    def read_only(self, times: int) -> Account:
        """A run directory that nobody may write, found at the start of a session: nothing is spent."""
        for turn in range(times):
            if turn:
                self.killed(1 / times)
            self.directory.chmod(0o555)
            before = len(lines_of(self.log))
            try:
                session = self.session(obey_modes)
                self.ended(session, rf"{re.escape(str(self.directory))}.*: Permission denied")
            finally:
                self.directory.chmod(0o755)
            self.account.faults += 1
            if len(lines_of(self.log)) != before:
                self.account.problems.append("something was evaluated")
        return self.finish()

    def truncation(self, times: int) -> Account:
        """The end of the journal is gone from any byte on, that of the checksums from any other."""
        for _ in range(times):
            if not self.killed(1 / times):
                break
            path = self.directory / JOURNAL
            if path.exists():
                for file in (path, path.with_name(SUMS)):
                    os.truncate(file, self.rng.randint(0, file.stat().st_size))
                self.forget()
        return self.finish()

    def flip(self, times: int) -> Account:
        """A bit of the journal is another one: refused with the record's number, and on before it."""
        for _ in range(times):
            if not self.killed(1 / times):
                break
            path = self.directory / JOURNAL
            if not path.exists() or path.stat().st_size < 2:
                continue
            content = bytearray(path.read_bytes())
            whole = content.rfind(b"\n")
            if whole < 1:
                continue
            place = self.rng.randrange(whole)
            content[place] ^= 1 << self.rng.randrange(8)
            path.write_bytes(content)
            number = content.count(b"\n", 0, place) + 1
            self.ended(self.session(), rf"record {number}: its bytes are not.*--from {number}")
            guard = Guard(self.directory)
            cut_before(path, number)
            guard.release()
            self.forget()
        return self.finish()


KINDS: dict[str, tuple[Callable[[Case, int], Account], tuple[str, ...]]] = {
    "driver": (Case.driver, ("serial", "processes", "ray")),
    "worker": (Case.worker, ("processes", "ray")),
    "raylet": (Case.raylet, ("nodes",)),
    "own raylet": (Case.own_raylet, ("ray", "nodes")),
    "out of memory": (Case.candidate, ("serial", "processes", "ray")),
    "hang": (Case.candidate, ("processes", "ray")),
    "kills its worker": (Case.candidate, ("processes", "ray")),
    "any trouble": (Case.candidate, ("processes", "ray")),
    "full disk": (Case.disk, ("serial", "processes")),
    "read-only": (Case.read_only, ("serial",)),
    "truncation": (Case.truncation, ("serial",)),
    "flipped bit": (Case.flip, ("serial",)),
}
"""Kind of fault -> what brings it about, and the engines that it concerns."""
TROUBLE = {
    "out of memory": ("exceed", "starve"),
    "hang": ("hang",),
    "kills its worker": ("die",),
    "any trouble": ("exceed", "starve", "hang", "die"),
}
"""Kind of fault -> what candidates do, in turn."""


def faulted(
    kind: str,
    engine: str,
    seed: int,
    folder: Path,
    *,
    times: int = 1,
    address: str | None = None,
    budget: int = 20,
    seconds: float = 0.06,
    last: str | None = None,
) -> Account:
    """Disturb a search and bring it to its end.

    Args:
        kind: of :data:`KINDS`.
        engine: see :class:`faulty.Plan`.
        seed: of moments, places and candidates; the search's own is one of four that follow from it.
        folder: new, for the run and the logs.
        times: faults.
        address: of a Ray cluster that runs.
        budget: trials.
        seconds: of an evaluation.
        last: engine of the last session; the same one where None.
    """
    rng = random.Random(f"{kind} {seed}")
    folder.mkdir(parents=True)
    (folder / "run").mkdir()
    trouble: dict[str, str] = {}
    if kind in TROUBLE:
        asked = [key for _, key, _, _ in undisturbed(seed % 4, budget, ())]
        first = list(dict.fromkeys(asked))[: budget // 2]
        for key, what in zip(rng.sample(first, times), itertools.cycle(TROUBLE[kind]), strict=False):
            # A process that is the driver too does not outlive the system's own kill.
            trouble[key] = (TROUBLE[kind][0] if engine == "serial" else what) + rng.choice(("", " once"))
    plan = Plan(
        directory=str(folder / "run"),
        log=str(folder / "calls.log"),
        engine=engine,
        seed=seed % 4,
        budget=budget,
        # Ray is looked at every few seconds.
        seconds=0.8 if kind == "own raylet" else seconds,
        trouble=trouble,
        deadline=1.0 if "hang" in TROUBLE.get(kind, ()) else None,
        address=address,
    )
    return KINDS[kind][0](Case(kind, plan, rng, seed, last), times)


@cache
def undisturbed(seed: int, budget: int, failing: tuple[str, ...]) -> Outline:
    """The search that nothing happens to, in this process; the candidates named fail by themselves."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run").mkdir()
        plan = Plan(
            directory=f"{folder}/run",
            log=f"{folder}/calls.log",
            seed=seed,
            budget=budget,
            seconds=0.0,
            trouble=dict.fromkeys(failing, "fail"),
        )
        return outline(run(plan))


def outline(history: History) -> Outline:
    """What two equal searches have in common."""
    return [(record.number, word_of(record), record.state, record.value) for record in history]


def word_of(record: Record) -> str:
    """The candidate as it stands in the log."""
    return key_of(values_of(record.candidate))


def is_durable(record: Record) -> bool:
    """Whether a result is on disk."""
    return record.finished or record.kept is not None


def result_of(record: Record) -> tuple[str, float | None]:
    """Candidate and score, told or kept."""
    kept = None if record.kept is None else getattr(record.kept, "value", None)
    return word_of(record), record.value if record.finished else kept


def completed(lines: Sequence[Sequence[str]], before: float) -> set[str]:
    """Candidates whose evaluation had ended long enough before a moment to be written down."""
    return {words[2] for words in lines if words[0] == "end" and float(words[3]) < before - GRACE}


def under_way(lines: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Evaluations that were begun and not ended: pid and candidate."""
    last = {words[1]: words for words in lines if words[0] in ("begin", "end")}
    return [(int(pid), words[2]) for pid, words in last.items() if words[0] == "begin"]


def wait_for_busy(session: Session, spared: Collection[str] = ()) -> list[tuple[int, str]]:
    """Evaluations under way, as soon as there is one; none when the search ends before.

    Args:
        session: that evaluates.
        spared: candidates that do not count.
    """
    busy: list[tuple[int, str]] = []

    def found() -> bool:
        lines = session.new()
        busy[:] = [one for one in under_way(lines) if one[1] not in spared and working(one[0])]
        return bool(busy)

    session.wait_for(found)
    return busy


def kill_below(pid: int) -> bool:
    """SIGKILL to a process that this one has started, or those have; whether it lived."""
    above = pid
    while above not in (os.getpid(), 1, 0):
        above = _parent(above)
    if above != os.getpid():
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def raylet_of(driver: int) -> int:
    """Pid of the raylet of a driver's own cluster."""
    for path in Path("/proc").iterdir():
        try:
            if (
                path.name.isdigit()
                and (path / "exe").readlink().name == "raylet"
                and _parent(int(path.name)) == driver
            ):
                return int(path.name)
        except OSError:
            continue
    raise RuntimeError(f"process {driver} has started no raylet")


def working(pid: int) -> bool:
    """Whether a process lives."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def obey_modes() -> None:
    """Before a child's first instruction: root obeys the modes of files, as anybody else does."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP of CAP_DAC_OVERRIDE")


def fill(file: Path, leaving: int) -> None:
    """Write a file until its disk is full, and give so many bytes back."""
    with file.open("wb", buffering=0) as written, suppress(OSError):
        while True:
            written.write(b"\0" * 1024)
    os.truncate(file, max(0, file.stat().st_size - leaving))


@cache
def can_mount(folder: Path) -> bool:
    """Whether this process may mount a disk of memory."""
    place = folder / "mount-probe"
    place.mkdir(exist_ok=True)
    try:
        with small_disk(place):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(place: Path) -> Iterator[Callable[[], None]]:
    """A disk of 256 KiB over a directory; what it holds is there afterwards too. Gives what makes it larger."""

    def mount(*words: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", *words, "tmpfs", str(place)], check=True, capture_output=True)

    before = {one.name: one.read_bytes() for one in place.iterdir()}
    mount("-o", "size=256k")
    try:
        for name, content in before.items():
            (place / name).write_bytes(content)
        yield lambda: mount("-o", "remount,size=4m")
        after = {one.name: one.read_bytes() for one in place.iterdir()}
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)
    for name, content in after.items():
        (place / name).write_bytes(content)
