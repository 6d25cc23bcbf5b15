"""Workers side by side: results, failures, Ctrl-C, a killed parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.engines.processes import in_processes
from search_spaces.errors import DataError, RunError

SCRIPT = """
import os, sys, time
from pathlib import Path
from nas.engines.processes import in_processes

def wait_here(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    list(in_processes(wait_here, sys.argv[1:], 2))
"""


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise DataError(f"piece {number} cannot be read")


def die(number: int) -> int:
    os._exit(number)


def test_every_piece_comes_back_with_its_result():
    assert dict(in_processes(square, [1, 2, 3], 2)) == {1: 1, 2: 4, 3: 9}


def test_a_failure_keeps_its_sentence():
    with pytest.raises(RunError, match="piece 7 cannot be read"):
        list(in_processes(refuse, [7], 1))


def test_a_dead_worker_is_a_sentence_not_a_traceback():
    with pytest.raises(RunError, match=r"a worker process died \(exit code 9"):
        list(in_processes(die, [9], 1))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(sign, tmp_path, hear_interrupts):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    marks = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    parent = subprocess.Popen(
        [sys.executable, script, *marks], stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts
    )
    try:
        workers = [wait_for_pid(mark) for mark in marks[:2]]
        parent.send_signal(sign)
        parent.wait(timeout=20)
        deadline = time.monotonic() + 10
        while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(alive(worker) for worker in workers)
        assert not marks[2].exists(), "a piece was begun after the end"
    finally:
        if parent.poll() is None:
            parent.kill()


def wait_for_pid(mark: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if mark.exists() and mark.read_text():
            return int(mark.read_text())
        time.sleep(0.05)
    raise AssertionError("the worker never began")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
