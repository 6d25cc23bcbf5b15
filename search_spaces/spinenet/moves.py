"""Small changes of a tuple, one value to a block."""

import itertools
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def put(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    """The tuple with another value at one index."""
    return (*values[:index], value, *values[index + 1 :])


def exchanges(values: tuple[T, ...], indices: range) -> Iterator[tuple[T, ...]]:
    """The tuple with two different values exchanged, for every such pair of indices."""
    for first, second in itertools.combinations(indices, 2):
        if values[first] != values[second]:
            yield put(put(values, first, values[second]), second, values[first])
