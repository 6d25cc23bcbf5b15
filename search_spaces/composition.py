"""Numbers with a fixed sum: the gene that splits a budget over parts."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_spaces.architecture import Scalar, Value
from search_spaces.errors import InvalidArchitecture
from search_spaces.gene import Gene, Parameter, Real, as_integers, as_sequence, is_integer, listed, share_of


@dataclass(frozen=True)
class Composition(Gene):
    """Parts, each from its own set, whose costs add up to a given total or fall into a window.

    A value is one number for each part. Exactly one of ``total`` and ``window`` is given. All operators
    rest on one table: how many ways there are to complete the first parts at a given cost so far. It is
    filled part by part and has one entry for each reachable cost.

    Args:
        parts: allowed values of each part, ascending.
        total: what the costs add up to.
        window: smallest and largest sum of costs allowed, both included.
        costs: of each value, in the same layout as ``parts``; the values themselves when left out.
        measure: what the costs add up to, as messages call it.

    Raises:
        InvalidArchitecture: parts or costs of the wrong form, or no allocation at all.
    """

    parts: tuple[tuple[int, ...], ...]
    total: int | None = None
    window: tuple[int, int] | None = None
    costs: tuple[tuple[int, ...], ...] | None = None
    measure: str = "sum"

    def __post_init__(self) -> None:
        parts = tuple(as_integers(part) for part in as_sequence(self.parts))
        object.__setattr__(self, "parts", parts)
        for place, part in enumerate(parts):
            if not part or list(part) != sorted(set(part)):
                raise InvalidArchitecture(
                    f"part {place + 1} allows {list(part)}; give at least one value, ascending, each once"
                )
        if not parts:
            raise InvalidArchitecture("a composition needs at least one part; found none")
        if self.costs is not None:
            object.__setattr__(self, "costs", tuple(as_integers(row) for row in as_sequence(self.costs)))
            if [len(row) for row in self._costs] != [len(part) for part in parts]:
                raise InvalidArchitecture("costs must have the layout of parts: one integer for each value")
        if (self.total is None) == (self.window is None):
            raise InvalidArchitecture(
                f"give exactly one of total and window; found total={self.total!r}, window={self.window!r}"
            )
        if not (is_integer(self.bounds[0]) and is_integer(self.bounds[1])):
            raise InvalidArchitecture(f"total and window are integers; found {self._aim}")
        if not self._completions[0]:
            raise InvalidArchitecture(
                f"no allocation with {self._aim} exists; the parts allow {listed(parts)}. "
                f"Sums reach from {sum(map(min, self._costs))} to {sum(map(max, self._costs))}"
            )
        self._check_encodable()

    def _check_encodable(self) -> None:
        for place, row in enumerate(self._costs):
            for spent, ways in self._completions[place].items():
                shares = [self._completions[place + 1].get(spent + cost, 0) for cost in row]
                # A float of [0, 1] separates shares down to 2**-53.
                if any(share and share << 48 < ways for share in shares):
                    raise InvalidArchitecture(
                        f"part {place + 1} has a value with a share of less than 2**-48, too little to be "
                        "reached through a float; use fewer parts or values"
                    )

    @property
    def _costs(self) -> tuple[tuple[int, ...], ...]:
        return self.parts if self.costs is None else self.costs

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest sum of costs allowed."""
        if self.window is not None:
            return self.window
        assert self.total is not None
        return self.total, self.total

    @property
    def _aim(self) -> str:
        low, high = self.bounds
        return f"{self.measure} {low}" if low == high else f"{self.measure} from {low} to {high}"

    @cached_property
    def _completions(self) -> "_Completions":
        return _completions(self._costs, self.bounds)

    @cached_property
    def _open_parts(self) -> tuple[int, ...]:
        """Parts that do not always follow from the earlier ones."""
        open_parts = [
            place
            for place, row in enumerate(self._costs)
            if any(
                sum(spent + cost in self._completions[place + 1] for cost in row) > 1
                for spent in self._completions[place]
            )
        ]
        return tuple(open_parts) or (0,)

    @property
    def size(self) -> int:
        return self._completions[0][0]

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """One share of [0, 1] for each part that is not already determined by the others."""
        return {str(place): Real() for place in self._open_parts}

    def unrank(self, index: int) -> Value:
        return self._at(_walk(self._costs, self._completions, _by_index(index)))

    def validate(self, value: object) -> tuple[int, ...]:
        found = as_integers(value)
        if len(found) != len(self.parts):
            raise InvalidArchitecture(
                f"found {list(found)!r} with {len(found)} parts; allowed are {len(self.parts)}"
            )
        for place, (count, part) in enumerate(zip(found, self.parts, strict=True)):
            if count not in part:
                raise InvalidArchitecture(
                    f"found {count} in part {place + 1} of {list(found)!r}; allowed are {listed(part)}"
                )
        low, high = self.bounds
        cost = self.cost(found)
        if not low <= cost <= high:
            raise InvalidArchitecture(
                f"found {list(found)!r} with {self.measure} {cost}; allowed is {self._aim}"
            )
        return found

    def cost(self, value: Sequence[int]) -> int:
        """Sum of the costs of an allocation, inside the bounds or not."""
        rows = zip(value, self.parts, self._costs, strict=True)
        return sum(costs[part.index(count)] for count, part, costs in rows)

    def encode(self, value: Value) -> dict[str, Scalar]:
        """The middle of each part's interval of shares."""
        params: dict[str, Scalar] = {}
        spent = 0
        for place, position in enumerate(self._positions(self.validate(value))):
            row = self._costs[place]
            ways = [self._completions[place + 1].get(spent + cost, 0) for cost in row]
            if place in self._open_parts:
                params[str(place)] = (2 * sum(ways[:position]) + ways[position]) / (2 * sum(ways))
            spent += row[position]
        return params

    def decode(self, params: Mapping[str, Scalar]) -> Value:
        """Each share picks a value by cumulative counts of completions.

        Snapping shares to the nearest feasible allocation, or taking them modulo, would starve or
        favour regions; counts keep uniform shares uniform over allocations.
        """
        shares = {place: share_of(params, str(place)) for place in self._open_parts}

        def pick(place: int, ways: Sequence[int]) -> int:
            numerator, denominator = shares.get(place, 0.0).as_integer_ratio()
            index = min(numerator * sum(ways) // denominator, sum(ways) - 1)
            return _by_index(index)(place, ways)

        return self._at(_walk(self._costs, self._completions, pick))

    @property
    def picks(self) -> tuple[int, ...]:
        """The place of each part's value among those the part allows."""
        return tuple(len(part) for part in self.parts)

    def ways(self, picked: Sequence[int]) -> tuple[int, ...]:
        """Completions within the bounds."""
        row, after = self._costs[len(picked)], self._completions[len(picked) + 1]
        spent = self._spent(picked)
        return tuple(after.get(spent + cost, 0) for cost in row)

    def from_picks(self, picked: Sequence[int]) -> Value:
        return self._at(picked)

    def crossover(self, a: Value, b: Value, rng: random.Random) -> Value:
        """Every part from one parent where such a mix exists; else every part between the parents'."""
        first, second = self._positions(self.validate(a)), self._positions(self.validate(b))
        pairs = list(zip(first, second, strict=True))
        mixed = [sorted({x, y}) for x, y in pairs]
        between = [list(range(min(pair), max(pair) + 1)) for pair in pairs]
        for positions in (mixed, between):
            costs = [
                [row[position] for position in part] for row, part in zip(self._costs, positions, strict=True)
            ]
            table = _completions(costs, self.bounds)
            if table[0][0] > 2 or positions is between:
                places = _walk(costs, table, _by_index(rng.randrange(table[0][0])))
                return self._at([part[place] for part, place in zip(positions, places, strict=True)])
        raise AssertionError("the loop returns at its second turn")

    def neighbours(self, value: Value) -> Iterator[Value]:
        """The allocations with no third one in between, part by part.

        Where parts allow all numbers of a range these are the moves of one unit from one part to another;
        where a set has gaps, moves grow or take in more parts only as far as needed. Two allocations with a
        third in between are joined through it, so the relation connects all of them.
        """
        start = self._positions(self.validate(value))
        found: list[_Change] = []
        frontier = {start}
        low, high = self.bounds
        while frontier:
            grown = {move for position in frontier for move in self._moves(position, start)}
            legal = {move for move in grown if low <= self._spent(move) <= high}
            for move in sorted(legal, key=lambda move: (_distance(start, move), move)):
                if not _passes_one(start, move, found):
                    found.append([(place, to) for place, to in enumerate(move) if to != start[place]])
                    yield self._at(move)
            # Whatever grows out of a move beyond a found one has that one in between too.
            frontier = {move for move in grown - legal if not _passes_one(start, move, found)}

    def _moves(self, position: tuple[int, ...], start: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Change one part more, towards the bounds: any set of changes that ends inside can be so ordered."""
        low, high = self.bounds
        spent = self._spent(position)
        for place, row in enumerate(self._costs):
            if position[place] != start[place]:
                continue
            for choice, cost in enumerate(row):
                change = cost - row[start[place]]
                helps = change < 0 if spent > high else change > 0 if spent < low else position == start
                if choice != start[place] and helps:
                    yield (*position[:place], choice, *position[place + 1 :])

    def _positions(self, value: Sequence[int]) -> tuple[int, ...]:
        return tuple(part.index(count) for part, count in zip(self.parts, value, strict=True))

    def _at(self, positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(part[position] for part, position in zip(self.parts, positions, strict=True))

    def _spent(self, positions: Sequence[int]) -> int:
        """Costs of the first parts, or of all."""
        return sum(row[position] for row, position in zip(self._costs, positions, strict=False))


_Completions = tuple[dict[int, int], ...]
_Change = list[tuple[int, int]]
"""The parts that differ from the start, with their new positions."""
_Rows = Sequence[Sequence[int]]


def _completions(costs: _Rows, bounds: tuple[int, int]) -> _Completions:
    """For each number of decided parts: cost so far -> ways to complete; dead ends are left out."""
    reached = [{0}]
    for row in costs:
        reached.append({spent + cost for spent in reached[-1] for cost in row})
    tables = [{spent: 1 for spent in reached.pop() if bounds[0] <= spent <= bounds[1]}]
    for row in reversed(costs):
        ways = {spent: sum(tables[0].get(spent + cost, 0) for cost in row) for spent in reached.pop()}
        tables.insert(0, {spent: count for spent, count in ways.items() if count})
    return tuple(tables)


def _walk(
    costs: _Rows, completions: _Completions, pick: Callable[[int, Sequence[int]], int]
) -> tuple[int, ...]:
    """Positions of an allocation; ``pick(place, ways of each value)`` decides part by part."""
    spent, positions = 0, []
    for place, row in enumerate(costs):
        position = pick(place, [completions[place + 1].get(spent + cost, 0) for cost in row])
        spent += row[position]
        positions.append(position)
    return tuple(positions)


def _by_index(index: int) -> Callable[[int, Sequence[int]], int]:
    """Picks that lead to the allocation at a place of the lexicographic order."""
    left = index

    def pick(_: int, ways: Sequence[int]) -> int:
        nonlocal left
        for position, count in enumerate(ways):
            if left < count:
                return position
            left -= count
        raise AssertionError(f"index {index} is beyond the last allocation")

    return pick


def _passes_one(start: Sequence[int], move: Sequence[int], found: Sequence[_Change]) -> bool:
    """Whether one of the changes lies between start and move, part by part."""
    for change in found:
        for place, to in change:
            if not (start[place] < to <= move[place] or move[place] <= to < start[place]):
                break
        else:
            return True
    return False


def _distance(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))
