"""Recipes at the door: YAML and ``--set`` in, one checked dataclass out, all errors at once.

A message names the file (or ``--set``), the dotted path, what was found, what is allowed and, for an
unknown key, the nearest legal one.
"""

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from search_spaces.errors import ConfigError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers (``1e-4`` is a float) and no silent second value for one key."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(
                f"{loader.name}: line {line}: key {key!r} already stands on line {seen[key]}; keep one"
            )
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# PyYAML follows YAML 1.1, where 1e-4 is a string; this is the 1.2 core schema's form.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:float"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
# Integers are matched first, so that the float form above may admit them.
for _first, _pairs in _Loader.yaml_implicit_resolvers.items():
    _pairs.sort(key=lambda pair: pair[0] != "tag:yaml.org,2002:int")


def parse_yaml(text: str, *, name: str) -> Any:
    """Read one YAML document with 1.2 numbers.

    Raises:
        ConfigError: not YAML, or a key given twice; names the line.
    """
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is not valid YAML: {error}") from error
    finally:
        loader.dispose()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain data.

    Raises:
        ConfigError: missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: cannot read the recipe: {error}{hint}") from error
    data = parse_yaml(text, name=str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values; found {type(data).__name__}")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted paths (``data.root=DIR``), values read as YAML; the input is left alone.

    Raises:
        ConfigError: an override that is no ``path=value`` or runs through a scalar; all of them at once.
    """
    result: dict[str, Any] = json.loads(json.dumps(data))
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
    if problems:
        raise ConfigError("\n".join(problems))
    return result


def check(kind: type[T], data: Mapping[str, Any], *, source: str) -> T:
    """Turn plain data into the dataclass ``kind`` or say everything that is wrong with it.

    Args:
        kind: a frozen dataclass that inherits ``search_spaces.recipe.Recipe``.
        data: what YAML held; JSON types only.
        source: named in every message, usually the file.

    Raises:
        ConfigError: one line a problem.
    """
    try:
        # JSON mode: lists fill tuples and integers fill floats, while "3" still does not fill an int.
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        raise ConfigError(
            "\n".join(_sentence(kind, problem, source) for problem in error.errors())
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: holds a value that JSON cannot carry: {error}") from error


def to_data(recipe: Any) -> Any:
    """The plain data of a recipe; :func:`check` is its inverse."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def dump_yaml(data: Any) -> str:
    """YAML that :func:`parse_yaml` reads back equal."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _sentence(kind: type, problem: Any, source: str) -> str:
    loc = [str(part) for part in problem["loc"]]
    path = ".".join(loc) or "(recipe)"
    found = problem.get("input")
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        legal = _keys_at(kind, loc[:-1])
        near = difflib.get_close_matches(loc[-1], legal, n=1, cutoff=0.5)
        hint = f"; did you mean {'.'.join([*loc[:-1], near[0]])!r}?" if near else ""
        return f"{source}: {path}: unknown key{hint} Allowed here: {', '.join(legal)}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{source}: {path}: is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(found, dict):
        return f"{source}: {path}: {message}"
    return f"{source}: {path}: found {found!r}: {message}"


def _keys_at(kind: Any, loc: Sequence[str]) -> list[str]:
    """Field names of the dataclass that a path of names leads to."""
    for name in loc:
        fields = _fields(kind)
        if name not in fields:
            break
        kind = fields[name]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for part in typing.get_args(kind):
            if dataclasses.is_dataclass(part):
                return _fields(part)
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
