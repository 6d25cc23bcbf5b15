"""Which base block stands at which place: labellings of a sequence of levels, and how many there are.

A scale permutation orders labelled blocks, and then each may move up or down by an adjustment (Du et al. 2020,
arXiv 1912.05027, section 3.1). The network shows only the levels that result: blocks of one level may be
exchanged, and different orders with different adjustments meet in one sequence. So one network has many
labellings; here is the canonical one, their number, and the number of sequences they describe.

Throughout, ``base`` holds the levels of the base blocks in ascending order, a label is an index into it, and
``deltas`` are the allowed adjustments, consecutive integers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

DELTAS = (-1, 0, 1, 2)
"""Adjustments of an intermediate block's level (section 3.1)."""


def labelling(
    levels: Sequence[int], base: Sequence[int], deltas: Sequence[int] = DELTAS
) -> tuple[int, ...] | None:
    """The canonical labelling: the label at each place, lower levels taking lower labels, equal ones in order.

    Any labelling can be brought to this one by undoing crossings: where a lower level has a higher base than
    another, exchanging the two keeps both adjustments between those that were there, so inside consecutive
    ``deltas``. So this one exists where any does, and none has a smaller sum of absolute adjustments.

    Returns:
        One label a place; None where the levels cannot come from this base.
    """
    if len(levels) != len(base):
        return None
    low, high = deltas[0], deltas[-1]
    labels = [0] * len(base)
    # Sorting is stable: of equal levels the first place gets the first label.
    for label, place in enumerate(sorted(range(len(levels)), key=levels.__getitem__)):
        if not low <= levels[place] - base[label] <= high:
            return None
        labels[place] = label
    return tuple(labels)


def labellings(levels: Sequence[int], base: Sequence[int], deltas: Sequence[int] = DELTAS) -> int:
    """How many labellings (orders with their adjustments) describe these levels; 0 where none does."""
    return _labellings(tuple(sorted(levels)), tuple(base), tuple(deltas))


@lru_cache(maxsize=4096)
def _labellings(levels: tuple[int, ...], base: tuple[int, ...], deltas: tuple[int, ...]) -> int:
    if len(levels) != len(base):
        return 0
    kinds = Counter(base)
    # Blocks of one base level are taken as alike, place by place: blocks left of each kind -> ways so far.
    ways: Counter[tuple[int, ...]] = Counter({tuple(kinds.values()): 1})
    for level in levels:
        after: Counter[tuple[int, ...]] = Counter()
        for left, count in ways.items():
            for index, kind in enumerate(kinds):
                if left[index] and level - kind in deltas:
                    after[(*left[:index], left[index] - 1, *left[index + 1 :])] += count
        ways = after
    alike = math.prod(math.factorial(count) for count in kinds.values())
    return sum(ways.values()) * alike


def sequences(base: Sequence[int], deltas: Sequence[int] = DELTAS) -> int:
    """How many different sequences of levels the labellings describe.

    A sequence is described where its ascending levels fit the ascending base one by one (see
    :func:`labelling`). Level by level, so many of the next base blocks are taken, and so many places of those
    left: the choices of places multiply up to the orders of the sequence.
    """
    blocks = len(base)
    ways = [1] + [0] * blocks
    for level in range(min(base, default=0) + deltas[0], max(base, default=0) + deltas[-1] + 1):
        after = list(ways)
        for taken in range(blocks):
            for end in range(taken + 1, blocks + 1):
                if level - base[end - 1] not in deltas:
                    break
                after[end] += ways[taken] * math.comb(blocks - taken, end - taken)
        ways = after
    return ways[blocks]
