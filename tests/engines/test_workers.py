"""Worker processes: Ctrl-C, replacement, end."""

import os
import signal
import time
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from toy import SPACE, Toy

from nas.engines.base import Job, Lost
from nas.engines.workers import Workers
from nas.proxies.base import Proxy
from nas.trials import Score


def late(directory: Path) -> Proxy:
    """Ctrl-C comes while a worker opens its proxy, and would be heard there."""
    (directory / f"begun-0-{os.getpid()}").touch()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    return Toy(directory, {})


def test_ctrl_c_does_not_reach_a_worker(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    # As in a fresh process, whose first worker is started together with the tracker.
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    with Workers(partial(late, tmp_path / "calls"), 1) as workers:
        ((_, found),) = workers.outcomes([Job(number=0, candidate=SPACE.baseline)])
    assert isinstance(found, Score)
    assert len(list((tmp_path / "calls").glob("begun-*"))) == 1, "the first worker was interrupted"
    # The mask was the workers' alone.
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_workers_live_on_and_die_with_the_search(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    jobs = [Job(number=n, candidate=one) for n, one in enumerate(SPACE.enumerate())][:6]
    with Workers(partial(Toy, tmp_path / "calls", {}), 2) as workers:
        for _ in range(2):
            assert all(not isinstance(found, Lost) for _, found in workers.outcomes(jobs))
        pids = {int(file.name.split("-")[2]) for file in (tmp_path / "calls").iterdir()}
        assert 1 <= len(pids) <= 2
        # A worker that dies between two jobs is replaced, and nobody is blamed for it.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert all(not isinstance(found, Lost) for _, found in workers.outcomes(jobs))
        pids = {int(file.name.split("-")[2]) for file in (tmp_path / "calls").iterdir()}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
