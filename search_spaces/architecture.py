"""The genotype: what a network is, as plain immutable data.

An :class:`Architecture` carries no score, no weights and no network. Two descriptions of one network
must be equal here, because ``digest`` is the key of caches, files and trials.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from search_spaces.errors import InvalidArchitecture
from search_spaces.targets import anchored, bare

Scalar = int | float | str
Value = Scalar | tuple["Value", ...]
"""A gene's value: a scalar or a (nested) tuple of scalars; lists become tuples at the door."""


class Genes(Mapping[str, Value]):
    """An immutable, hashable mapping of names to values; keeps the order it was given."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items: dict[str, Value] = {
            str(name): freeze(value, name=str(name)) for name, value in items.items()
        }

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(canonical_json(self._items))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Genes):
            return NotImplemented
        return canonical_json(self._items) == canonical_json(other._items)

    def __repr__(self) -> str:
        return f"Genes({self._items!r})"


def freeze(value: object, *, name: str) -> Value:
    """Turn lists into tuples, all the way down.

    Raises:
        InvalidArchitecture: a value that JSON could not carry (``None`` and objects included).
    """
    if isinstance(value, bool) or value is None:
        raise InvalidArchitecture(f"{name}: found {value!r}; allowed are numbers, strings and lists of them")
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(freeze(part, name=name) for part in value)
    raise InvalidArchitecture(f"{name}: found {value!r}; allowed are numbers, strings and lists of them")


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict, allow_nan=False)


def digest_of(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return _digest(canonical_json(value))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One complete network of a family.

    Args:
        family: who builds it, a name of ``search_spaces.catalog.FAMILIES`` (``"crnas.resnet"``) or the target of
            a person's own family (:mod:`search_spaces.targets`), of whose file only the name counts for the digest.
        version: of the family's definition; a change that alters networks raises it.
        settings: what a search holds fixed (block type, widths, stem); part of the identity.
        genes: what a search decides (``blocks``, ``dilations``).
    """

    family: str
    version: int = 1
    settings: Genes
    genes: Genes

    @cached_property
    def digest(self) -> str:
        """Stable key of this network, 16 hexadecimal digits."""
        return _digest(self._text)

    @cached_property
    def _text(self) -> str:
        return canonical_json(
            {
                "family": bare(self.family),
                "version": self.version,
                "settings": dict(self.settings),
                "genes": dict(self.genes),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON or YAML; :meth:`from_dict` is its inverse, but for the folder of a file."""
        data: dict[str, Any] = json.loads(self._text)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """Read what :meth:`to_dict` wrote.

        Raises:
            InvalidArchitecture: missing or unknown keys.
        """
        expected = {"family", "version", "settings", "genes"}
        if set(data) != expected:
            raise InvalidArchitecture(
                f"an architecture needs exactly the keys {sorted(expected)}; found {sorted(map(str, data))}"
            )
        return cls(
            family=str(data["family"]),
            version=int(data["version"]),
            settings=Genes(data["settings"]),
            genes=Genes(data["genes"]),
        )

    def at(self, home: Path) -> "Architecture":
        """The same, read in a folder: the file of a person's own family lies in ``home``."""
        family = anchored(bare(self.family), home)
        return self if family == self.family else replace(self, family=family)

    def __str__(self) -> str:
        genes = " ".join(f"{name}={_short(value)}" for name, value in self.genes.items())
        return f"{bare(self.family)} {genes}"


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A partial candidate: the first genes of a space decided, the rest open.

    CR-NAS's greedy search scores prefixes; the proxy completes them at random per mini-batch
    (Liang et al. 2020, section 3.3.2).
    """

    space: str
    genes: Genes

    @cached_property
    def digest(self) -> str:
        """Stable key; never equal to that of an architecture."""
        return digest_of({"prefix_of": self.space, "genes": dict(self.genes)})

    def __str__(self) -> str:
        return f"prefix({' '.join(_short(value) for value in self.genes.values())})"


Candidate = Architecture | Prefix


def _short(value: Value) -> str:
    return "[" + ",".join(_short(part) for part in value) + "]" if isinstance(value, tuple) else str(value)
