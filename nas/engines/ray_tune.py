"""Candidates scored by trials of Ray Tune, on this machine or on a cluster.

A Tune trial is the lease of a worker: it opens a proxy once and then scores candidate after candidate until the search
ends. Tune places the leases, counts their GPUs and CPUs and notices when one dies. Candidates reach them through one
actor on the driver's machine, the :class:`Board`; scores come back as the results of the Tune trial. Nothing that Tune
writes is ever read again: the study is the only truth, and only the driver writes it.
"""

import asyncio
import json
import pickle
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.engines.base import STARTS, Began, Job, Lost, Outcome, outcome_of, problem_of
from nas.engines.ray_cluster import RayWorkers, connected, require_alive, require_room, vital
from nas.proxies.base import Proxy
from nas.trials import Score
from search_spaces.errors import CandidateFailed, RunError

PATIENCE = 0.5
"""Seconds between two looks at the clock and at Tune."""
LOOK = 1.0
"""Seconds between two looks at what the leases are at, for a person who looks on."""
KNOCK = 3.0
"""Seconds between two looks at Ray's own processes."""
FAREWELL = 30.0
"""Seconds that Tune may take to end its leases."""

_DETAIL = "Worker exit detail:"


@dataclass(frozen=True, kw_only=True)
class Released:
    """What the board knew of a lease that is gone.

    Args:
        key: of the job that was under way, or None.
        ready: whether its proxy was open.
        seconds: that the job was under way.
    """

    key: int | None
    ready: bool
    seconds: float = 0.0


class Board:
    """Hands jobs out, one to a free lease; an actor, whose methods run in turn."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._given: dict[int, tuple[int, bytes]] = {}
        self._begun: dict[int, float] = {}
        self._actors: dict[int, Any] = {}
        self._gone: set[int] = set()
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, jobs: Sequence[tuple[int, bytes]]) -> None:
        """More jobs, after those that wait."""
        async with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify_all()

    async def withdraw(self) -> list[int]:
        """Those that nobody has taken yet are not wanted any more; their keys."""
        keys = [key for key, _ in self._waiting]
        self._waiting.clear()
        return keys

    async def take(self, lease: int, actor: Any) -> tuple[int, bytes] | None:
        """The next job, once there is one; None at the end of the search. Whoever asks has finished its last one."""
        self._given.pop(lease, None)
        self._begun.pop(lease, None)
        self._actors[lease] = actor
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or lease in self._gone or bool(self._waiting))
            if self._closed or lease in self._gone:
                return None
            self._given[lease] = self._waiting.popleft()
            return self._given[lease]

    async def begin(self, lease: int) -> None:
        """A lease has its job and begins with it."""
        if lease in self._given:
            self._begun[lease] = time.monotonic()

    async def release(self, lease: int) -> Released:
        """A lease is gone; a job that had not reached it goes to the next one."""
        async with self._changed:
            self._gone.add(lease)
            ready = self._actors.pop(lease, None) is not None
            given, begun = self._given.pop(lease, None), self._begun.pop(lease, None)
            if given is not None and begun is None:
                self._waiting.appendleft(given)
            self._changed.notify_all()
            if given is None or begun is None:
                return Released(key=None, ready=ready)
            return Released(key=given[0], ready=ready, seconds=time.monotonic() - begun)

    async def begun_before(self, seconds: float) -> dict[int, Any]:
        """Leases whose job began so long ago or earlier, with their actors."""
        now = time.monotonic()
        return {lease: self._actors[lease] for lease, since in self._begun.items() if now - since >= seconds}

    async def under_way(self) -> dict[int, float]:
        """Keys of the jobs that were begun with, and the seconds since."""
        now = time.monotonic()
        return {self._given[lease][0]: now - since for lease, since in self._begun.items()}

    async def close(self) -> dict[int, Any]:
        """No lease gets another job; those at work, with their actors."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
            return {lease: self._actors[lease] for lease in self._given}


class Lease(tune.Trainable):  # type: ignore[misc]
    """A Tune trial: one worker, which scores a candidate at every step."""

    def setup(self, config: dict[str, Any], board: Any, open_proxy: Callable[[], Proxy]) -> None:
        """Open the proxy; what goes wrong there is told with the first step, in its own words."""
        self._board, self._lease = board, int(config["lease"])
        self._problem: str | None = None
        try:
            self._proxy = open_proxy()
        except Exception as error:
            self._problem = problem_of(error)

    def step(self) -> dict[str, Any]:
        """One candidate's outcome as JSON text, in which a float is the same to the bit."""
        if self._problem is not None:
            return {"problem": self._problem, "done": True}
        this = ray.get_runtime_context().current_actor
        taken = ray.get(self._board.take.remote(self._lease, this))
        if taken is None:
            return {"done": True}
        key, job = taken
        # Waited for: a candidate that kills at once would take the message with it, and never be charged.
        ray.get(self._board.begin.remote(self._lease))
        try:
            # Written by our own driver, and it came through Ray, which pickles as well.
            outcome = outcome_of(pickle.loads(job), self._proxy)  # noqa: S301
        except Exception as error:
            return {"problem": problem_of(error), "done": True}
        answer: dict[str, Any] = {"outcome": json.dumps({"key": key, **_plain(outcome)})}
        if isinstance(outcome, Lost):
            # Short of memory: what this worker still holds is free once it has ended.
            ray.get(self._board.release.remote(self._lease))
            answer["done"] = True
        return answer


def _plain(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Score):
        return {"value": outcome.value, "attributes": dict(outcome.attributes)}
    if isinstance(outcome, Lost):
        return {"lost": outcome.reason, "seconds": outcome.seconds}
    return {"failed": str(outcome), "spent": outcome.spent}


def _outcome(plain: dict[str, Any]) -> Outcome:
    if "lost" in plain:
        return Lost(plain["lost"], plain["seconds"])
    if "failed" in plain:
        return CandidateFailed(plain["failed"], plain["spent"])
    return Score(value=plain["value"], attributes=plain["attributes"])


class Leases(Searcher):  # type: ignore[misc]
    """What Tune asks for its next trial: a lease for every worker that is missing, until the search ends.

    Args:
        count: workers.
    """

    def __init__(self, count: int) -> None:
        super().__init__(metric=None, mode=None)
        self._count = count
        self.live: dict[str, int] = {}
        """Tune's name of a trial -> its lease."""
        self._last = 0
        self.closed = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A lease; None while there are enough, for Tune asks again when one has ended."""
        if self.closed:
            return str(Searcher.FINISHED)
        if len(self.live) < self._count:
            self._last += 1
            self.live[trial_id] = self._last
            return {"lease": self._last}
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A lease has ended."""
        del result, error
        self.live.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see :meth:`save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Listener(tune.Callback):  # type: ignore[misc]
    """What Tune tells, handed on to the search's thread.

    Args:
        events: gets a name and what belongs to it.
    """

    def __init__(self, events: "queue.SimpleQueue[tuple[str, Any]]") -> None:
        self._events = events

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An outcome, or why a worker cannot go on."""
        del iteration, trials, trial, info
        for name in ("outcome", "problem"):
            if name in result:
                self._events.put((name, result[name]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker is gone."""
        del iteration, trials, info
        self._events.put(("lost", (int(trial.config["lease"]), _reason(Path(trial.error_file).read_text()))))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _reason(text: str) -> str:
    """Why a worker is gone: the fact out of Ray's page of facts and advice."""
    if "OutOfMemory" in text or "low on memory" in text or "memory pressure" in text:
        return "its worker was ended because its node was short of memory"
    if "its node has died" in text:
        return "the node of its worker is gone"
    detail = text.partition(_DETAIL)[2].strip() or text.strip().splitlines()[-1]
    return f"its worker process died ({detail.partition('. ')[0].strip()})"


class RayTune:
    """An engine of Ray Tune trials; use it in a ``with`` statement.

    Args:
        open_proxy: makes the proxy in each worker, threads included. It travels through Ray's object store once a
            node, with whatever it holds.
        workers: how many at a time, and what each of them takes.
        deadline: seconds that one job may take, the worker's start not counted; None: any number.
        address: of a running cluster, see :func:`nas.engines.ray_cluster.connected`.
        environment: variables of the workers, set before Python starts.
        say: gets lines for the person who looks on.
        began: hears of a job within a second of its beginning; of one that ends sooner perhaps not at all.
    """

    def __init__(
        self,
        open_proxy: Callable[[], Proxy],
        workers: RayWorkers,
        *,
        deadline: float | None = None,
        address: str | None = None,
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
        began: Began | None = None,
    ) -> None:
        self._open_proxy, self._workers, self._deadline = open_proxy, workers, deadline
        self._address, self._environment, self._say = address, environment or {}, say
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._leases = Leases(workers.count)
        self._late: set[int] = set()
        self._began, self._seen, self._looked = began, set[int](), 0.0
        self._wanted: dict[int, Job] = {}
        self._last = self._failed_starts = 0
        self._knocked = -inf

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """As they come.

        Raises:
            RunError: a worker cannot open its proxy, raises what does not concern one candidate, or Ray is gone.
        """
        self._wanted.clear()
        self.add(jobs)
        try:
            while self._wanted:
                key, outcome = self._next()
                # An answer to a question that nobody asks any more, or to one that was given up, is nobody's.
                if key in self._wanted:
                    yield self._wanted.pop(key), outcome
        finally:
            self.withdraw()

    def add(self, jobs: Sequence[Job]) -> None:
        """After those that wait."""
        new = dict(enumerate(jobs, start=self._last + 1))
        self._last += len(new)
        self._wanted |= new
        self._ask(self._board.put.remote([(key, pickle.dumps(job)) for key, job in new.items()]))

    def withdraw(self) -> None:
        """Nothing waits any more."""
        if self._wanted:
            for key in self._ask(self._board.withdraw.remote()):
                self._wanted.pop(key, None)

    def _next(self) -> tuple[int, Outcome]:
        """The next outcome, with the key of its job."""
        while True:
            self._knock()
            self._end_overdue()
            self._look()
            try:
                name, found = self._events.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if name == "outcome":
                self._failed_starts = 0
                plain = json.loads(found)
                return plain["key"], _outcome(plain)
            if name != "lost":
                raise RunError(found)
            lease, reason = found
            released = self._lost(lease, reason)
            if released.key is not None:
                if lease in self._late:
                    reason = f"it took longer than the deadline of {self._deadline:g} s"
                return released.key, Lost(reason, released.seconds)

    def _lost(self, lease: int, reason: str) -> Released:
        """What a worker was at when it died."""
        released: Released = self._ask(self._board.release.remote(lease))
        if not released.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise RunError(
                    f"{STARTS} workers died before they were ready ({reason}). What was finished is kept; resume with "
                    "fewer workers"
                )
        return released

    def _knock(self) -> None:
        if time.monotonic() - self._knocked > KNOCK:
            require_alive(self._vital)
            self._knocked = time.monotonic()

    def _end_overdue(self) -> None:
        if self._deadline is None:
            return
        for lease, actor in self._ask(self._board.begun_before.remote(self._deadline)).items():
            if lease not in self._late:
                self._late.add(lease)
                ray.kill(actor)

    def _look(self) -> None:
        """Tell of the jobs begun since the last look."""
        now = time.monotonic()
        if self._began is None or now - self._looked < LOOK:
            return
        self._looked = now
        found: dict[int, float] = self._ask(self._board.under_way.remote())
        for key in found.keys() - self._seen:
            if key in self._wanted:
                self._began(self._wanted[key], found[key])
        self._seen = set(found)

    def _ask(self, reply: Any) -> Any:
        try:
            return ray.get(reply, timeout=60)
        except RayError as error:
            require_alive(self._vital)
            raise RunError(
                f"Ray is gone ({type(error).__name__}). What was finished is kept; go on with nas resume"
            ) from error

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(
                connected(self._workers, address=self._address, environment=self._environment)
            )
            self._vital = vital()
            room = require_room(self._workers)
            if room < self._workers.count:
                self._say(f"the Ray cluster has room for {room} of {self._workers.count} workers")
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
            self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vertebra-tune-"))
            self._thread = threading.Thread(target=self._tune, name="ray tune", daemon=True)
            self._thread.start()
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._leases.closed = True
        # Where Ray is gone, there is nobody left to end.
        with self._opened, suppress(RayError, RunError):
            require_alive(self._vital)
            for actor in self._ask(self._board.close.remote()).values():
                ray.kill(actor)
            self._thread.join(FAREWELL)
            ray.kill(self._board)

    def _tune(self) -> None:
        """Tune's own loop, in a thread: it ends when the search does."""
        trainable = tune.with_parameters(Lease, board=self._board, open_proxy=self._open_proxy)
        try:
            tune.Tuner(
                tune.with_resources(trainable, self._workers.each),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(self._leases, max_concurrent=self._workers.count),
                    num_samples=-1,
                ),
                run_config=tune.RunConfig(
                    storage_path=self._folder,
                    verbose=0,
                    callbacks=[Listener(self._events)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            ).fit()
        except Exception as error:
            self._events.put(("over", f"Ray Tune ended with {type(error).__name__}: {error}"))
        else:
            self._events.put(("over", "Ray Tune ended before the search did"))
