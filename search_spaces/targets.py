"""Classes that a person brings along: ``my_file.py:MySpace``, or ``package.module:Name`` where it is installed.

In memory the file of a target is absolute; on disk only its name is kept, and the file lies in the folder
:data:`FOLDER` beside whatever names it (a run, a bundle, a training). So a run can be moved, and a digest does not
depend on where a file lies. Importing this imports neither torch nor pydantic.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from search_spaces.errors import ConfigError

FOLDER = "targets"
"""Where a run, bundle or training keeps the files that it was begun with."""
GUIDE = "docs/extend.md shows one of each"
_FORM = re.compile(r"(?P<place>.+):(?P<name>[A-Za-z_]\w*)")
_OPTIONS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

T = TypeVar("T")


def file_of(target: str) -> Path | None:
    """The file that a target names; None where it names an installed module, or is no target at all."""
    place, sign, _ = target.rpartition(":")
    return Path(place) if sign and place.endswith(".py") else None


def anchored(target: str, folder: Path) -> str:
    """The target with its file made absolute; a relative one lies in ``folder``."""
    file = file_of(target)
    return target if file is None else f"{(folder / file.expanduser()).resolve()}:{_name(target)}"


def bare(target: str) -> str:
    """The target as it is written to disk: the file's name without its folder."""
    file = file_of(target)
    return target if file is None else f"{file.name}:{_name(target)}"


def home_of(directory: Path) -> Path:
    """Where the files of what lies in ``directory`` are: :data:`FOLDER` in it, or in the run that it is a part of."""
    nearest = (directory, *directory.absolute().parents[:3])
    return next((one / FOLDER for one in nearest if (one / FOLDER).is_dir()), directory / FOLDER)


def address(kind: type) -> str:
    """The target that :func:`load` turns into this class."""
    module = sys.modules[kind.__module__]
    file = getattr(module, "__file__", None)
    # A script is no module that another process could import by its name.
    if file is not None and (kind.__module__ == "__main__" or kind.__module__.startswith(_PREFIX)):
        return f"{Path(file).resolve()}:{kind.__qualname__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def beside(kind: type, name: str) -> Path:
    """A file in the folder of the file that defines a class."""
    file = sys.modules[kind.__module__].__file__
    assert file is not None, "a class is defined in a file"
    return (Path(file).parent / name).resolve()


def load(target: str) -> type:
    """The class of this name.

    Raises:
        ConfigError: no such form, file, module or class, or a file that cannot be imported.
    """
    found = _FORM.fullmatch(target)
    if found is None:
        raise ConfigError(
            f"found {target!r}; write my_file.py:MyClass, or package.module:MyClass for what is installed"
        )
    place, name = found["place"], found["name"]
    module = load_file(Path(place)) if place.endswith(".py") else _installed(place)
    kind = getattr(module, name, None)
    if isinstance(kind, type):
        return kind
    classes = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    what = f"{name!r} there is no class" if hasattr(module, name) else f"there is no {name!r}"
    raise ConfigError(f"found {target!r}, but {what}; {nearest(name, classes, 'classes there are')}")


def load_subclass(target: str, base: Callable[..., T], noun: str) -> type[T]:
    """The class of this name, which has to inherit ``base`` and to define all that it leaves open.

    Raises:
        ConfigError: see :func:`load`; or another class, or what is left open.
    """
    kind = load(target)
    assert isinstance(base, type)  # an abstract class is no ``type[T]`` to the type checker
    needed = f"{base.__module__}.{base.__name__}"
    if not issubclass(kind, base):
        raise ConfigError(f"found {target!r}, which is no {noun}: it has to inherit {needed}; {GUIDE}")
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise ConfigError(
            f"found {target!r}, which is no {noun} yet: of {needed} it lacks {', '.join(missing)}; {GUIDE}"
        )
    return cast(type[T], kind)


def load_with(target: str, methods: Mapping[str, str], noun: str) -> type:
    """The class of this name, which has to define these methods.

    Args:
        target: see :func:`load`.
        methods: name -> how it is called, for the message.
        noun: what it has to be.

    Raises:
        ConfigError: see :func:`load`; or methods that it lacks.
    """
    kind = load(target)
    defined = {key for one in kind.__mro__ for key, value in vars(one).items() if callable(value)}
    if missing := [shape for key, shape in methods.items() if key not in defined]:
        raise ConfigError(f"found {target!r}, which is no {noun}: it lacks {', '.join(missing)}; {GUIDE}")
    return kind


def checked_options(
    factory: Callable[..., Any], options: Mapping[str, Any], *, name: str, given: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Options against the annotations of whatever takes them.

    Args:
        factory: a class or function; what it takes beyond ``given`` are its options.
        options: plain data.
        name: of the factory, for messages.
        given: arguments that the toolkit passes itself.

    Returns:
        The options as the annotations have them (lists are tuples where tuples are wanted), and every problem, one
        line each, beginning with ``options.<name>``.
    """
    from pydantic import TypeAdapter, ValidationError

    settings = {key: value for key, value in _arguments(factory).items() if key not in given}
    checked: dict[str, Any] = {}
    problems = []
    for key, value in options.items():
        if key not in settings:
            legal = nearest(key, settings, "allowed are")
            problems.append(f"options.{key}: {name} has no such option; {legal}")
            continue
        if settings[key].annotation is inspect.Parameter.empty:
            problems.append(
                f"options.{key}: the argument has no annotation in {name}, so nothing can check it; add one"
            )
            continue
        try:
            # JSON mode: lists fill tuples, while "3" still does not fill an int.
            checked[key] = TypeAdapter(settings[key].annotation).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            problems += [
                f"options.{'.'.join([key, *map(str, one['loc'])])}: found {one['input']!r}; {one['msg'].lower()}"
                for one in error.errors()
            ]
    for key, value in settings.items():
        if value.default is inspect.Parameter.empty and key not in options:
            problems.append(f"options.{key}: is missing; {name} needs it")
    return checked, problems


def make(factory: Callable[..., T], options: Mapping[str, Any], *, name: str, given: Mapping[str, Any]) -> T:
    """Call ``factory`` with checked options and with what it takes of ``given``, all by keyword.

    Raises:
        ConfigError: all options that do not fit, one a line; or the factory's own ``ValueError``.
    """
    checked, problems = checked_options(factory, options, name=name, given=given)
    if problems:
        raise ConfigError("\n".join(problems))
    taken = {key: value for key, value in given.items() if key in _arguments(factory)}
    try:
        return factory(**taken, **checked)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"options: {name} refuses {dict(options)}: {error}") from error


def load_file(path: Path) -> ModuleType:
    """The module of one file, under a name of its own; the same module for the same file and text.

    A file is loaded alone: it imports what is installed, not its neighbours.

    Raises:
        ConfigError: no such file, or one that cannot be imported.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        others = [one.name for one in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = (
            nearest(path.name, others, f"Python files in {path.parent} are") if others else "check the path"
        )
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); {hint}") from error
    name = f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode() + text).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and annotations are resolved through sys.modules, so it is there while the file runs.
    sys.modules[name] = module
    try:
        # Compiled here, because Python's own cache takes a file changed twice within a second for the first one.
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception) or isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be imported: {_why(error, path)}") from error
    return module


def nearest(found: str, names: Iterable[str], lead: str) -> str:
    """``did you mean 'x'? allowed are ['x', 'y']``, with the lead in the place of "allowed are"."""
    names = sorted(names)
    close = difflib.get_close_matches(found, names, n=1)
    return f"did you mean {close[0]!r}? {lead} {names}" if close else f"{lead} {names}"


_PREFIX = "vertebra_target_"


def _name(target: str) -> str:
    return target.rpartition(":")[2]


def _arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(factory, eval_str=True).parameters
    except NameError as error:
        shown = getattr(factory, "__name__", factory)
        raise ConfigError(f"the annotations of {shown} cannot be read: {error}") from error
    return {key: value for key, value in found.items() if value.kind in _OPTIONS}


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"the module {name!r} cannot be imported: {type(error).__name__}: {error}; install it, or name a file: "
            "my_file.py:MyClass"
        ) from error


def _why(error: Exception, path: Path) -> str:
    text = f"{type(error).__name__}: {error}"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (path.parent / f"{missing.partition('.')[0]}.py").exists():
        return (
            f"{text}. A target is one file and does not see its neighbours: keep it in one, or make a package of "
            "them, install it and write package.module:Name"
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            f"{text}. A target is one file, no part of a package; or install the package and name its module"
        )
    lines = [frame.tb_lineno for frame in _frames(error) if frame.tb_frame.f_code.co_filename == str(path)]
    return f"{text} (line {lines[-1]})" if lines else text


def _frames(error: Exception) -> list[Any]:
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found
