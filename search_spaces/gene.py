"""What every gene offers, the parameters it is encoded in, and how both are read at the door.

A gene knows its exact size, draws uniformly, and translates a value to and from a handful of plain
parameters. Every value of these parameters decodes to a valid gene value, and parameters drawn uniformly
decode to values drawn uniformly, so any optimiser can drive any gene without a rejected or starved draw.

A policy that decides step by step sees a gene as picks instead: each picks one of a fixed number of options, some
of which earlier picks may rule out.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.architecture import Scalar, Value
from search_spaces.errors import InvalidArchitecture


@dataclass(frozen=True)
class Categorical:
    """A parameter that takes one of unordered choices."""

    choices: tuple[Scalar, ...]


@dataclass(frozen=True)
class Integer:
    """A parameter that takes an integer from ``low`` to ``high``, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Real:
    """A parameter that takes a float from ``low`` to ``high``, both included."""

    low: float = 0.0
    high: float = 1.0


Parameter = Categorical | Integer | Real


class Gene(ABC):
    """One decision. Values are scalars or tuples of them; lists are accepted and become tuples."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Exact number of values."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Parameter]:
        """Suffix -> parameter; at least one, so that a record of parameters shows the gene as decided."""

    @abstractmethod
    def unrank(self, index: int) -> Value:
        """The value at a place of the lexicographic order, ``0 <= index < size``."""

    @abstractmethod
    def validate(self, value: object) -> Value:
        """Return the canonical form of a value.

        Raises:
            InvalidArchitecture: says what was found and what is allowed.
        """

    @abstractmethod
    def encode(self, value: Value) -> dict[str, Scalar]:
        """Parameters that :meth:`decode` turns back into ``value``: the canonical ones."""

    @abstractmethod
    def decode(self, params: Mapping[str, Scalar]) -> Value:
        """The value that parameters stand for; every combination within their ranges stands for one.

        Raises:
            InvalidArchitecture: a parameter that is missing or out of its range.
        """

    @abstractmethod
    def crossover(self, a: Value, b: Value, rng: random.Random) -> Value:
        """A value made of two others."""

    @abstractmethod
    def neighbours(self, value: Value) -> Iterator[Value]:
        """The values one smallest step away, each once, never ``value``.

        The relation is symmetric and connects all values.
        """

    @property
    def picks(self) -> tuple[int, ...]:
        """Number of options of each pick, in the order of picking; one pick of a whole value by default."""
        return (self.size,)

    def ways(self, picked: Sequence[int]) -> tuple[int, ...]:
        """In how many ways picking can go on after each option of the next pick; 0: it is not allowed.

        An option means the same thing whatever was picked before it. Options drawn in proportion to their ways
        give values drawn uniformly.

        Args:
            picked: the options picked so far, fewer than :attr:`picks`, each of them allowed.
        """
        assert not picked, "there is only one pick"
        return (1,) * self.size

    def from_picks(self, picked: Sequence[int]) -> Value:
        """The value that a whole sequence of allowed picks stands for."""
        (index,) = picked
        return self.unrank(index)

    def sample(self, rng: random.Random) -> Value:
        """Draw a value uniformly."""
        return self.unrank(rng.randrange(self.size))

    def enumerate(self) -> Iterator[Value]:
        """All values in lexicographic order."""
        return map(self.unrank, range(self.size))

    def mutate(self, value: Value, rng: random.Random) -> Value:
        """A neighbour of ``value``, each equally likely; ``value`` itself only where it is the only one."""
        options = list(self.neighbours(value))
        return rng.choice(options) if options else self.validate(value)


def is_integer(value: object) -> bool:
    """Whether a value is an integer; ``True`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_sequence(value: object) -> Sequence[object]:
    """The value, if it is a list or tuple.

    Raises:
        InvalidArchitecture: it is not.
    """
    if isinstance(value, list | tuple):
        return value
    raise InvalidArchitecture(f"found {value!r}; allowed is a list")


def as_integers(value: object) -> tuple[int, ...]:
    """The value as a tuple, if it is a list or tuple of integers; 2.0 is none.

    Raises:
        InvalidArchitecture: it is not.
    """
    if not isinstance(value, list | tuple) or not all(is_integer(part) for part in value):
        raise InvalidArchitecture(f"found {value!r}; allowed is a list of integers")
    return tuple(value)


def given(params: Mapping[str, Scalar], suffix: str) -> Scalar:
    """The parameter of this suffix.

    Raises:
        InvalidArchitecture: it is missing.
    """
    if suffix not in params:
        raise InvalidArchitecture(f"parameter {suffix!r} is missing; found {sorted(params)}")
    return params[suffix]


def digit_of(params: Mapping[str, Scalar], suffix: str, bounds: Parameter) -> int:
    """The parameter of this suffix as an integer within its bounds.

    Raises:
        InvalidArchitecture: missing, no integer, or out of bounds.
    """
    assert isinstance(bounds, Integer)
    found = given(params, suffix)
    if not isinstance(found, int) or isinstance(found, bool) or not bounds.low <= found <= bounds.high:
        raise InvalidArchitecture(
            f"found parameter {suffix!r} = {found!r}; allowed is {bounds.low} to {bounds.high}, an integer"
        )
    return found


def share_of(params: Mapping[str, Scalar], suffix: str) -> float:
    """The parameter of this suffix as a float of [0, 1].

    Raises:
        InvalidArchitecture: missing, no number, or out of bounds.
    """
    found = given(params, suffix)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= 1:
        raise InvalidArchitecture(f"found parameter {suffix!r} = {found!r}; allowed is a number from 0 to 1")
    return float(found)


def listed(values: Sequence[object]) -> str:
    """Values for the end of a message: tuples as lists, separated by commas."""
    return ", ".join(str(list(value)) if isinstance(value, tuple) else repr(value) for value in values)
