"""``bundle.json``: what a bundle is, and size and digest of every file in it; nothing else of it is read. Torch-free.

The file carries a digest of itself and is written in one form only, so that no byte of it can change unseen. These
digests tell damage, not who wrote it: whoever writes another ``bundle.json`` writes other digests.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.errors import RunError
from search_spaces.files import open_regular, read_regular, write_atomic
from search_spaces.strict_json import parse_json
from search_spaces.targets import FOLDER

MANIFEST = "bundle.json"
ARCHITECTURE = "architecture.json"
SCHEMA = 1
Kind = Literal["detector", "backbone"]
LIMIT = 4 * 2**20
"""Bytes of a JSON file in a bundle, at most."""
_KEYS = {"schema", "kind", "architecture", "about", "files", "digest"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILES = 1000
_PARTS = 4
_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A file of a bundle: its size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``bundle.json`` says.

    Attributes:
        kind: ``detector`` where the trained detector is in it, ``backbone`` where weights of the backbone are at most.
        architecture: digest of the network.
        about: licence of the data, costs, scores and intended input, see :class:`nas.export.about.About`.
        files: name, with ``/`` between folders -> size and digest, of every file but ``bundle.json``.
    """

    kind: Kind
    architecture: str
    about: Mapping[str, Any]
    files: Mapping[str, Declared]

    @property
    def weights(self) -> bool:
        """Whether it holds trained weights."""
        return any(name.endswith(".safetensors") for name in self.files)

    @property
    def code(self) -> tuple[str, ...]:
        """Own files of whoever made it, which are run where the network or detector is theirs."""
        return tuple(name for name in self.files if name.startswith(f"{FOLDER}/") and name.endswith(".py"))


def declare(directory: Path, *, kind: Kind, architecture: str, about: Mapping[str, Any]) -> Manifest:
    """Write ``bundle.json`` for all files that lie in a folder now.

    Args:
        directory: of the bundle, written by us.
        kind: see :class:`Manifest`.
        architecture: digest of the network.
        about: plain data.
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = Declared(bytes=path.stat().st_size, sha256=digest)
    manifest = Manifest(kind=kind, architecture=architecture, about=dict(about), files=files)
    write_atomic(directory / MANIFEST, _text(manifest).encode())
    return manifest


def declare_again(directory: Path) -> Manifest:
    """Write ``bundle.json`` anew after files were added to a bundle; what it says beside them stays."""
    old = read_manifest(directory)
    return declare(directory, kind=old.kind, architecture=old.architecture, about=old.about)


def read_manifest(directory: Path) -> Manifest:
    """Read ``bundle.json``; no other file is looked at.

    Raises:
        RunError: no bundle there, one of an earlier or later version, or what is not as we write it.
    """
    path = directory / MANIFEST
    if not path.exists() and not path.is_symlink():
        if (directory / ARCHITECTURE).exists():
            raise RunError(
                f"{directory} holds no {MANIFEST}: it was written before bundles said what is in them. Export it "
                f"again: nas export RUN --to {directory}"
            )
        raise RunError(f"no bundle in {directory}: {MANIFEST} is missing; write one with `nas export RUN`")
    content = read_regular(path, limit=LIMIT)
    data = parse_json(content, path, limit=LIMIT)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise RunError(f"{path}: describes no bundle; export it again")
    if data["schema"] != SCHEMA:
        raise RunError(
            f"{path}: is of schema {data['schema']}, this version reads {SCHEMA}; export the bundle again, or take the "
            "version of the toolkit that wrote it"
        )
    manifest = _checked(data, path)
    if content != _text(manifest).encode():
        raise RunError(f"{path} is not as it was written: it was changed or damaged; export the bundle again")
    return manifest


def verify(directory: Path, manifest: Manifest) -> None:
    """Compare every declared file with its size and digest, and refuse code that is not declared.

    Raises:
        RunError: names the file.
    """
    for name, declared in manifest.files.items():
        with open_declared(directory, name, declared) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != declared.sha256:
            raise RunError(_changed(directory / name, f"its SHA-256 is {found[:16]}..."))
    own = directory / FOLDER
    for path in sorted(own.rglob("*")) if own.is_dir() else ():
        name = path.relative_to(directory).as_posix()
        if name not in manifest.files and (path.is_symlink() or not path.is_dir()):
            raise RunError(
                f"{path} is not declared in {directory / MANIFEST}; a bundle holds no other code. Delete it"
            )


def read_declared(directory: Path, manifest: Manifest, name: str, *, limit: int = LIMIT) -> bytes:
    """The content of a file that the bundle declares.

    Raises:
        RunError: it does not declare it, or the file is another.
    """
    path = directory / name
    if name not in manifest.files:
        raise RunError(f"{path} is not declared in {directory / MANIFEST}; export the bundle again")
    declared = manifest.files[name]
    if declared.bytes > limit:
        raise RunError(f"{path}: is {declared.bytes:,} bytes; allowed are {limit:,}")
    with open_declared(directory, name, declared) as file:
        content = file.read(declared.bytes + 1)
    if hashlib.sha256(content).hexdigest() != declared.sha256:
        raise RunError(_changed(path, "its SHA-256 is another"))
    return content


def open_declared(directory: Path, name: str, declared: Declared) -> io.BufferedReader:
    """A declared file, opened: a regular one below the bundle's folder, of its size, with no link on the way.

    Raises:
        RunError: it is anything else.
    """
    path = directory / name
    for parent in reversed(path.relative_to(directory).parents[:-1]):
        if (directory / parent).is_symlink():
            raise RunError(f"{directory / parent} is a link; a bundle holds its files itself")
    file = open_regular(path)
    size = os.fstat(file.fileno()).st_size
    if size != declared.bytes:
        file.close()
        raise RunError(_changed(path, f"it has {size:,} bytes"))
    return file


def _changed(path: Path, how: str) -> str:
    return (
        f"{path} is not the file that {MANIFEST} declares ({how}); it was changed or damaged; export it again"
    )


def _text(manifest: Manifest) -> str:
    """The one form in which a manifest is written."""
    data = {"schema": SCHEMA, **asdict(manifest)}
    data["files"] = dict(sorted(data["files"].items()))
    data["digest"] = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _checked(data: dict[str, Any], path: Path) -> Manifest:
    if set(data) != _KEYS:
        raise RunError(f"{path}: found the keys {sorted(data)}; needed are exactly {sorted(_KEYS)}")
    kind, architecture, about, files = (data[name] for name in ("kind", "architecture", "about", "files"))
    if kind not in get_args(Kind):
        raise RunError(f"{path}: kind: found {str(kind)[:40]!r}; allowed are {', '.join(get_args(Kind))}")
    if not isinstance(architecture, str) or not isinstance(about, dict) or not isinstance(files, dict):
        raise RunError(f"{path}: architecture is to be a string, about and files objects")
    if len(files) > _FILES:
        raise RunError(f"{path}: declares {len(files)} files; allowed are {_FILES}")
    return Manifest(
        kind=kind,
        architecture=architecture,
        about=about,
        files={name: _declared(name, entry, path) for name, entry in files.items()},
    )


def _declared(name: str, entry: object, path: Path) -> Declared:
    parts = name.split("/")
    plain = all(part and not part.startswith(".") and part == part.strip() for part in parts)
    if (
        not plain
        or len(parts) > _PARTS
        or len(name) > _NAME
        or any(sign in name for sign in "\\:")
        or not name.isprintable()
        or name == MANIFEST
    ):
        raise RunError(
            f"{path}: files: found the name {name[:80]!r}; allowed are names in the bundle, at most {_PARTS - 1} "
            "folders deep, none of them hidden or leading out of it"
        )
    if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
        raise RunError(f"{path}: files: {name[:80]!r} needs exactly bytes and sha256")
    size, sha256 = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise RunError(
            f"{path}: files: {name[:80]!r}: bytes is a number from 0, sha256 64 hexadecimal digits"
        )
    return Declared(bytes=size, sha256=sha256)
