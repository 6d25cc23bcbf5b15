"""Small changes of a tuple, one value to a block."""

import itertools
from collections.abc import Iterator, Sequence
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


def rewired(
    parents: Sequence[tuple[int, ...]], index: int, stem: int, stop: int
) -> Iterator[tuple[int, ...]]:
    """The parents of one block with one of them replaced by a block that does not read it, near or far.

    Args:
        parents: of every permuted block, counted with the stem; they need not stand before it.
        index: of the block among the permuted ones.
        stem: how many stem blocks there are.
        stop: only blocks below are read.
    """
    behind = {stem + index}
    while more := {
        after for after, read in enumerate(parents, stem) if after not in behind and behind.intersection(read)
    }:
        behind |= more
    own = parents[index]
    for other in range(stop):
        if other not in behind and other not in own:
            for left_out in own:
                yield tuple(sorted({*own, other} - {left_out}))
