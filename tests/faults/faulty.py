"""A search to be disturbed, in a process of its own: ``driver.py`` starts it, on the objective of ``objective.py``."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import typer
from objective import GENES, OPTIONS, evaluate, key_of, lines_of

from nas.cli.door import door
from nas.controllers.catalog import make_controller
from nas.engines.base import Engine
from nas.engines.workers import Workers
from nas.search import search
from nas.study import History, Phase, Study
from nas.testing import SeparableSpace
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.errors import CandidateFailed

SPACE = SeparableSpace(GENES, OPTIONS)
PHASE = "toy"
NODES = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One search.

    Args:
        directory: of the run.
        log: outside of it, for what is disturbed may be the run's disk.
        engine: ``serial``, ``processes``, ``ray`` (in a cluster of its own) or ``nodes`` (in one of three nodes).
        seed: of the controller.
        budget: trials.
        seconds: that an evaluation takes.
        trouble: key of a candidate -> what it does: ``fail``, ``die``, ``hang``, ``exceed`` (ask for more memory than
            the process may have) or ``starve`` (die as by the system short of memory); with ``once`` after it, at the
            first call only.
        deadline: of an evaluation.
        address: of a cluster that runs.
    """

    directory: str
    log: str
    engine: str = "serial"
    seed: int = 0
    budget: int = 20
    seconds: float = 0.06
    trouble: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    address: str | None = None


@dataclass(frozen=True)
class Faulty:
    """The proxy."""

    plan: Plan

    def __call__(self, candidate: Candidate) -> Score:
        values = values_of(candidate)
        log, (kind, _, once) = Path(self.plan.log), self.plan.trouble.get(key_of(values), "").partition(" ")
        again = once and any(words[0] == "begin" and words[2] == key_of(values) for words in lines_of(log))
        trouble = None if not kind or again else TROUBLES[kind]
        return Score(value=evaluate(values, log, self.plan.seconds, trouble))


def values_of(candidate: Candidate) -> tuple[int, ...]:
    """The digits of a candidate."""
    assert isinstance(candidate, Architecture), "no prefix is asked for"
    return tuple(map(int, candidate.genes["values"]))  # type: ignore[arg-type]


def fail() -> None:
    raise CandidateFailed("a failure of this candidate")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def hang() -> None:
    time.sleep(3600)


def exceed() -> None:
    """What a machine without memory does to whoever asks for it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27, before[1]))
    try:
        bytearray(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


TROUBLES: dict[str, Callable[[], None]] = {
    "fail": fail,
    "die": die,
    "hang": hang,
    "exceed": exceed,
    "starve": die,
}


def run(plan: Plan) -> History:
    """Carry the search out, from wherever it stands."""

    with Study.open(Path(plan.directory)) as study, engine_of(plan) as engine:
        phase: Phase = study.phase(PHASE, SPACE, plan.seed)
        search(
            phase=phase,
            controller=make_controller(
                "aging_evolution",
                space=SPACE,
                seed=plan.seed,
                budget=plan.budget,
                options={"population": 6, "sample": 3},
            ),
            score=Faulty(plan),
            engine=engine,
            batch=4,
        )
        return phase.history()


@contextmanager
def engine_of(plan: Plan) -> Iterator[Engine | None]:
    """The engine, opened."""
    proxy = partial(Faulty, plan)
    if plan.engine == "serial":
        yield None
    elif plan.engine == "processes":
        with Workers(proxy, 2, deadline=plan.deadline) as engine:
            yield engine
    else:
        from nas.engines.ray_cluster import RayWorkers
        from nas.engines.ray_tune import RayTune

        count = NODES if plan.engine == "nodes" else 2
        place: AbstractContextManager[str | None] = nullcontext(plan.address)
        with nodes(Path(plan.log)) if plan.engine == "nodes" else place as address:
            path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            with RayTune(
                proxy, RayWorkers(count=count), deadline=plan.deadline, address=address, environment=path
            ) as engine:
                yield engine


@contextmanager
def nodes(log: Path) -> Iterator[str]:
    """Three nodes, one worker each; beside the log the pids of the raylets, that of the driver's own node first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        all_nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(NODES - 1))]
        pids = [node.all_processes["raylet"][0].process.pid for node in all_nodes]
        log.with_name("raylets.json").write_text(json.dumps(pids))
        yield cluster.address
    finally:
        try:
            cluster.shutdown()
        except ValueError:
            # Ray may still count a driver as connected whose raylet is dead; it has let go of it now.
            cluster.shutdown()


def main() -> None:
    """For the child process, behind the door that ``nas`` has."""
    try:
        with door("nas resume"):
            run(Plan(**json.loads(sys.argv[1])))
    except typer.Exit as end:
        sys.exit(end.exit_code)
