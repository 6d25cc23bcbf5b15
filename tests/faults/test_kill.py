"""``kill -9`` anywhere in a serial search: resumed, it equals the uninterrupted one trial for trial."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.study import History, Study

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("toy_search.py")


def start(directory: Path, name: str, kill: str = "never", seconds: float = 0.0) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory), name, kill, str(seconds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(directory: Path, name: str, kill: str = "never", seconds: float = 0.0) -> float:
    """Run to the kill or the end; the seconds it took."""
    began = time.monotonic()
    process = start(directory, name, kill, seconds)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (0 if kill == "never" else -signal.SIGKILL), errors
    return time.monotonic() - began


def history_of(directory: Path) -> History:
    with Study.open(directory, read_only=True) as study:
        return study.records("toy")


def calls(directory: Path) -> list[list[str]]:
    return [line.split() for line in (directory / "calls.log").read_text().splitlines()]


def assert_nothing_done_ran_twice(directory: Path) -> None:
    done = set()
    for kind, digest, *number in calls(directory):
        if kind == "done":
            assert number[0] not in done, f"trial {number[0]} was reported done twice"
            done |= {number[0], digest}
        elif kind == "score":
            assert digest not in done, f"{digest} was reported done and ran again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[History, str]]:
    """The uninterrupted search of each controller, and its winner."""
    found = {}
    names = (
        "aging_evolution",
        "greedy",
        "halving",
        "halving_rounds",
        "local_search",
        "nsga2",
        "policy_gradient",
        "predictor_guided",
        "random",
        "rounds",
        "tpe",
    )
    for name in names:
        directory = tmp_path_factory.mktemp(name)
        run(directory, name)
        found[name] = (history_of(directory), calls(directory)[-1][1])
        assert len(found[name][0]) == 21
    return found


KILLS = [
    ("random", ["ask:1", "ask:9", "ask:4"]),
    ("aging_evolution", ["ask:13", "score:2", "told:3"]),
    ("greedy", ["score:1", "ask:5", "told:7", "write:6", "score:1"]),
    (
        "halving",
        ["report:3", "report:1", "synced:2", "write:3", "report:5", "score:2", "synced:3", "report:4"],
    ),
    ("rounds", ["ask:2", "ask:5", "score:2", "told:3", "write:2", "write:7", "synced:1"]),
    (
        "halving_rounds",
        ["report:3", "report:2", "synced:2", "write:3", "report:5", "score:2", "told:1", "report:4"],
    ),
    ("local_search", ["ask:7", "score:5"]),
    ("policy_gradient", ["score:10", "ask:4", "told:3"]),
    ("predictor_guided", ["score:10", "ask:4", "told:3"]),
    ("tpe", ["write:9", "write:1", "write:2", "synced:3", "score:1"]),
    ("nsga2", ["write:1", "write:2", "write:3", "write:4", "write:5", "synced:1", "ask:11"]),
]


@pytest.mark.parametrize(("name", "kills"), KILLS, ids=[name for name, _ in KILLS])
def test_killed_inside_an_ask_a_score_and_a_write(
    name: str, kills: list[str], tmp_path: Path, whole: dict[str, tuple[History, str]]
) -> None:
    torn = 0
    for kill in kills:
        run(tmp_path, name, kill)
        torn += kill.startswith("write")
        if kill.startswith(("write", "synced")):
            assert (tmp_path / "study.log.lock").is_symlink(), "the kill was meant to leave a lock"
    assert run(tmp_path, name) < 20, "a lock of a dead process was waited for"
    history, winner = whole[name]
    assert history_of(tmp_path) == history
    assert calls(tmp_path)[-1] == ["winner", winner]
    assert len(list(tmp_path.glob("study.log.torn-*"))) == torn
    assert_nothing_done_ran_twice(tmp_path)


def test_a_rung_is_measured_once_and_stops_some(
    whole: dict[str, tuple[History, str]], tmp_path: Path
) -> None:
    """Killed between reports and their decisions: nothing measured is measured again."""
    history, winner = whole["halving"]
    stopped = [record for record in history if record.state == "pruned"]
    assert 5 < len(stopped) < 18
    assert {record.stopped_at for record in stopped} == {1, 2, 4}
    assert all(
        str(record.reason).startswith(f"stopped at step {record.stopped_at} of 8") for record in stopped
    )
    reports = sum(len(record.intermediate) for record in history)
    for _ in range(4):
        run(tmp_path, "halving", "report:7")
    run(tmp_path, "halving")
    assert history_of(tmp_path) == history
    measured = [tuple(line) for line in calls(tmp_path) if line[0] == "measure"]
    assert len(measured) == len(set(measured)) == reports
    assert calls(tmp_path)[-1] == ["winner", winner]


def test_killed_at_random_moments(tmp_path: Path, whole: dict[str, tuple[History, str]]) -> None:
    rng = random.Random(5)
    for _ in range(10):
        seen = len(calls(tmp_path)) if (tmp_path / "calls.log").exists() else 0
        process = start(tmp_path, "tpe", seconds=0.02)
        while not (tmp_path / "calls.log").exists() or len(calls(tmp_path)) <= seen:
            assert process.poll() in (None, 0), process.communicate()[1]
            if process.poll() == 0:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.06))
        process.kill()
        process.communicate(timeout=60)
    run(tmp_path, "tpe")
    history, winner = whole["tpe"]
    assert history_of(tmp_path) == history
    assert calls(tmp_path)[-1] == ["winner", winner]
    assert_nothing_done_ran_twice(tmp_path)


def test_a_second_writer_is_refused_while_the_first_lives_and_not_after(tmp_path: Path) -> None:
    first = start(tmp_path, "random", seconds=5.0)
    while not (tmp_path / "calls.log").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    second = start(tmp_path, "random")
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"another process (pid {first.pid} on {socket.gethostname()}) is running this search" in errors
    assert history_of(tmp_path)[0].state == "running", "looking on is always possible"
    first.kill()
    first.communicate(timeout=60)
    run(tmp_path, "random")
    assert len(history_of(tmp_path)) == 21
