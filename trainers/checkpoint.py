"""Checkpoints: written whole or not at all, read without running what is in them, the one before kept beside.

A checkpoint ends with a digest of all its bytes, so that a flipped one is found as a missing half is. Then training
goes on from the one before; where there is none it stops and says so, for nobody asked to begin anew.
"""

import hashlib
import io
import lzma
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from search_spaces.errors import RunError
from search_spaces.files import put, write_beside


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path`` and keep what it held as :func:`previous_of` it.

    A kill at any moment leaves the old checkpoint or the new one, whole.

    Args:
        path: the file.
        state: tensors, numbers, strings, and lists and dicts of them.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # Behind the end of the archive, where torch and zipfile do not look.
    content = buffer.getvalue()
    new = write_beside(path, content + _seal(content))
    if path.exists():
        _keep(path)
    put(new, path)


def previous_of(path: Path) -> Path:
    """Where the checkpoint before this one is kept: ``checkpoint.previous.pt`` beside ``checkpoint.pt``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def sweep_checkpoint(path: Path) -> None:
    """Delete what processes that were killed while they wrote this checkpoint have left."""
    for one in path.parent.glob(f".{path.name}.*"):
        one.unlink()


def drop_previous(path: Path) -> None:
    """Delete the checkpoint before this one; a finished training needs none."""
    previous_of(path).unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        RunError: no checkpoint, one that holds more than tensors and plain data, or a damaged one.
    """
    try:
        return read_checkpoint(path.read_bytes())
    except (OSError, _Damaged) as error:
        raise RunError(
            f"{path} cannot be read as a checkpoint ({error}); delete it, and {previous_of(path).name} where there is "
            "one, to start anew"
        ) from error


def newest_checkpoint(path: Path) -> tuple[bytes | None, str]:
    """The content of a checkpoint, or of the one before where it is damaged or missing.

    Returns:
        Content that :func:`read_checkpoint` takes, None where no training has begun; and what a person has to know, a
        sentence or nothing.

    Raises:
        RunError: there are damaged ones only.
    """
    problems = []
    for one in (path, previous_of(path)):
        if not one.exists():
            continue
        try:
            content = one.read_bytes()
            state = read_checkpoint(content)
        except (OSError, _Damaged) as error:
            problems.append((one, f"{one} cannot be read as a checkpoint ({error})"))
            continue
        if one == path:
            return content, ""
        reason = problems[0][1] if problems else f"{path} is missing"
        return content, f"{reason}; going on from {one.name}, at step {state.get('step', '?')}"
    if not problems:
        return None, ""
    names = " and ".join(file.name for file, _ in problems)
    raise RunError(
        f"{'; '.join(problem for _, problem in problems)}; there is no other to go on from. What it held is lost: put "
        f"a copy of {names} back if you have one, or delete all of {path.stem}.* there to start anew"
    )


def restore_previous(path: Path) -> None:
    """Put the checkpoint before in the place of a damaged one, so that the next does not push it out."""
    put(previous_of(path), path)


def read_checkpoint(content: bytes) -> dict[str, Any]:
    """A checkpoint's state, on the CPU.

    Raises:
        ValueError: it is damaged, or holds more than tensors and plain data.
    """
    if content[-_SEAL:-_HEX] == _MARK:
        if _seal(content[:-_SEAL]) != content[-_SEAL:]:
            raise _Damaged("its digest is wrong")
        content = content[:-_SEAL]
    elif content[-_END:].find(_ZIP_END) != 0:
        # One of before there were digests ends where its archive does.
        raise _Damaged("its end is missing")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # torch writes these checksums and does not look at them.
            damaged = archive.testzip()
        if damaged is not None:
            raise _Damaged(f"the checksum of {damaged} is wrong")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise _Damaged(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(state, dict):
        raise _Damaged(f"it holds a {type(state).__name__}")
    return state


_MARK = b"\nsha256:"
_HEX = 64
_SEAL = len(_MARK) + _HEX
# The last record of an archive without a comment, as torch writes it.
_ZIP_END, _END = b"PK\x05\x06", 22


def _seal(content: bytes) -> bytes:
    """What stands behind the archive."""
    return _MARK + hashlib.sha256(content).hexdigest().encode()


class _Damaged(ValueError):
    """No checkpoint that we wrote."""


# What torch and zipfile raise for bytes that are none of theirs.
_BROKEN = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def _keep(path: Path) -> None:
    """Let the name of the one before lead to this checkpoint too; the one that it led to is gone."""
    second = path.with_name(f".{path.name}.link")
    second.unlink(missing_ok=True)
    try:
        second.hardlink_to(path)
    except OSError:
        # A file system without hard links: for a moment there is the one before only, and that is looked for too.
        second = path
    second.replace(previous_of(path))
