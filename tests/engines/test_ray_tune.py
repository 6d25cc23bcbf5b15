"""What the Ray engine does beside the contract: leases, jobs on their way, threads, what listens, a node that dies."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.tune.search import Searcher
from toy import SPACE, Threads, Toy, calls, outline, searched

from nas.config import check, read_yaml
from nas.engines.base import Job
from nas.engines.ray_cluster import RayWorkers, connected, require_room
from nas.engines.ray_tune import Board, Leases, RayTune
from nas.methods.data import open_data
from nas.progress import Silent
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run
from nas.trials import Score
from search_spaces.architecture import Candidate
from search_spaces.errors import RunError


def test_tune_gets_a_lease_for_every_missing_worker_and_none_beside() -> None:
    leases = Leases(2)
    assert leases.suggest("a") == {"lease": 1} and leases.suggest("b") == {"lease": 2}
    assert leases.suggest("c") is None and set(leases.live) == {"a", "b"}
    leases.on_trial_complete("a", error=True)
    assert leases.suggest("d") == {"lease": 3}
    leases.closed = True
    assert leases.suggest("e") == Searcher.FINISHED


def test_a_job_that_had_not_reached_its_worker_is_given_to_the_next() -> None:
    async def scene() -> None:
        board = Board()
        await board.put([(10, b"a"), (11, b"b")])
        assert await board.take(1, "first") == (10, b"a")
        assert await board.take(2, "second") == (11, b"b")
        await board.begin(2)
        lost = await board.release(1)
        assert lost.ready and lost.key is None, "nothing was begun, so nobody is charged"
        assert await board.take(3, "third") == (10, b"a")
        await board.begin(3)
        assert set(await board.begun_before(0.0)) == {2, 3} and not await board.begun_before(60.0)
        assert (await board.release(3)).key == 10, "it was under way"
        assert not (await board.release(4)).ready, "it had never asked"
        assert set(await board.close()) == {2}
        assert await board.take(2, "second") is None

    asyncio.run(scene())


def test_a_dead_worker_that_waits_for_a_job_does_not_take_one() -> None:
    async def scene() -> None:
        board = Board()
        waits = asyncio.create_task(board.take(1, "first"))
        await asyncio.sleep(0)
        await board.release(1)
        await board.put([(10, b"a")])
        assert await waits is None
        assert await board.take(2, "second") == (10, b"a")

    asyncio.run(scene())


def listeners() -> set[str]:
    """Addresses, in hexadecimal, on which this process and those it started listen."""
    inodes = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or not _ours(int(process.name)):
            continue
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                found.add(local.partition(":")[0])
    return found


def _ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


LOOPBACK = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_own_cluster_listens_on_loopback_and_workers_have_their_threads() -> None:
    assert not ray.is_initialized()
    workers = RayTune(Threads, RayWorkers(count=2, cpus=1), environment={"OMP_NUM_THREADS": "1"})
    with workers as engine:
        found = [
            outcome
            for _, outcome in engine.outcomes([Job(number=n, candidate=SPACE.baseline) for n in range(6)])
        ]
        heard = listeners()
    assert heard and heard <= LOOPBACK
    assert not ray.is_initialized(), "what it started it has ended"
    scores = [one for one in found if isinstance(one, Score)]
    assert len(scores) == 6
    assert {one.value for one in scores} == {1.0} and {one.attributes["variable"] for one in scores} == {"1"}
    assert os.getpid() not in {one.attributes["pid"] for one in scores}


def test_no_room_and_no_cluster_are_sentences() -> None:
    with connected(RayWorkers(count=1), address=None, environment={}):
        assert require_room(RayWorkers(count=1)) == 1
        with pytest.raises(RunError, match=r"no node .* has 2 CPUs for a worker; its nodes have 1 CPUs"):
            require_room(RayWorkers(count=1, cpus=2))
        with pytest.raises(RunError, match=r"has 1 CPUs and 0.5 GPUs"):
            require_room(RayWorkers(count=1, gpus=0.5))
    with (
        pytest.raises(RunError, match=r"ray.address: found '127.0.0.1:1'"),
        connected(RayWorkers(count=1), address="127.0.0.1:1", environment={}),
    ):
        pass


class OnNodes(Toy):
    """Takes a while, and says on which node."""

    def at(self, candidate: Candidate, step: int) -> Score:
        node = ray.get_runtime_context().get_node_id()
        (self.directory.parent / "nodes" / f"{node}-{candidate.digest}").touch()
        time.sleep(0.3)
        return super().at(candidate, step)


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """Three nodes on this machine, one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def test_a_node_that_dies_costs_time_only(tmp_path: Path, nodes: Cluster) -> None:

    _, calm = searched(tmp_path / "calm", nullcontext())
    directory = tmp_path / "nodes-die"
    (directory / "nodes").mkdir(parents=True)
    _, *others = nodes.list_all_nodes()
    dead: list[str] = []

    def used() -> set[str]:
        return {file.name.partition("-")[0] for file in (directory / "nodes").iterdir()}

    def watch(record: object, history: object) -> None:
        busy = [node for node in others if node.node_id in used()]
        if not dead and len(used()) == 3:
            dead.append(busy[0].node_id)
            nodes.remove_node(busy[0], allow_graceful=False)

    engine = RayTune(
        partial(OnNodes, directory / "calls", {}),
        RayWorkers(count=3),
        address=nodes.address,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    _, history = searched(directory, engine, on_trial=watch)
    assert dead, "all three nodes were to work before one is killed"
    assert [row[:5] for row in outline(history)] == [row[:5] for row in outline(calm)]
    assert max(record.lost for record in history) <= 1
    assert {digest for digest, _ in calls(directory / "calls")} == {
        digest for digest, _ in calls(tmp_path / "calm" / "calls")
    }


def test_too_little_room_is_known_before_anything_is_trained(tmp_path: Path) -> None:
    plain = {**read_yaml(Path(__file__).parents[1] / "recipes/tiny.yaml"), "engine": "ray"}
    no_gpu = check(CRNASRecipe, {**plain, "ray": {"gpus": 99}}, source="tiny")
    with pytest.raises(RunError, match=r"ray\.gpus: found 99 for each worker, but this machine has \d+ GPUs"):
        open_data(Run.create(tmp_path / "gpus", no_gpu), Silent())
    nobody = check(CRNASRecipe, {**plain, "ray": {"address": "127.0.0.1:1"}}, source="tiny")
    with pytest.raises(RunError, match=r"ray\.address: found '127\.0\.0\.1:1'"):
        open_data(Run.create(tmp_path / "address", nobody), Silent())
    with connected(RayWorkers(count=1), address=None, environment={}):
        here = ray.get_runtime_context().gcs_address
        large = check(CRNASRecipe, {**plain, "ray": {"address": here, "cpus": 64}}, source="tiny")
        with pytest.raises(RunError, match=r"no node of the Ray cluster has 64 CPUs for a worker"):
            open_data(Run.create(tmp_path / "room", large), Silent())
