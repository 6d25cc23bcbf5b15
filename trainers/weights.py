"""Files of weights: what one says it holds is compared with what a network has, before anything is allocated.

The format is safetensors: eight bytes of length, a header in JSON, then the numbers. Nothing in it is ever run.
"""

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from search_spaces.errors import RunError
from search_spaces.files import beside, open_regular, put, writing
from search_spaces.strict_json import parse_json

HEADER = 16 * 2**20
"""Bytes of a header at most; a network of ten thousand tensors has one."""
_LENGTH = 8
# Of a tensor; the product of a million numbers would take hours.
_DIMENSIONS = 16
_SHOWN = 3
_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Form:
    """A tensor without its numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file holds: ``tensors`` by name, ``metadata`` as it says, ``sha256`` of all its bytes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


def forms_of(network: nn.Module) -> dict[str, Form]:
    """Every tensor of a network's state by name; the network may stand on the meta device."""
    return {name: Form(one.dtype, tuple(one.shape)) for name, one in network.state_dict().items()}


def write_weights(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, str | int]:
    """Write a file of weights, whole or not at all.

    Returns:
        ``bytes`` and ``sha256`` of the file.

    Raises:
        RunError: the system refuses it; nothing is left of it.
    """
    # Copies, because safetensors refuses tensors that share memory.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    temporary = beside(path)
    try:
        with writing(path):
            # safetensors makes its files for the owner alone; whoever may read the others may read this one.
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            try:
                save_file(copies, temporary, metadata=dict(metadata))
            except SafetensorError as error:
                # It says what the system said, as its own error.
                raise OSError(str(error)) from error
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                found: dict[str, str | int] = {
                    "bytes": temporary.stat().st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return found


def read_weights(path: Path, expected: Mapping[str, Form], *, sha256: str | None = None) -> Weights:
    """Read a file that has to hold exactly these tensors.

    Args:
        path: a regular file, no link.
        expected: name -> type and shape.
        sha256: of the whole file, where it is known.

    Raises:
        RunError: names the file: it is no safetensors file, holds other tensors, is damaged, or has another digest, or
            numbers that are not finite.
    """
    with open_regular(path) as file:
        forms, metadata = _header(file, path)
        require_forms(path, forms, expected)
        file.seek(0)
        content = file.read(os.fstat(file.fileno()).st_size)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise RunError(
            f"{path} is not the file that was written (SHA-256 {found[:16]}..., it should be {sha256[:16]}...); it was "
            "changed or damaged"
        )
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} cannot be read as weights ({error})") from error
    broken = [
        name
        for name, one in tensors.items()
        if one.is_floating_point() and not bool(torch.isfinite(one).all())
    ]
    if broken:
        raise RunError(f"{path}: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}")
    return Weights(tensors=tensors, metadata=metadata, sha256=found)


def count_tensors(path: Path) -> int:
    """How many tensors a file says it holds; reads its header alone.

    Raises:
        RunError: see :func:`read_weights`.
    """
    with open_regular(path) as file:
        return len(_header(file, path)[0])


def require_forms(source: Path, found: Mapping[str, Form], expected: Mapping[str, Form]) -> None:
    """Refuse tensors that are not exactly those of a network.

    Raises:
        RunError: names the file and the first that are missing, too many or of another form.
    """
    other = [name for name in expected if name in found and found[name] != expected[name]]
    problems = [
        f"{len(names)} {what} ({', '.join(map(repr, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (
            ("missing", [name for name in expected if name not in found]),
            ("too many", [name[:80] for name in found if name not in expected]),
        )
        if names
    ]
    if other:
        first = other[0]
        problems.append(
            f"{len(other)} of another form ({first!r} is {found[first]}, the network has {expected[first]})"
        )
    if problems:
        raise RunError(f"{source} does not hold the tensors of its network: {', '.join(problems)}")


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, Form], dict[str, str]]:
    """What an open file says it holds, every claim checked against its size."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH), "little")
    if size < _LENGTH or not 2 <= length <= min(HEADER, size - _LENGTH):
        raise RunError(
            f"{path} is no safetensors file: it states a header of {length:,} bytes and has {size:,} in all; it is "
            "damaged, cut short or something else"
        )
    data = parse_json(file.read(length), path, limit=HEADER)
    if not isinstance(data, dict):
        raise RunError(f"{path} is no safetensors file: its header is no object")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise RunError(f"{path}: __metadata__ is to hold strings only")
    forms: dict[str, Form] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in data.items():
        forms[name], begin, end = _entry(name, entry, path)
        places.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise RunError(
                f"{path}: tensor {name[:80]!r} begins at byte {begin:,} of the numbers, where {reached:,} is next; "
                "tensors overlap or leave holes"
            )
        reached = end
    if reached != size - _LENGTH - length:
        raise RunError(
            f"{path}: its tensors need {reached:,} bytes, and it has {size - _LENGTH - length:,} of numbers; it is "
            "damaged or cut short"
        )
    return forms, metadata


def _entry(name: str, entry: object, path: Path) -> tuple[Form, int, int]:
    where = f"{path}: tensor {name[:80]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise RunError(f"{where}: needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise RunError(f"{where}: found dtype {str(dtype)[:20]!r}; allowed are {', '.join(_DTYPES)}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise RunError(f"{where}: shape and data_offsets are to be lists of whole numbers from 0")
    if len(shape) > _DIMENSIONS:
        raise RunError(f"{where}: its shape has {len(shape):,} numbers; allowed are {_DIMENSIONS}")
    begin, end = offsets
    if end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise RunError(f"{where}: {dtype} {str(shape)[:80]} does not fill {end - begin:,} bytes")
    return Form(_DTYPES[dtype], tuple(shape)), begin, end


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
