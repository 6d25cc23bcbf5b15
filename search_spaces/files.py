"""Writing a file whole or not at all."""

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Replace ``path`` with ``content``; a kill at any moment leaves the old file or the new one."""
    put(write_beside(path, content), path)


def write_beside(path: Path, content: bytes) -> Path:
    """Write ``content`` where it can take the place of ``path``, and bring it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def put(new: Path, path: Path) -> None:
    """Rename a file to ``path``, over what is there, and bring that to the disk."""
    new.replace(path)
    # The rename itself must reach the disk too, else a power cut can undo it.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
