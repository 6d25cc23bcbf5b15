"""The journal file of a run: made safe to open after a kill, and opened for one writer at a time.

Optuna's journal is one JSON object a line, appended and synced. Two things a kill leaves behind make its
own reader fail: a last line without its end (the next record would be glued to it, and the file would never
open again), and the lock of the dead writer (30 seconds of waiting; for ever when its link is broken).
Beside the journal lies one checksum a record, so that a byte that changed later is noticed and named.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
import tempfile
import time
import weakref
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial

from search_spaces.errors import RunError
from search_spaces.files import write_atomic, writing

JOURNAL = "study.log"
"""Name of the journal in a run directory."""

SUMS = "study.sums"
"""Beside it: a line a record, with the place of its first byte, its length and its CRC-32, in hexadecimal."""

_GUARD = "study.owner"
_LIVE_LOCK_SECONDS = 0.25  # a living writer holds Optuna's lock for one append and one sync
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_OPERATIONS = range(11)  # optuna.storages.journal._storage.JournalOperation


class Guard:
    """One writer a run: held for the life of the process, given back by the kernel when it dies.

    A POSIX record lock: child processes (data loaders) do not inherit it, so one that outlives a killed
    parent does not keep the run closed.

    Raises:
        RunError: another living process writes to this run, or nobody can write to it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / _GUARD
        with writing(path):
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise RunError(
                f"{directory}: another process ({owner}) is running this search; "
                "wait for it, stop it with Ctrl-C, or give this search a directory of its own"
            ) from error
        try:
            with writing(path):
                self._file.truncate(0)
                self._file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
                self._file.flush()
                # The file may have been there, in a directory that has been closed since.
                with tempfile.TemporaryFile(dir=directory):
                    pass
        except RunError:
            self.release()
            raise

    def release(self) -> None:
        """Let another process write; harmless when called twice."""
        # On a full disk what could not be written is tried again here.
        with contextlib.suppress(OSError):
            self._file.close()


def open_storage(path: Path, *, read_only: bool = False) -> JournalStorage:
    """Optuna's storage on the journal ``path``; call with the run's :class:`Guard` held unless reading.

    Raises:
        RunError: the journal is damaged before its last line, or holds operations that cannot be replayed.
    """
    if not read_only:
        repair(path)
    _check_sums(path)
    _check(path)
    try:
        # Absolute, for Optuna's lock is a symbolic link to this very text.
        with quiet_optuna():
            place = path.resolve()
            return JournalStorage(JournalFileBackend(str(place))) if read_only else OwnJournal(place)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: Optuna cannot replay this journal ({type(error).__name__}: {error}); restore it from a copy, go "
            f"on before the record to blame (nas resume {path.parent} --from RECORD), or start a new run directory"
        ) from error


class SummedJournal(JournalFileBackend):
    """Optuna's journal file, which notes the checksum of every record that it writes.

    The note is not synced, for that would cost as much as the record: a power cut may lose the last of them, and a
    record without a checksum is believed. So are those of other programs, a dashboard's for example.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            super().__init__(str(path))
        self._path, self._sums_path = path, path.with_name(SUMS)
        # Written without a buffer, so that what was noted outlives this process.
        with writing(self._sums_path):
            self._sums = os.open(self._sums_path, _APPEND, 0o644)
        weakref.finalize(self, os.close, self._sums)
        self._written: tuple[int, list[bytes]] = (0, [])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, and then their checksums.

        Raises:
            RunError: the disk is full, for example; a piece of a record that it leaves is mended by the next opening.
        """
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        place = self._append(lines)
        self._written = (place, lines)
        notes = []
        for line in lines:
            notes.append(f"{place:x} {len(line):x} {zlib.crc32(line):08x}\n")
            place += len(line)
        with writing(self._sums_path):
            _write_all(self._sums, "".join(notes).encode())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from one on; those that were just written are not fetched from the file again."""
        begin, size = self._log_number_offset.get(log_number_from), self._path.stat().st_size
        place, lines = self._written
        if begin == place and begin + sum(map(len, lines)) == size:
            for number, line in enumerate(lines, start=log_number_from + 1):
                begin += len(line)
                self._log_number_offset[number] = begin
                yield json.loads(line)
        elif begin != size:
            yield from super().read_logs(log_number_from)

    def _append(self, lines: list[bytes]) -> int:
        """Write and sync lines as Optuna's own does, which does not say where; the place of their first byte."""
        self._lock.acquire()
        try:
            with writing(self._path):
                file = os.open(self._path, _APPEND, 0o644)
                try:
                    place = os.fstat(file).st_size
                    _write_all(file, b"".join(lines))
                    os.fsync(file)
                finally:
                    os.close(file)
            return place
        finally:
            self._lock.release()


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


class OwnJournal(JournalStorage):
    """The storage of a run's only writer.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(SummedJournal(path))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial as of the last write, after which everything was read, what others added included."""
        return self._replay_result.get_trial(trial_id)


def read_sums(path: Path) -> dict[int, tuple[int, int]]:
    """Place of a record's first byte in the journal ``path`` -> (its length, its CRC-32), as far as they are known."""
    sums, found = path.with_name(SUMS), {}
    if sums.exists():
        # The last note may be torn, which then has no line end.
        for match in re.finditer(
            rb"^([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]{8})\n", sums.read_bytes(), re.MULTILINE
        ):
            place, length, crc = (int(word, 16) for word in match.groups())
            found[place] = (length, crc)
    return found


def cut_before(path: Path, record: int) -> Path:
    """Take a record and all after it off a journal, into a file beside it; call with the run's :class:`Guard` held.

    Args:
        path: the journal.
        record: counted from 1, as messages do.

    Returns:
        The file that has what was taken off.

    Raises:
        RunError: no such record.
    """
    begins = require_record(path, record)
    return _set_aside(path, path.read_bytes(), begins, "cut")


def require_record(path: Path, record: int) -> int:
    """Place of a record's first byte in a journal; arguments and errors as of :func:`cut_before`."""
    content = path.read_bytes() if path.exists() else b""
    begins = [0, *(match.end() for match in re.finditer(rb"\n", content))][:-1]
    if not 1 <= record <= len(begins):
        raise RunError(f"--from {record}: {path} has records 1 to {len(begins)}; name one of them")
    return begins[record - 1]


def _set_aside(path: Path, content: bytes, whole: int, why: str) -> Path:
    """Shorten the journal to its first ``whole`` bytes; the rest goes into a new file beside it."""
    number = 0
    while (beside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    _write_synced(beside, content[whole:])
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    _forget_sums(path, whole)
    return beside


def _forget_sums(path: Path, size: int) -> None:
    """Drop the checksums of bytes that the journal does not have, for others may come to stand there.

    A torn last note goes too: the next one would be glued to it and might read as one of another place.
    """
    sums, known = path.with_name(SUMS), read_sums(path)
    kept = {place: rest for place, rest in known.items() if place + rest[0] <= size}
    torn = sums.exists() and sums.read_bytes()[-1:] not in (b"", b"\n")
    if torn or len(kept) < len(known):
        lines = (f"{place:x} {length:x} {crc:08x}\n" for place, (length, crc) in sorted(kept.items()))
        write_atomic(sums, "".join(lines).encode())


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
        path.with_name(SUMS).unlink(missing_ok=True)
        return None
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content) and whole:
        # Blocks of one write can reach the disk out of order: the line end may be there and the rest not. Where its
        # checksum was noted, it was whole once, and what is wrong with it came later.
        last = content.rfind(b"\n", 0, whole - 1) + 1
        if last not in read_sums(path) and _problem(content[last:whole]) is not None:
            whole = last
    if whole == len(content):
        _forget_sums(path, whole)
        return None
    return _set_aside(path, content, whole, "torn")


@contextlib.contextmanager
def quiet_optuna(level: int = logging.WARNING) -> Iterator[None]:
    """Hold back Optuna's log lines below ``level``; its progress lines would break into ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, level))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _check_sums(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    for place, (length, crc) in sorted(read_sums(path).items()):
        line = content[place : place + length]
        if len(line) == length and zlib.crc32(line) != crc:
            number = content.count(b"\n", 0, place) + 1
            raise RunError(
                f"{path}, record {number}: its bytes are not those that were written (CRC-32 "
                f"{zlib.crc32(line):08x}, noted {crc:08x}); the file was changed, or the disk fails. Restore it from a "
                f"copy, or go on before this record and do again what came after: nas resume {path.parent} --from "
                f"{number}"
            )


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
                    f"{path}, line {number}: {problem}; a journal has one JSON record a line. Restore the file from a "
                    f"copy, or go on before it: nas resume {path.parent} --from {number}"
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
    with writing(path), path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise
