"""Independent pieces of work in processes of this machine, so many at a time, none left behind.

Every piece gets a process of its own. Ctrl-C reaches the parent alone, which ends its workers; a worker whose
parent was killed ends itself, because a resumed run would otherwise share its files with it.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from search_spaces.errors import RunError, VertebraError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

PATIENCE = 1.0
"""Seconds between two looks at the parent."""


def in_processes(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int
) -> Iterator[tuple[Piece, Result]]:
    """Carry out pieces side by side and give each with its result as it is finished.

    Args:
        work: a function at the top of a module; piece and result are pickled between our own processes.
        pieces: what there is to do; the next one is asked for when a process is free for it.
        workers: processes at a time.

    Raises:
        RunError: a piece failed, with its sentence, or a worker died; the other workers are ended.
    """
    # Spawned, because a forked process would inherit torch's thread pool in an unknown state.
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, tuple[SpawnProcess, Piece]] = {}
    waiting = iter(pieces)
    try:
        while True:
            for piece in islice(waiting, workers - len(running)):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_carry_out, args=(work, piece, sender), daemon=True)
                start(process)
                sender.close()
                running[receiver] = (process, piece)
            if not running:
                return
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process, piece = running.pop(ready)
                yield piece, _received(ready, process)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def _received(receiver: Connection, process: SpawnProcess) -> Result:  # type: ignore[type-var]
    try:
        failure, result = receiver.recv()
    except EOFError:
        process.join()
        raise RunError(
            f"a worker process died (exit code {process.exitcode}; -9 is usually the system short of memory). "
            "What was finished is kept; resume with fewer workers"
        ) from None
    process.join()
    if failure is not None:
        raise RunError(failure)
    return result  # type: ignore[no-any-return]


def _carry_out(work: Callable[[Piece], Result], piece: Piece, sender: Connection) -> None:
    end_with_parent()
    try:
        sender.send((None, work(piece)))
    except VertebraError as error:
        sender.send((str(error), None))


def start(process: SpawnProcess) -> None:
    """Start a worker that Ctrl-C does not reach, not even while it imports."""
    # Started here, for the first start of all would start it, and that takes the mask off.
    resource_tracker.ensure_running()
    # A mask outlives exec, and a Ctrl-C of these milliseconds waits for its end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """In a worker: watch the parent from now on, and end when it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker was started by somebody"
    threading.Thread(target=watch, args=(parent.pid,), daemon=True).start()


def watch(parent: int) -> None:
    """End this process when its parent, of this number, is gone; for a thread."""
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)
