"""Own files in recipes and directories: read relative to the recipe, kept as a copy, known by their text.

A run, and a training of ``nas train``, is begun with a copy of every file that its recipe names, in its folder
``targets``, and uses that copy only. So the files can be edited for the next search while this one goes on, and the
directory can be moved.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nas.config import Layered, apply_overrides, read_yaml
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError, RunError
from search_spaces.family import Family
from search_spaces.files import write_atomic
from search_spaces.targets import FOLDER, anchored, bare, beside, file_of, load_file

RECORD = "targets.json"
"""File name -> SHA-256 of the copies that a directory was begun with."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file as plain data: targets are relative to the file that says them, of ``--set`` to the working folder.

    Raises:
        ConfigError: see :func:`nas.config.read_yaml` and :func:`nas.config.apply_overrides`.
    """
    data = apply_overrides(read_yaml(path, anchor), overrides)
    whole = dict(anchor(data, Path.cwd()))
    return Layered(whole, data.origins) if isinstance(data, Layered) else whole


def anchor(data: Any, folder: Path) -> Any:
    """Plain recipe data with the file of every target absolute."""
    return _mapped(data, lambda target: anchored(target, folder))


def portable(data: Any) -> Any:
    """Plain recipe data as it is written: every own file as ``targets/my_file.py``, wherever that folder is."""
    return _mapped(data, lambda target: target if file_of(target) is None else f"{FOLDER}/{bare(target)}")


def gather(files: Iterable[Path], directory: Path, *, begun: bool) -> None:
    """Copy files into a directory; nothing without files.

    Args:
        files: own ones, each with a name of its own.
        directory: of a run, a training or a bundle.
        begun: whether it was begun already; then the files have to be those that it was begun with.

    Raises:
        ConfigError: two files of one name, or one that cannot be read.
        RunError: the directory was begun with another text of a file.
    """
    chosen: dict[str, Path] = {}
    for file in files:
        if chosen.setdefault(file.name, file) != file:
            raise ConfigError(
                f"two of the files are called {file.name}: {chosen[file.name]} and {file}; rename one of them"
            )
    if not chosen:
        return
    texts = {name: _text(file) for name, file in chosen.items()}
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    before = _recorded(directory) if begun else {}
    for name, digest in found.items():
        if before.get(name, digest) != digest:
            raise RunError(
                f"{chosen[name]} has changed since {directory} was begun; take a new --run DIR for the new text, or "
                f"continue the old one, which keeps its copy in {directory / FOLDER}"
            )
    for name, text in texts.items():
        write_atomic(directory / FOLDER / name, text)
    record = json.dumps({**before, **found}, indent=1, sort_keys=True) + "\n"
    write_atomic(directory / FOLDER / RECORD, record.encode())


def require_unchanged(directory: Path) -> None:
    """Refuse a directory whose copies are no longer those that it was begun with.

    Raises:
        RunError: names the file.
    """
    for name, digest in _recorded(directory).items():
        file = directory / FOLDER / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise RunError(
                f"{file} is not the file that {directory} was begun with (SHA-256 {digest[:16]}...); what is done "
                "already depends on it. Put the old text back, or start a new run with: nas search RECIPE --run NEW_DIR"
            )


def files_of(data: Any) -> tuple[Path, ...]:
    """Every own file that recipe data names, and the network files of the families in them.

    Raises:
        ConfigError: a file that cannot be imported.
    """
    named: dict[Path, None] = {}

    def note(target: str) -> str:
        if (file := file_of(target)) is not None:
            named[file] = None
        return target

    _mapped(data, note)
    return tuple(dict.fromkeys(one for file in named for one in (file, *networks_beside(file))))


def family_files(architecture: Architecture) -> tuple[Path, ...]:
    """The files of a person's own family and its network; none of the house's."""
    file = file_of(architecture.family)
    return () if file is None else (file, *networks_beside(file))


def networks_beside(file: Path) -> tuple[Path, ...]:
    """The files in which the families of an own file have their networks.

    Raises:
        ConfigError: a file that cannot be imported, or that is not in the same folder.
    """
    module = load_file(file)
    found: dict[Path, None] = {}
    for kind in vars(module).values():
        if not (isinstance(kind, type) and issubclass(kind, Family) and kind.__module__ == module.__name__):
            continue
        name = getattr(kind, "module", "")
        if name.endswith(".py"):
            if Path(name).name != name:
                raise ConfigError(
                    f"{file}: {kind.__name__}.module: found {name!r}; allowed is the name of a file in the same folder"
                )
            found[beside(kind, name)] = None
    return tuple(found)


def _mapped(data: Any, change: Callable[[str], str]) -> Any:
    """Data with every string under a key ``target`` changed; what is in ``options`` belongs to the target."""
    if isinstance(data, dict):
        return {
            key: change(value)
            if key == "target" and isinstance(value, str)
            else value
            if key == "options"
            else _mapped(value, change)
            for key, value in data.items()
        }
    return [_mapped(value, change) for value in data] if isinstance(data, list) else data


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error


def _recorded(directory: Path) -> dict[str, str]:
    path = directory / FOLDER / RECORD
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"{path}: is not the JSON this run wrote ({error})") from error
