"""The kinds of decision a space is made of: Choice, Composition, Permutation, Parents."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_spaces.architecture import Scalar, Value, canonical_json, freeze
from search_spaces.composition import Composition
from search_spaces.errors import InvalidArchitecture
from search_spaces.gene import (
    Categorical,
    Gene,
    Integer,
    Parameter,
    Real,
    as_integers,
    digit_of,
    given,
    is_integer,
    listed,
)

__all__ = [
    "Categorical",
    "Choice",
    "Composition",
    "Gene",
    "Integer",
    "Parameter",
    "Parents",
    "Permutation",
    "Real",
]


@dataclass(frozen=True)
class Choice(Gene):
    """One of a few options, unordered.

    Args:
        options: distinct values; options that are tuples appear as JSON text among the parameters.
    """

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        options = freeze(self.options, name="options")
        if not isinstance(options, tuple) or not options:
            raise InvalidArchitecture(f"a choice needs a list of at least one option; found {self.options!r}")
        object.__setattr__(self, "options", options)
        if len({canonical_json(option) for option in options}) < len(options):
            raise InvalidArchitecture(f"the options of a choice must differ; found {list(options)!r}")

    @property
    def size(self) -> int:
        return len(self.options)

    @cached_property
    def _by_text(self) -> dict[str, Value]:
        return {canonical_json(option): option for option in self.options}

    @cached_property
    def _labels(self) -> tuple[Scalar, ...]:
        scalars = tuple(option for option in self.options if not isinstance(option, tuple))
        if len(set(scalars)) == len(self.options):
            return scalars
        return tuple(canonical_json(option) for option in self.options)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {"": Categorical(self._labels)}

    def unrank(self, index: int) -> Value:
        return self.options[index]

    @cached_property
    def _plain(self) -> dict[tuple[type, Value], Value]:
        """Options that need no text to be told apart; 1 and 1.0 are equal and not the same."""
        return {(type(option), option): option for option in self.options if type(option) in (int, str)}

    def validate(self, value: object) -> Value:
        if isinstance(value, int | str):
            plain = self._plain.get((type(value), value))
            if plain is not None:
                return plain
        option = self._by_text.get(canonical_json(freeze(value, name="value")))
        if option is None:
            raise InvalidArchitecture(f"found {value!r}; allowed are {listed(self.options)}")
        return option

    def encode(self, value: Value) -> dict[str, Scalar]:
        return {"": self._labels[self.options.index(self.validate(value))]}

    def decode(self, params: Mapping[str, Scalar]) -> Value:
        found = given(params, "")
        for label, option in zip(self._labels, self.options, strict=True):
            if label == found and type(label) is type(found):
                return option
        raise InvalidArchitecture(f"found parameter {found!r}; allowed are {listed(self._labels)}")

    def crossover(self, a: Value, b: Value, rng: random.Random) -> Value:
        return self.validate(rng.choice((a, b)))

    def neighbours(self, value: Value) -> Iterator[Value]:
        here = self.options.index(self.validate(value))
        return (option for index, option in enumerate(self.options) if index != here)


@dataclass(frozen=True)
class Permutation(Gene):
    """An order of ``n`` things: a tuple with each of 0 to n - 1 once, encoded by its Lehmer digits."""

    n: int

    def __post_init__(self) -> None:
        if not is_integer(self.n) or self.n < 1:
            raise InvalidArchitecture(f"a permutation needs at least one thing to order; found n={self.n!r}")

    @property
    def size(self) -> int:
        return math.factorial(self.n)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {str(place): Integer(0, self.n - 1 - place) for place in range(max(1, self.n - 1))}

    def unrank(self, index: int) -> Value:
        digits = []
        for place in range(self.n):
            digit, index = divmod(index, math.factorial(self.n - 1 - place))
            digits.append(digit)
        return _draw_without_return(range(self.n), digits)

    def validate(self, value: object) -> tuple[int, ...]:
        order = as_integers(value)
        if sorted(order) != list(range(self.n)):
            raise InvalidArchitecture(
                f"found {list(order)!r}; allowed is each of 0 to {self.n - 1} exactly once"
            )
        return order

    def encode(self, value: Value) -> dict[str, Scalar]:
        digits = _places_without_return(range(self.n), self.validate(value))
        return {suffix: digits[int(suffix)] for suffix in self.parameters}

    def decode(self, params: Mapping[str, Scalar]) -> Value:
        digits = [digit_of(params, suffix, bounds) for suffix, bounds in self.parameters.items()]
        return _draw_without_return(range(self.n), [*digits, 0][: self.n])

    @property
    def picks(self) -> tuple[int, ...]:
        """The thing at each place."""
        return (self.n,) * self.n

    def ways(self, picked: Sequence[int]) -> tuple[int, ...]:
        """Things are picked without return."""
        return _ways_without_return(self.n, self.n, picked)

    def from_picks(self, picked: Sequence[int]) -> Value:
        return self.validate(picked)

    def crossover(self, a: Value, b: Value, rng: random.Random) -> Value:
        """Order crossover: a slice keeps its places from ``a``, the rest follows the order of ``b``."""
        first, second = self.validate(a), self.validate(b)
        start, end = sorted((rng.randrange(self.n + 1), rng.randrange(self.n + 1)))
        kept = first[start:end]
        rest = [thing for thing in second if thing not in kept]
        return (*rest[:start], *kept, *rest[start:])

    def neighbours(self, value: Value) -> Iterator[Value]:
        """Every exchange of two things."""
        order = self.validate(value)
        for i in range(self.n):
            for j in range(i + 1, self.n):
                yield (*order[:i], order[j], *order[i + 1 : j], order[i], *order[j + 1 :])


@dataclass(frozen=True)
class Parents(Gene):
    """``count`` distinct ones of ``available`` earlier blocks; their order means nothing, so it is sorted."""

    available: int
    count: int = 2

    def __post_init__(self) -> None:
        if not (is_integer(self.available) and is_integer(self.count) and 1 <= self.count <= self.available):
            raise InvalidArchitecture(
                f"cannot choose {self.count!r} distinct parents among {self.available!r} earlier blocks; "
                "give at least one parent and at least as many blocks"
            )

    @property
    def size(self) -> int:
        return math.comb(self.available, self.count)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {str(place): Integer(0, self.available - 1 - place) for place in range(self.count)}

    def unrank(self, index: int) -> Value:
        chosen: list[int] = []
        for block in range(self.available):
            wanted = self.count - len(chosen) - 1
            with_block = math.comb(self.available - block - 1, wanted) if wanted >= 0 else 0
            if index < with_block:
                chosen.append(block)
            else:
                index -= with_block
        return tuple(chosen)

    def validate(self, value: object) -> tuple[int, ...]:
        chosen = tuple(sorted(as_integers(value)))
        legal = set(chosen) <= set(range(self.available))
        if not legal or len(chosen) != self.count or len(set(chosen)) != self.count:
            raise InvalidArchitecture(
                f"found {value!r}; allowed are {self.count} distinct blocks of 0 to {self.available - 1}"
            )
        return chosen

    def encode(self, value: Value) -> dict[str, Scalar]:
        digits = _places_without_return(range(self.available), self.validate(value))
        return {str(place): digit for place, digit in enumerate(digits)}

    def decode(self, params: Mapping[str, Scalar]) -> Value:
        """Each digit draws from the blocks left; every set has ``count!`` orders, so draws stay uniform."""
        digits = [digit_of(params, suffix, bounds) for suffix, bounds in self.parameters.items()]
        return tuple(sorted(_draw_without_return(range(self.available), digits)))

    @property
    def picks(self) -> tuple[int, ...]:
        """One block after another, in any order, so that ``count!`` sequences of picks give one value."""
        return (self.available,) * self.count

    def ways(self, picked: Sequence[int]) -> tuple[int, ...]:
        """Blocks are picked without return."""
        return _ways_without_return(self.available, self.count, picked)

    def from_picks(self, picked: Sequence[int]) -> Value:
        return self.validate(picked)

    def crossover(self, a: Value, b: Value, rng: random.Random) -> Value:
        """What both have stays; the rest is drawn from what one of them has."""
        first, second = set(self.validate(a)), set(self.validate(b))
        shared = first & second
        return tuple(sorted([*shared, *rng.sample(sorted(first ^ second), self.count - len(shared))]))

    def neighbours(self, value: Value) -> Iterator[Value]:
        """Every exchange of one parent for a block that is none."""
        chosen = self.validate(value)
        for out in chosen:
            for block in range(self.available):
                if block not in chosen:
                    yield tuple(sorted({*chosen, block} - {out}))


def _draw_without_return(things: Sequence[int], digits: Sequence[int]) -> tuple[int, ...]:
    left = list(things)
    return tuple(left.pop(digit) for digit in digits)


def _ways_without_return(things: int, draws: int, drawn: Sequence[int]) -> tuple[int, ...]:
    each = math.perm(things - len(drawn) - 1, draws - len(drawn) - 1)
    return tuple(0 if thing in drawn else each for thing in range(things))


def _places_without_return(things: Sequence[int], drawn: Sequence[int]) -> list[int]:
    left = list(things)
    digits = []
    for thing in drawn:
        digits.append(left.index(thing))
        left.remove(thing)
    return digits
