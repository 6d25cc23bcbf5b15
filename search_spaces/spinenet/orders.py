"""The canonical order of a scale-permuted network, and how many orders it has.

Two blocks of which neither reads the other may change places, wires and all, and the network computes the same
map: a block sums what it reads, and a sum has no order. So one network is described by many lists of blocks. Here
blocks are nodes of a graph; an order gives each node a place, and of all orders the canonical one has the list
that is smallest by (level, type, parents) block by block.

What the order does decide is which unread blocks an output sums beside its parents (:mod:`.wiring`): the rule goes
through the outputs in turn, so a block that a later output reads is taken in, and one that an earlier output
reads is not. Intermediate blocks all come before the outputs, and their order is nothing to it. Two
orders therefore describe one network where every output sums the same nodes. Rates of stochastic depth grow with
the place; they belong to training and not to the architecture, and two orders trained with it differ in these rates
alone.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations, product
from typing import NamedTuple

from search_spaces.spinenet.graph import OUTPUT_LEVELS
from search_spaces.spinenet.moves import put

Row = tuple[int, str, tuple[int, ...]]
"""Level, type and parents of a permuted block, as genes hold them."""
Fits = Callable[[int, Row], bool]
"""Whether a block may stand at a place; what is not free in a space decides it."""
Merged = frozenset[tuple[int, int]]
"""Output block and the unread block that it sums beside its parents, as nodes."""

OUTPUTS = len(OUTPUT_LEVELS)


class Wires(NamedTuple):
    """A network as a graph; a node is a place of any list of its blocks, stem blocks first.

    Args:
        stem: level and type of each stem block.
        rows: the permuted blocks, parents being nodes, later ones included; the last five are the outputs.
        merged: what each output sums beside its parents.
    """

    stem: tuple[tuple[int, str], ...]
    rows: tuple[Row, ...]
    merged: Merged


def merged_in(stem: Sequence[tuple[int, str]], rows: Sequence[Row], order: Iterable[int]) -> Merged | None:
    """What each output sums beside its parents, where the outputs stand in this order of nodes.

    Returns:
        Pairs of nodes; None where an output would read a later one.
    """
    first = len(stem) + len(rows) - OUTPUTS
    read = _read_inside(rows)
    found: set[tuple[int, int]] = set()
    placed: set[int] = set()
    for output in order:
        level, kind, parents = rows[output - len(stem)]
        if any(parent >= first and parent not in placed for parent in parents):
            return None
        placed.add(output)
        read.update(parents)
        found.update((output, node) for node in _alike(stem, rows, level, kind) if node not in read)
    return frozenset(found)


def merged_in_any(
    stem: Sequence[tuple[int, str]], rows: Sequence[Row], orders: Iterable[Sequence[int]]
) -> set[Merged]:
    """What the outputs may sum beside their parents, where they stand in one of these orders."""
    inside, first = _read_inside(rows), len(stem) + len(rows) - OUTPUTS
    read = {node: set(rows[node - len(stem)][2]) for node in range(first, len(stem) + len(rows))}
    decides = any(
        node not in inside and node not in own and any(node in other for other in read.values())
        for output, own in read.items()
        for node in _alike(stem, rows, *rows[output - len(stem)][:2])
    )
    found: set[Merged] = set()
    for order in orders:
        merged = merged_in(stem, rows, order)
        if merged is not None:
            found.add(merged)
            if not decides:
                break
    return found


def output_orders(wires: Wires) -> list[tuple[int, ...]]:
    """Every order of the output nodes that describes this network."""
    end = len(wires.stem) + len(wires.rows)
    orders = permutations(range(end - OUTPUTS, end))
    return [order for order in orders if merged_in(wires.stem, wires.rows, order) == wires.merged]


def _read_inside(rows: Sequence[Row]) -> set[int]:
    """Nodes that intermediate blocks read."""
    return {parent for _, _, parents in rows[:-OUTPUTS] for parent in parents}


def _alike(stem: Sequence[tuple[int, str]], rows: Sequence[Row], level: int, kind: str) -> list[int]:
    """Nodes that an output of this level and type could sum: as large and as wide.

    Of the stem blocks only the last, for the others feed the next one.
    """
    before = len(stem)
    nodes = [before - 1] if stem[-1] == (level, kind) else []
    return nodes + [
        node for node, row in enumerate(rows[:-OUTPUTS], before) if row[0] == level and row[1] == kind
    ]


class _State(NamedTuple):
    """Part of an order: what stands at the first places.

    Nodes of equal level, type and parents are twins: which of them stands where is left open until another
    block reads one of them, so that twins are not tried out in all their orders.

    Args:
        where: place of each node; -1 where it has none or where that is open.
        spare: for each group of twins, places of it whose node is open, ascending.
        left: for each group of nodes, twins or single, how many have no place yet.
        due: for each group, the last place from which all its parents with a known place can be read.
        seen: bit by bit, the groups with a place.
    """

    where: tuple[int, ...]
    spare: tuple[tuple[int, ...], ...]
    left: tuple[int, ...]
    due: tuple[int, ...]
    seen: int


_Step = tuple[_State, int, tuple[int, ...]]
"""A state, the group of the block that comes next, and the places of its parents."""


class Orders:
    """The lists of blocks that describe one network.

    Args:
        wires: the network.
        window: an intermediate block reads among so many places before it; None: all of them.
        fits: which block may stand where; None: any.
    """

    def __init__(self, wires: Wires, window: int | None, fits: Fits | None = None) -> None:
        self._window, self._fits = window, fits
        stem, rows, merged = wires
        self._stem, self._end = len(stem), len(stem) + len(rows)
        self._first_output = self._end - OUTPUTS
        groups: dict[tuple[bool, Row], list[int]] = {}
        for node, row in enumerate(rows, self._stem):
            groups.setdefault((node >= self._first_output, row), []).append(node)
        self._nodes = tuple(map(tuple, groups.values()))
        self._rows = tuple(row for _, row in groups)
        self._inner = [group for group, (output, _) in enumerate(groups) if not output]
        self._ends = [group for group, (output, _) in enumerate(groups) if output]
        self._group = [-1] * self._end
        self._readers: list[list[int]] = [[] for _ in range(self._end)]
        for group, nodes in enumerate(self._nodes):
            for node in nodes:
                self._group[node] = group
            for parent in self._rows[group][2]:
                self._readers[parent].append(group)
        read = _read_inside(rows)
        # Output's group -> for each block it could take in: whether it does, and the outputs that read that block.
        self._unread: dict[int, list[tuple[bool, list[int]]]] = {}
        for group in self._ends:
            (output,) = self._nodes[group]
            level, kind, parents = self._rows[group]
            self._unread[group] = [
                ((output, node) in merged, self._readers[node])
                for node in _alike(stem, rows, level, kind)
                if node not in read and node not in parents
            ]
        self._needed = [self._bits(parents) for _, _, parents in self._rows]
        self._failed: set[object] = set()
        self._counted: dict[object, int] = {}

    def _bits(self, nodes: Iterable[int]) -> int:
        """Bit by bit, the groups of nodes; stem blocks have none."""
        bits = 0
        for node in nodes:
            bits |= 1 << self._group[node] if node >= self._stem else 0
        return bits

    @property
    def _start(self) -> _State:
        where = (*range(self._stem), *[-1] * (self._end - self._stem))
        due = [self._end] * len(self._rows)
        for node in range(self._stem):
            self._hurry(due, node, node)
        return _State(where, ((),) * len(self._nodes), tuple(map(len, self._nodes)), tuple(due), 0)

    def _hurry(self, due: list[int], node: int, place: int) -> None:
        """What reads a node has to come soon after it."""
        if self._window is not None:
            for reader in self._readers[node]:
                due[reader] = min(due[reader], place + self._window)

    def first(self) -> tuple[Row, ...] | None:
        """The canonical list: the smallest of all. None where no order keeps the window and fits."""
        return self._smallest([self._start], self._stem)

    def count(self) -> int:
        """How many different lists describe the network."""
        return self._ways([self._start], self._stem)

    def _smallest(self, states: list[_State], place: int) -> tuple[Row, ...] | None:
        """The smallest end of a list whose beginning all these states share."""
        if place == self._end:
            return ()
        if self._failed and self._key(states, place) in self._failed:
            return None
        options = self._options(states, place)
        for row in sorted(options):
            after = self._after(options[row], place)
            rest = self._smallest(after, place + 1) if after else None
            if rest is not None:
                return (row, *rest)
        self._failed.add(self._key(states, place))
        return None

    def _ways(self, states: list[_State], place: int) -> int:
        if place == self._end:
            return 1
        key = self._key(states, place)
        if key not in self._counted:
            rows = self._options(states, place).values()
            states_after = (self._after(steps, place) for steps in rows)
            self._counted[key] = sum(self._ways(after, place + 1) for after in states_after if after)
        return self._counted[key]

    def _options(self, states: list[_State], place: int) -> dict[Row, list[_Step]]:
        """Every block that can stand at the next place, and how."""
        is_output = place >= self._first_output
        oldest = 0 if is_output or self._window is None else place - self._window
        found: dict[Row, list[_Step]] = {}
        for state in states:
            where, spare, left, _, seen = state
            for group in self._ends if is_output else self._inner:
                if not left[group] or self._needed[group] & ~seen:
                    continue
                if is_output and not self._sums_the_same(group, left):
                    continue
                level, kind, parents = self._rows[group]
                for taken in self._places_of(parents, where, spare):
                    row = (level, kind, tuple(sorted(taken)))
                    if min(taken) >= oldest and (self._fits is None or self._fits(place, row)):
                        found.setdefault(row, []).append((state, group, taken))
        return found

    def _after(self, steps: list[_Step], place: int) -> list[_State]:
        """What is known once a block stands at a place, in all ways that differ for the blocks to come."""
        states = [self._placed(state, place, group, taken) for state, group, taken in steps]
        if self._window is not None and place < self._first_output:
            states = [state for state in states if self._in_time(state, place + 1)]
        return list({self._future(state): state for state in states}.values()) if len(states) > 1 else states

    def _sums_the_same(self, group: int, left: tuple[int, ...]) -> bool:
        """Whether an output that comes next takes in what it should."""
        return all(taken == all(left[reader] for reader in readers) for taken, readers in self._unread[group])

    def _places_of(
        self, parents: tuple[int, ...], where: tuple[int, ...], spare: tuple[tuple[int, ...], ...]
    ) -> Iterable[tuple[int, ...]]:
        known = tuple(map(where.__getitem__, parents))
        if min(known) >= 0:
            return (known,)
        options = [
            (at,) if at >= 0 else spare[self._group[parent]]
            for parent, at in zip(parents, known, strict=True)
        ]
        return (taken for taken in product(*options) if len(set(taken)) == len(taken))

    def _placed(self, state: _State, place: int, group: int, taken: tuple[int, ...]) -> _State:
        where, spare, due = list(state.where), state.spare, list(state.due)
        for parent, at in zip(self._rows[group][2], taken, strict=True):
            if where[parent] < 0:
                twins = self._group[parent]
                spare = put(spare, twins, tuple(other for other in spare[twins] if other != at))
                where[parent] = at
                self._hurry(due, parent, at)
        nodes = self._nodes[group]
        if len(nodes) == 1:
            where[nodes[0]] = place
            self._hurry(due, nodes[0], place)
        else:
            spare = put(spare, group, (*spare[group], place))
        left = put(state.left, group, state.left[group] - 1)
        return _State(tuple(where), spare, left, tuple(due), state.seen | 1 << group)

    def _in_time(self, state: _State, place: int) -> bool:
        """Whether blocks still to come can reach their parents' windows, one block a place from here."""
        latest = [
            state.due[group]
            for group in self._inner
            if state.due[group] < self._end
            for _ in range(state.left[group])
        ]
        latest.sort()
        return all(last >= at for at, last in enumerate(latest, place))

    def _future(self, state: _State) -> tuple[object, ...]:
        """What of a state the rest of a list depends on: places that are still read, and by whom."""
        where, spare, left = state.where, state.spare, state.left
        still = [any(left[group] for group in readers) for readers in self._readers]
        open_groups = {
            self._group[node] for node in range(self._stem, self._end) if where[node] < 0 and still[node]
        }
        return (
            left,
            tuple(at if alive else -1 for at, alive in zip(where, still, strict=True)),
            tuple(places if group in open_groups else () for group, places in enumerate(spare)),
        )

    def _key(self, states: list[_State], place: int) -> object:
        if len(states) == 1 and self._fits is None:
            return place, self._window_only(states[0])
        return place, frozenset(map(self._future, states))

    def _window_only(self, state: _State) -> tuple[object, ...]:
        """Less than :meth:`_future`: without places that only outputs read, whose window is everything.

        Enough where nothing else asks for places: for whether, and in how many ways, one state ends well.
        """
        left, where, spare = self._future(state)
        assert isinstance(where, tuple)
        ends = set(self._ends)
        return (
            left,
            tuple(
                at
                if self._window is not None
                and any(state.left[group] for group in self._readers[node] if group not in ends)
                else min(at, 0)
                for node, at in enumerate(where)
            ),
            spare,
        )
