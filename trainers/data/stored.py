"""Decoded pictures in a file that all processes of a machine map: none of them holds a copy.

A set whose pixels do not fit into memory once a process lies in a folder instead (``data.cache``), decoded once. The
operating system keeps as much of it in memory as there is room for, and once for all who read it.
"""

import fcntl
import hashlib
import json
import math
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from search_spaces.errors import DataError
from search_spaces.files import write_atomic

Say = Callable[[str], None]
_VERSION = 1
PATIENCE = 30.0
"""Seconds between two lines of progress."""
# And between two looks at whether another process is done.
_POLL = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredImages:
    """Pictures in a file, which look like the tensor (N, 3, H, W) that they would be in memory.

    What is asked for by index is copied and padded with zeros at right and bottom. A process opens the file when it
    first reads, so this can be handed to others.

    Args:
        file: pixels, bytes (3, h, w) one picture after the other.
        first: byte where each picture begins.
        contents: (height, width) of each picture.
        canvas: (H, W) that all are padded to.
    """

    file: Path
    first: tuple[int, ...]
    contents: tuple[tuple[int, int], ...]
    canvas: tuple[int, int]
    _opened: list[mmap.mmap] = field(default_factory=list, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def shape(self) -> torch.Size:
        """(N, 3, H, W)."""
        return torch.Size((len(self), 3, *self.canvas))

    @property
    def nbytes(self) -> int:
        """Of the pictures in the file, without padding."""
        return sum(3 * height * width for height, width in self.contents)

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> Tensor:
        """Bytes (3, H, W) of one picture, (n, 3, H, W) of several."""
        if isinstance(which, int):
            return self.padded([range(len(self))[which]], self.canvas)[0]
        if isinstance(which, slice):
            return self.padded(range(len(self))[which], self.canvas)
        chosen = which.tolist() if isinstance(which, Tensor) else which
        return self.padded([range(len(self))[index] for index in chosen], self.canvas)

    def subset(self, indices: Sequence[int]) -> "StoredImages":
        """The chosen pictures in the same file."""
        return StoredImages(
            file=self.file,
            first=tuple(self.first[index] for index in indices),
            contents=tuple(self.contents[index] for index in indices),
            canvas=self.canvas,
        )

    def and_then(self, other: "StoredImages") -> "StoredImages":
        """These pictures and then others of the same file."""
        assert (self.file, self.canvas) == (other.file, other.canvas), "parts of one set"
        return StoredImages(
            file=self.file,
            first=self.first + other.first,
            contents=self.contents + other.contents,
            canvas=self.canvas,
        )

    def soon(self, indices: Sequence[int]) -> None:
        """Let the operating system begin to read pictures that are asked for next."""
        pixels = self._pixels()
        for index in indices:
            begin, end = self._place(index)
            page = begin - begin % mmap.PAGESIZE
            pixels.madvise(mmap.MADV_WILLNEED, page, end - page)

    def padded(self, chosen: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Bytes (n, 3, *size) of pictures that are no larger than ``size``, a (height, width)."""
        found = torch.zeros((len(chosen), 3, *size), dtype=torch.uint8)
        if chosen:
            pixels = np.frombuffer(self._pixels(), dtype=np.uint8)
            # Through numpy, for torch warns of memory that it must not write to.
            for picture, index in zip(found.numpy(), chosen, strict=True):
                height, width = self.contents[index]
                begin, end = self._place(index)
                picture[:, :height, :width] = pixels[begin:end].reshape(3, height, width)
        return found

    def _place(self, index: int) -> tuple[int, int]:
        height, width = self.contents[index]
        return self.first[index], self.first[index] + 3 * height * width

    def _pixels(self) -> mmap.mmap:
        if not self._opened:
            with self.file.open("rb") as file:
                self._opened.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return self._opened[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": []}


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """What decoding the pictures of a split has found.

    Args:
        file: of the pixels.
        places: of the pictures that could be decoded among those asked for.
        contents: (height, width) of each, as they are stored.
        sizes: (height, width) of each before it was resized.
        faults: one sentence for each that could not.
        digest: of names and pixels, going on from that of what they were asked for with.
    """

    file: Path
    places: tuple[int, ...]
    contents: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[int, int], ...]
    faults: tuple[str, ...]
    digest: str

    def images(self, canvas: tuple[int, int]) -> StoredImages:
        """The pictures, padded to (H, W)."""
        lengths = (3 * height * width for height, width in self.contents)
        first = tuple(accumulate(lengths, initial=0))[:-1]
        return StoredImages(file=self.file, first=first, contents=self.contents, canvas=canvas)


Decoded = tuple[npt.NDArray[np.uint8], tuple[int, int]] | str
"""Pixels (h, w, 3) and the (height, width) before, or what is wrong with a picture."""


def stored_split(
    folder: Path,
    *,
    key: str,
    names: Sequence[str],
    decode: Callable[[], Iterable[Decoded]],
    most: int | None,
    digest: "hashlib._Hash",
    say: Say,
) -> StoredSplit:
    """The pictures of a split in a folder's file, decoded where they are not there yet.

    One process decodes, others that want the same wait for it. A process that dies meanwhile leaves nothing that
    is taken for whole.

    Args:
        folder: made where it is missing.
        key: changes with everything that the pixels depend on.
        names: of the pictures, in order.
        decode: begins to decode them, in order.
        most: bytes that they need at most; None where that is not known.
        digest: with what the pictures were asked for in it; it goes on with names and pixels.
        say: takes a line for a person.

    Raises:
        DataError: a folder that cannot be written, or has no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Whole ones need no lock, so that they may lie where only others write.
        if (found := _read(folder, key)) is not None:
            return found
        with _locked(folder, key, say):
            return _read(folder, key) or _write(folder, key, names, decode, most, digest, say)
    except OSError as error:
        raise DataError(
            f"data.cache: {folder} cannot be used ({error.strerror or error}); take a folder on a disk of this machine "
            "that you may write to, with room for the decoded pictures, or leave the field out"
        ) from error


@contextmanager
def _locked(folder: Path, key: str, say: Say) -> Iterator[None]:
    """Alone with the files of a key; the lock of a process that dies is free again."""
    with (folder / f"{key}.lock").open("w") as file:
        heard = -math.inf
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - heard > PATIENCE:
                    heard = time.monotonic()
                    say(
                        f"another process decodes into {folder}, {_written(folder, key) / 2**30:,.2f} GiB so far"
                    )
                time.sleep(_POLL)
        yield


def _written(folder: Path, key: str) -> int:
    try:
        return (folder / f"{key}.part").stat().st_size
    except OSError:
        return 0


def _read(folder: Path, key: str) -> StoredSplit | None:
    """What lies there whole; None where there is nothing or only a part."""
    file = folder / f"{key}.pixels"
    try:
        told = json.loads((folder / f"{key}.json").read_bytes())
        if told["version"] != _VERSION or file.stat().st_size != told["bytes"]:
            return None
        return StoredSplit(
            file=file,
            places=tuple(told["places"]),
            contents=tuple((height, width) for height, width in told["contents"]),
            sizes=tuple((height, width) for height, width in told["sizes"]),
            faults=tuple(told["faults"]),
            digest=told["digest"],
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write(
    folder: Path,
    key: str,
    names: Sequence[str],
    decode: Callable[[], Iterable[Decoded]],
    most: int | None,
    digest: "hashlib._Hash",
    say: Say,
) -> StoredSplit:
    file, part = folder / f"{key}.pixels", folder / f"{key}.part"
    # What a killed process left takes room that is there again.
    part.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if most is not None and most > free:
        raise DataError(
            f"data.cache: {folder} has {free / 2**30:,.1f} GiB free, and {len(names):,} decoded pictures need up to "
            f"{most / 2**30:,.1f} GiB; make room, name another folder, or lower data.image_size"
        )
    room = "" if most is None else f", up to {most / 2**30:,.1f} GiB"
    say(f"decoding {len(names):,} pictures into {folder}{room}; this is done once")
    places: list[int] = []
    contents: list[tuple[int, int]] = []
    sizes: list[tuple[int, int]] = []
    faults: list[str] = []
    total, spoken = 0, time.monotonic()
    try:
        with part.open("wb") as out:
            for place, (name, found) in enumerate(zip(names, decode(), strict=True)):
                if isinstance(found, str):
                    faults.append(found)
                else:
                    pixels, size = found
                    digest.update(f"{name} ".encode())
                    digest.update(pixels.tobytes())
                    total += out.write(pixels.transpose(2, 0, 1).tobytes())
                    places.append(place)
                    contents.append((pixels.shape[0], pixels.shape[1]))
                    sizes.append(size)
                if time.monotonic() - spoken > PATIENCE:
                    spoken = time.monotonic()
                    say(f"decoded {place + 1:,} of {len(names):,} pictures")
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    found_all = StoredSplit(
        file=file,
        places=tuple(places),
        contents=tuple(contents),
        sizes=tuple(sizes),
        faults=tuple(faults),
        digest=digest.hexdigest(),
    )
    # Last: it says that the pixels are whole.
    told = {"version": _VERSION, "bytes": total, **asdict(replace(found_all, file=Path(file.name)))}
    write_atomic(folder / f"{key}.json", json.dumps(told, default=str).encode())
    return found_all
