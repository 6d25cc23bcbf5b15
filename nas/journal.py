"""The journal file of a run: made safe to open after a kill, and opened for one writer at a time.

Optuna's journal is one JSON object a line, appended and synced. Two things a kill leaves behind make its
own reader fail: a last line without its end (the next record would be glued to it, and the file would never
open again), and the lock of the dead writer (30 seconds of waiting; for ever when its link is broken).
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage

from search_spaces.errors import RunError

JOURNAL = "study.log"
"""Name of the journal in a run directory."""

_GUARD = "study.owner"
_LIVE_LOCK_SECONDS = 0.25  # a living writer holds Optuna's lock for one append and one sync
_OPERATIONS = range(11)  # optuna.storages.journal._storage.JournalOperation


class Guard:
    """One writer a run: held for the life of the process, given back by the kernel when it dies.

    A POSIX record lock: child processes (data loaders) do not inherit it, so one that outlives a killed
    parent does not keep the run closed.

    Raises:
        RunError: another living process writes to this run.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / _GUARD
        self._file: IO[str] = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise RunError(
                f"{directory}: another process (pid {owner}) is running this search; "
                "wait for it, stop it with Ctrl-C, or give this search a directory of its own"
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another process write; harmless when called twice."""
        self._file.close()


def open_storage(path: Path, *, read_only: bool = False) -> JournalStorage:
    """Optuna's storage on the journal ``path``; call with the run's :class:`Guard` held unless reading.

    Raises:
        RunError: the journal is damaged before its last line, or holds operations that cannot be replayed.
    """
    if not read_only:
        repair(path)
    _check(path)
    try:
        # Absolute, for Optuna's lock is a symbolic link to this very text.
        with quiet_optuna():
            return JournalStorage(JournalFileBackend(str(path.resolve())))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: Optuna cannot replay this journal ({type(error).__name__}: {error}); "
            "restore it from a copy or start a new run directory"
        ) from error


def repair(path: Path) -> Path | None:
    """Cut a torn last line, remove the lock of a dead writer; whole records are never touched.

    A record counts as written once its line end is: Optuna appends both in one write and reports success
    only after syncing, so nothing that was reported is lost.

    Args:
        path: the journal; absent is fine.

    Returns:
        The file beside the journal that keeps the torn piece, or None when nothing was torn.
    """
    _remove_stale_lock(path)
    if not path.exists():
        return None
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content) and whole:
        # Blocks of one write can reach the disk out of order: the line end may be there and the rest not.
        last = content.rfind(b"\n", 0, whole - 1) + 1
        if _problem(content[last:whole]) is not None:
            whole = last
    if whole == len(content):
        return None
    number = 0
    while (beside := path.with_name(f"{path.name}.torn-{number}")).exists():
        number += 1
    _write_synced(beside, content[whole:])
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return beside


@contextlib.contextmanager
def quiet_optuna(level: int = logging.WARNING) -> Iterator[None]:
    """Hold back Optuna's log lines below ``level``; its progress lines would break into ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, level))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _check(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # another process is writing this very record
            problem = _problem(line)
            if problem is not None:
                raise RunError(
                    f"{path}, line {number}: {problem}; a journal has one JSON record a line. "
                    "Restore the file from a copy, or start a new run directory"
                )


def _problem(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    if not isinstance(record, dict) or record.get("op_code") not in _OPERATIONS:
        return "not a record of an Optuna journal"
    return None


def _remove_stale_lock(path: Path) -> None:
    lock = path.with_name(path.name + ".lock")
    seen = _identity(lock)
    deadline = time.monotonic() + _LIVE_LOCK_SECONDS
    # The guard proves that no search of ours is alive; a dashboard may be, and holds it for milliseconds.
    while seen is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        if _identity(lock) != seen:
            return
    if seen is not None:
        lock.unlink(missing_ok=True)
    for left in path.parent.glob(f"{lock.name}*.rename"):
        left.unlink(missing_ok=True)


def _identity(lock: Path) -> tuple[int, int] | None:
    try:
        status = lock.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
