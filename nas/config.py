"""Recipes at the door: YAML and ``--set`` in, one checked dataclass out, all errors at once.

A message names the file (or ``--set``), the dotted path, what was found, what is allowed and, for an
unknown key, the nearest legal one.
"""

import copy
import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from search_spaces.errors import ConfigError
from search_spaces.recipe import FieldError

T = TypeVar("T")
_NOTHING = object()


class _Loader(yaml.SafeLoader):
    """Scalars of YAML 1.2's core schema (``1e-4`` is a float, ``off`` is a word) and no key given twice."""


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or 1.2 would not take for the string that it is."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{loader.name}: line {line}: a key must be one word, not a list or mapping")
        key = loader.construct_object(key_node)
        if key in seen:
            raise ConfigError(
                f"{loader.name}: line {line}: key {key!r} already stands on line {seen[key]}; keep one"
            )
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


# PyYAML follows YAML 1.1, where 1e-4 is a string, off is false, 12:30 is a number and 2024-01-01 a date.
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.yaml_implicit_resolvers = {}
for _kind in (_Loader, _Dumper):
    for _name, (_form, _first) in _SCALARS.items():  # int before float, whose form admits integers too
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_form})$"), _first)


def parse_yaml(text: str, *, name: str) -> Any:
    """Read one YAML document with 1.2 scalars.

    Raises:
        ConfigError: not YAML, or a key given twice; names the line.
    """
    try:
        loader = _Loader(text)
        loader.name = name
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: is not valid YAML: {error}") from error


class Layered(dict[str, Any]):
    """A recipe put together from several files.

    Attributes:
        origins: dotted path of a value -> the file in which it stands.
    """

    def __init__(self, data: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        super().__init__(data)
        self.origins = dict(origins)


def read_yaml(
    path: Path, each: Callable[[dict[str, Any], Path], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Read a recipe file into plain data; ``extends`` is gone from it.

    A file may say ``extends: other.yaml``, or name a list of files of which later ones win; paths are relative to
    the file that says it. What the file itself says is laid over what it extends: mappings are merged key by key,
    anything else, lists and null included, takes the place of what was there.

    Args:
        path: of the file.
        each: what one file says, and its folder -> what is taken of it, before files are laid over each other.

    Raises:
        ConfigError: missing, unreadable, not YAML, not a mapping, or extended by itself; of an extended file the
            message has the chain of files that led there.
    """
    return _resolved(path, (), each)


def _resolved(
    path: Path,
    above: tuple[Path, ...],
    each: Callable[[dict[str, Any], Path], dict[str, Any]] | None,
) -> dict[str, Any]:
    chain = (*above, path)
    by = f" (extended by {' <- '.join(map(str, reversed(above)))})" if above else ""
    if path.resolve() in [one.resolve() for one in above]:
        raise ConfigError(
            f"{above[-1]}: extends: leads back to {path}: {' -> '.join(map(str, chain))}; a recipe cannot extend itself"
        )
    own = _read_mapping(path, by)
    named = own.pop("extends", _NOTHING)
    own = own if each is None else each(own, path.parent)
    if named is _NOTHING:
        return own
    bases = [named] if isinstance(named, str) else named
    if not isinstance(bases, list) or not bases or not all(isinstance(one, str) and one for one in bases):
        raise ConfigError(
            f"{path}: extends: found {named!r}; allowed is the path of a recipe file, or a list of such paths{by}"
        )
    layers = [(_resolved(path.parent / base, chain, each), path.parent / base) for base in bases]
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, file in [*layers, (own, path)]:
        _lay_over(data, origins, layer, layer.origins if isinstance(layer, Layered) else {}, str(file), "")
    return Layered(data, origins)


def _lay_over(
    below: dict[str, Any],
    origins: dict[str, str],
    above: Mapping[str, Any],
    above_origins: Mapping[str, str],
    file: str,
    prefix: str,
) -> None:
    """Merge ``above`` into ``below``, and where its values stand into ``origins``."""
    for key, value in above.items():
        place = f"{prefix}{key}"
        if isinstance(value, dict):
            if not isinstance(below.get(key), dict):
                _forget(origins, place)
                below[key] = {}
            _lay_over(below[key], origins, value, above_origins, file, f"{place}.")
        else:
            _forget(origins, place)
            below[key] = copy.deepcopy(value)
            origins[place] = above_origins.get(place, file)


def _forget(origins: dict[str, str], place: str) -> None:
    for one in [one for one in origins if one == place or one.startswith(f"{place}.")]:
        del origins[one]


def _read_mapping(path: Path, by: str) -> dict[str, Any]:
    """One file as it stands; ``by`` is added to every message."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: cannot read the recipe: {error}{hint}{by}") from error
    data = parse_yaml(text, name=f"{path}{by}")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values; found {type(data).__name__}{by}")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted paths (``data.root=DIR``), values read as YAML; the input is left alone.

    Raises:
        ConfigError: an override that is no ``path=value`` or runs through a scalar; all of them at once.
    """
    result: dict[str, Any] = copy.deepcopy(dict(data))
    origins = dict(data.origins) if isinstance(data, Layered) else {}
    problems = []
    for text in overrides:
        path, sign, value = text.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            problems.append(f"--set {text!r}: found no path=value; write for example --set data.root=DIR")
            continue
        node = result
        for depth, key in enumerate(keys[:-1]):
            if node.get(key) is None:
                node[key] = {}
            if not isinstance(node[key], dict):
                problems.append(
                    f"--set {text!r}: {'.'.join(keys[: depth + 1])} holds {node[key]!r}, which has no keys"
                )
                break
            node = node[key]
        else:
            node[keys[-1]] = parse_yaml(value, name=f"--set {path}") if value else ""
            _forget(origins, ".".join(keys))
    if problems:
        raise ConfigError("\n".join(problems))
    return Layered(result, origins) if origins else result


def check(kind: type[T], data: Mapping[str, Any], *, source: str) -> T:
    """Turn plain data into the dataclass ``kind`` or say everything that is wrong with it.

    Args:
        kind: a frozen dataclass that inherits ``search_spaces.recipe.Recipe``.
        data: what YAML held; JSON types only.
        source: named in every message, usually the file; a value that stands in a file which that one extends is
            named with that file.

    Raises:
        ConfigError: one line a problem.
    """
    origins = data.origins if isinstance(data, Layered) else {}
    try:
        # JSON mode: lists fill tuples and integers fill floats, while "3" still does not fill an int.
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        raise ConfigError(
            "\n".join(_sentences(kind, _all_problems(kind, data, error), source, origins))
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: holds a value that JSON cannot carry: {error}") from error


def to_data(recipe: Any) -> Any:
    """The plain data of a recipe; :func:`check` is its inverse."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def dump_yaml(data: Any) -> str:
    """YAML that :func:`parse_yaml` reads back equal."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _all_problems(kind: Any, data: Mapping[str, Any], error: pydantic.ValidationError) -> list[Any]:
    """The problems of the first check, and those it hid.

    A dataclass checks the sense of its fields only once all of their types are right, so what was found is
    taken out, which leaves the defaults, and the rest is checked again.
    """
    problems: list[Any] = _named(error)
    rest = json.loads(json.dumps(data))
    fresh = problems
    while sum(_take_out(rest, _place(kind, problem["loc"])) for problem in fresh):
        try:
            pydantic.TypeAdapter(kind).validate_json(json.dumps(rest))
        except pydantic.ValidationError as hidden:
            known = {(str(one["loc"]), one["msg"]) for one in problems}
            # What is missing now may be what was taken out.
            fresh = [
                one
                for one in _named(hidden)
                if (str(one["loc"]), one["msg"]) not in known
                and one["type"] not in ("missing", "missing_argument")
            ]
            problems += fresh
        else:
            break
    return problems


def _named(error: pydantic.ValidationError) -> list[Any]:
    """pydantic's problems; those that a recipe class found itself are put to the field that it names."""
    problems: list[Any] = list(error.errors())
    for index, problem in enumerate(problems):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, FieldError):
            place = (*problem["loc"], *cause.field.split("."))
            problems[index] = {**problem, "loc": place, "input": cause.found, "msg": cause.remedy}
    return problems


def _take_out(data: Any, place: Sequence[str]) -> bool:
    """Delete one key; false where there is none, as for a problem of a whole section."""
    for name in place[:-1]:
        if not isinstance(data, dict) or name not in data:
            return False
        data = data[name]
    if not place or not isinstance(data, dict) or place[-1] not in data or isinstance(data[place[-1]], dict):
        return False
    del data[place[-1]]
    return True


def _sentences(kind: type, problems: Sequence[Any], source: str, origins: Mapping[str, str]) -> list[str]:
    """One line a path: where several types are allowed, pydantic has one problem for each of them."""
    lines: dict[str, list[str]] = {}
    for problem in problems:
        place = _place(kind, problem["loc"])
        path = ".".join(place) or "(recipe)"
        # A value inside a list has the list's file.
        whole = (".".join(place[:depth]) for depth in range(len(place), 0, -1))
        file = next((origins[one] for one in whole if one in origins), source)
        reasons = lines.setdefault(f"{file}: {path}", [])
        reason = _reason(kind, problem)
        reasons.append(reason.rpartition("; ")[2] if reasons else reason)
    return [f"{start}: {', or: '.join(reasons)}" for start, reasons in lines.items()]


def _place(kind: Any, loc: Sequence[str | int]) -> list[str]:
    """The keys a person wrote, without pydantic's names for the members of a union."""
    place = []
    for part in loc:
        members = [one for one in _members(kind) if one is not type(None)]
        if len(members) > 1:
            kind = None  # ``part`` names a member; what follows are positions in it
            continue
        place.append(str(part))
        inner = typing.get_args(members[0]) if members else ()
        kind = _fields(kind).get(str(part), inner[-1] if inner else None)
        if kind is Ellipsis:
            kind = inner[0]
    return place


def _reason(kind: type, problem: Any) -> str:
    loc = _place(kind, problem["loc"])
    found = problem.get("input")
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        legal = _keys_at(kind, loc[:-1])
        near = difflib.get_close_matches(loc[-1], legal, n=1, cutoff=0.5)
        hint = f"; did you mean {'.'.join([*loc[:-1], near[0]])!r}?" if near else "."
        return f"unknown key{hint} Allowed here: {', '.join(legal)}"
    if problem["type"] in ("missing", "missing_argument"):
        return "is missing; add it"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "allowed is")
    message = message.replace("an object", "a mapping of keys to values")
    if problem["type"] == "literal_error" and (why := _why(kind, loc)):
        message += f": {why}"
    return message if isinstance(found, dict) else f"found {found!r}; {message}"


def _why(kind: Any, loc: Sequence[str]) -> str:
    """Why the field that a path of names leads to allows no more; nothing where its class does not say."""
    for name in loc[:-1]:
        kind = _fields(kind).get(name)
    found = next((part for part in _members(kind) if dataclasses.is_dataclass(part)), None)
    return str(getattr(found, "__why__", {}).get(loc[-1], ""))


def _keys_at(kind: Any, loc: Sequence[str]) -> list[str]:
    """Field names of the dataclass that a path of names leads to."""
    for name in loc:
        fields = _fields(kind)
        if name not in fields:
            break
        kind = fields[name]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    kind = next((part for part in _members(kind) if dataclasses.is_dataclass(part)), None)
    if kind is None:
        return {}
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; any other type alone."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
