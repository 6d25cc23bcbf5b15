"""Ctrl-C once: what is under way is finished and durable, nothing else begins. Twice: now."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from toy import Toy, calls, outline, searched

from nas.engines.base import Engine
from nas.engines.ray_cluster import RayWorkers
from nas.engines.ray_tune import RayTune
from nas.engines.workers import Workers
from nas.proxies.base import Proxy
from nas.stopping import stopping
from nas.study import Study

ENGINES: dict[str, Callable[[Callable[[], Proxy]], AbstractContextManager[Engine | None]]] = {
    "serial": lambda open_proxy: nullcontext(),
    "processes": lambda open_proxy: Workers(open_proxy, 2),
    "ray": lambda open_proxy: RayTune(open_proxy, RayWorkers(count=2)),
}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("rounds", [True, False])
def test_what_is_under_way_is_finished_and_nothing_is_lost(tmp_path: Path, name: str, rounds: bool) -> None:
    _, calm = searched(tmp_path / "calm", nullcontext(), rungs=rounds)
    directory = tmp_path / "stopped"
    stops = 0
    for _ in range(100):
        told: list[object] = []
        engine = ENGINES[name](partial(Toy, directory / "calls", {}))
        try:
            _, history = searched(
                directory,
                engine,
                rungs=rounds,
                rounds=rounds,
                stop=lambda: len(told) >= 7,  # noqa: B023 - asked within this turn only
                on_trial=lambda record, history: told.append(record),  # noqa: B023
            )
            break
        except KeyboardInterrupt:
            stops += 1
        with Study.open(directory) as study:
            records = study.records("toy")
        scored = {digest for digest, step in calls(directory / "calls") if step == 0}
        durable = {record.digest for record in records if record.finished or record.kept is not None}
        assert scored <= durable, "what was begun was finished and written"
    assert stops >= 2
    if rounds:
        assert outline(history) == outline(calm)
        assert calls(directory / "calls") == calls(tmp_path / "calm" / "calls"), "nothing was scored twice"
    else:
        noted = calls(directory / "calls")
        assert len(noted) == len(set(noted)) and len(history) == 22


def test_the_first_press_is_heard_and_the_second_one_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt), stopping(said.append) as stop:
            assert not stop()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop() and "Ctrl-C again stops now" in said[0]
            os.kill(os.getpid(), signal.SIGINT)
        assert len(said) == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "as it was before"
    finally:
        signal.signal(signal.SIGINT, before)
