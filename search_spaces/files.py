"""Writing a file whole or not at all, saying why where it cannot be written; opening one that others may have made."""

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search_spaces.errors import RunError

_REFUSED = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around whatever writes ``path``.

    Raises:
        RunError: the system refuses it; names the file, for the system's own error often does not.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}. {_ADVICE}") from error


def refused(error: OSError) -> str | None:
    """The sentence for an error of a disk that is full, failing or not to be written; None for any other."""
    if error.errno not in _REFUSED:
        return None
    return f"{error.filename or 'a file'}: the system refuses it: {error.strerror}. {_ADVICE}"


_ADVICE = "What was finished is kept; make room or allow writing, then resume"


def write_atomic(path: Path, content: bytes) -> None:
    """Replace ``path`` with ``content``; a kill at any moment leaves the old file or the new one.

    Raises:
        RunError: see :func:`writing`; the old file is left.
    """
    put(write_beside(path, content), path)


def write_beside(path: Path, content: bytes) -> Path:
    """Write ``content`` where it can take the place of ``path``, and bring it to the disk.

    Raises:
        RunError: see :func:`writing`; nothing is left of it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # A piece of it would take the room that somebody is about to make.
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def beside(path: Path) -> Path:
    """Where this process writes what is to take the place of ``path``; see :func:`sweep`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep(directory: Path) -> None:
    """Remove what killed processes had half written (:func:`beside`) anywhere under a folder.

    What a living process of this machine writes is left, but another machine's cannot be told from a dead one's and
    goes: a second one that writes there, as ``nas export`` may, then ends with an error and can be called again.
    """
    for path in directory.rglob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if not pid.isdecimal() or (int(pid) != os.getpid() and _lives(int(pid))):
            continue
        # A file that cannot be removed costs its room, not the run.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def put(new: Path, path: Path) -> None:
    """Rename a file to ``path``, over what is there, and bring that to the disk.

    Raises:
        RunError: see :func:`writing`.
    """
    with writing(path):
        new.replace(path)
        # The rename itself must reach the disk too, else a power cut can undo it.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file that is one: no link, folder, pipe or device.

    Raises:
        RunError: it is something else, or cannot be opened.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RunError(f"{path} is no regular file (links are not followed); put the file itself there")
        # A link that took its place since is not followed either.
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_regular(path: Path, *, limit: int) -> bytes:
    """The content of a file that is one and no longer than ``limit`` bytes.

    Raises:
        RunError: see :func:`open_regular`; or it is longer.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise RunError(f"{path}: has more than {limit:,} bytes, which are allowed")
    return content
