"""What is free in a space of SpineNet, and the values of the genes that describe blocks in the order they stand in.

Both directions are exact: blocks come from values, and of the values that describe blocks one is canonical.
:mod:`search_spaces.spinenet.space` adds that one network may be written in several orders.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from search_spaces.architecture import Architecture, Value
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.gene import Gene
from search_spaces.genes import Choice, Parents, Permutation
from search_spaces.spinenet.checks import check_held, check_settings, checked_base
from search_spaces.spinenet.costs import MOBILE_STEM
from search_spaces.spinenet.family import TYPES
from search_spaces.spinenet.graph import HIGHEST, LOWEST, OUTPUT_LEVELS
from search_spaces.spinenet.labels import DELTAS, labelling, labellings, sequences
from search_spaces.spinenet.orders import Fits, Row

INTERMEDIATES = (2, 3, 3, 3, 4, 4, 4, 4, 4, 5)
"""Levels of the base blocks of R0-SP53, from which SpineNet-49 was searched: table 1 of the paper, less one
output a level."""

Blocks = dict[str, tuple[Any, ...]]
"""Levels, types and parents of the permuted blocks: the genes of an architecture."""


class Decisions:
    """The free decisions of one stem and one multiset of blocks; arguments as for the space.

    Attributes:
        base: levels of the base blocks, rising.
        count: of intermediate blocks.
        stem_blocks: level and type of each.
        places: of all permuted blocks, stem blocks counted first.

    Raises:
        InvalidArchitecture: base blocks that are not allowed.
    """

    def __init__(
        self,
        name: str,
        baseline: Architecture,
        *,
        intermediates: Sequence[int] | None,
        window: int | None,
        permutation: bool,
        connections: bool,
        levels: bool,
        types: bool,
    ) -> None:
        self.name, self.baseline, self.window = name, baseline, window
        self.permutation, self.connections, self.levels, self.types = permutation, connections, levels, types
        typed = "types" in baseline.genes
        self.stem_blocks = _stem_blocks(baseline)
        self.own_levels = cast(tuple[int, ...], baseline.genes["levels"])
        self.count = len(self.own_levels) - len(OUTPUT_LEVELS)
        self.places = range(len(self.stem_blocks), len(self.stem_blocks) + len(self.own_levels))
        # Blocks without a gene for their type are of one type.
        self.held = ["parents"] * (not connections) + ["types"] * (typed and not types)
        self.deltas = DELTAS if levels else (0,)
        if intermediates is None:
            own = self.own_levels[: self.count]
            intermediates = own if not levels else INTERMEDIATES if typed else _within_reach(own)
        self.base = checked_base(name, intermediates, self.count, self.deltas)
        # The baseline's canonical order: what holds where the permutation is not free.
        self.held_order = labelling(self.own_levels[: self.count], self.base, self.deltas) or ()

    @cached_property
    def genes(self) -> dict[str, dict[str, Gene]]:
        """Free decision -> its genes."""
        found: dict[str, dict[str, Gene]] = {}
        if self.permutation:
            # An order of nothing is no decision.
            order: dict[str, Gene] = {"order": Permutation(self.count)} if self.count else {}
            found["permutation"] = {**order, "outputs": Permutation(len(OUTPUT_LEVELS))}
        if self.connections:
            found["connections"] = {
                f"parents{place}": Parents(place - self.oldest(place)) for place in self.places
            }
        if self.levels:
            found["levels"] = {f"delta{place}": Choice(DELTAS) for place in self.places[: self.count]}
        if self.types:
            found["types"] = {f"type{place}": Choice(TYPES) for place in self.places}
        return found

    def oldest(self, place: int) -> int:
        """The first place that a block may read."""
        is_output = place >= self.places.start + self.count
        return 0 if self.window is None or is_output else max(0, place - self.window)

    @property
    def sequences(self) -> int:
        """Number of different levels of the intermediate blocks, in order."""
        return sequences(self.base, self.deltas) if self.permutation else len(self.deltas) ** self.count

    def labellings(self, blocks: Blocks) -> int:
        """How many values describe these blocks in the order they stand in."""
        if not self.permutation:
            return 1
        return labellings(blocks["levels"][: self.count], self.base, self.deltas)

    @cached_property
    def fits(self) -> Fits | None:
        """Whether a block may stand at a place, by what is not free; None where nothing can forbid it."""
        if self.permutation and not self.held:
            return None
        held = rows_of(blocks_of(self.baseline))

        def fits(place: int, row: Row) -> bool:
            index = place - self.places.start
            level, kind, parents = held[index]
            if not self.permutation and index >= self.count:
                level_fits = row[0] == level
            elif not self.permutation:
                level_fits = row[0] - self.base[self.held_order[index]] in self.deltas
            else:
                level_fits = True
            return level_fits and (self.types or row[1] == kind) and (self.connections or row[2] == parents)

        return fits

    def blocks(self, values: Mapping[str, Any]) -> Blocks:
        """The blocks in the order that the values give."""
        held = blocks_of(self.baseline)
        count, places = self.count, self.places
        levels = held["levels"]
        if "outputs" in values:
            levels = (*levels[:count], *(OUTPUT_LEVELS[label] for label in values["outputs"]))
        order = values.get("order", self.held_order)
        deltas = (values.get(f"delta{place}", 0) for place in places)
        intermediates = (self.base[label] + delta for label, delta in zip(order, deltas, strict=False))
        parents, types = held["parents"], held["types"]
        if self.connections:
            parents = tuple(
                tuple(self.oldest(place) + offset for offset in values[f"parents{place}"]) for place in places
            )
        if self.types:
            types = tuple(values[f"type{place}"] for place in places)
        return {"levels": (*intermediates, *levels[count:]), "types": types, "parents": parents}

    def values(self, blocks: Blocks) -> dict[str, Value]:
        """The canonical values of blocks in the order in which they stand."""
        order = self.order(blocks["levels"])
        assert order is not None
        values: dict[str, Value] = {}
        if self.permutation:
            if self.count:
                values["order"] = order
            values["outputs"] = tuple(map(OUTPUT_LEVELS.index, blocks["levels"][self.count :]))
        rows = list(zip(self.places, *blocks.values(), strict=True))
        if self.connections:
            for place, _, _, parents in rows:
                values[f"parents{place}"] = self._offsets(place, parents)
        if self.levels:
            for (place, level, _, _), label in zip(rows, order, strict=False):
                values[f"delta{place}"] = level - self.base[label]
        if self.types:
            values |= {f"type{place}": kind for place, _, kind, _ in rows}
        return values

    def order(self, levels: Sequence[int]) -> tuple[int, ...] | None:
        """The canonical order behind all blocks' levels; None where they are not of this space."""
        intermediates, outputs = levels[: self.count], levels[self.count :]
        if self.permutation:
            return labelling(intermediates, self.base, self.deltas)
        pairs = zip(intermediates, self.held_order, strict=False)
        described = len(self.held_order) == self.count and all(
            level - self.base[label] in self.deltas for level, label in pairs
        )
        return self.held_order if described and outputs == self.own_levels[self.count :] else None

    def checked(self, architecture: Architecture) -> Blocks:
        """The blocks of a member as they stand.

        Raises:
            InvalidArchitecture: see :meth:`search_spaces.spinenet.space.SpineNetSpace.values`.
        """
        check_settings(self.name, architecture, self.baseline)
        family_of(architecture).validate(architecture)
        check_held(self.name, architecture, self.baseline, self.places, self.held)
        blocks = blocks_of(architecture)
        if self.order(blocks["levels"]) is None:
            raise InvalidArchitecture(self._undescribed(blocks["levels"]))
        if self.connections:
            for place, parents in zip(self.places, blocks["parents"], strict=True):
                self._offsets(place, parents)
        return blocks

    def _undescribed(self, levels: Sequence[int]) -> str:
        order = "in any order" if self.permutation else "in this order"
        base = self.base if self.permutation else [self.base[label] for label in self.held_order] or self.base
        moved = f", each moved by one of {list(self.deltas)}" if self.levels else ""
        outputs = f"; outputs at {list(self.own_levels[self.count :])}" if not self.permutation else ""
        return (
            f"{self.name}: levels: found {list(levels)}; allowed are intermediate blocks at {list(base)}, "
            f"{order}{moved}{outputs}"
        )

    def _offsets(self, place: int, parents: Sequence[int]) -> tuple[int, ...]:
        oldest = self.oldest(place)
        if len(parents) != 2:
            raise InvalidArchitecture(
                f"{self.name}: parents: found {list(parents)} at block {place}; allowed are two earlier blocks"
            )
        if min(parents) < oldest:
            raise InvalidArchitecture(
                f"{self.name}: parents: found parent {min(parents)} of block {place}; with a window of "
                f"{self.window}, allowed are {oldest} to {place - 1}"
            )
        return tuple(parent - oldest for parent in parents)


def blocks_of(architecture: Architecture) -> Blocks:
    """The permuted blocks of an architecture as they stand; those without a gene for it are of one type."""
    levels = cast(tuple[Any, ...], architecture.genes["levels"])
    types = cast(tuple[Any, ...], architecture.genes.get("types", ("mbconv",) * len(levels)))
    return {"levels": levels, "types": types, "parents": cast(tuple[Any, ...], architecture.genes["parents"])}


def rows_of(blocks: Blocks) -> tuple[Row, ...]:
    """Block by block what stands gene by gene."""
    return tuple(zip(*blocks.values(), strict=True))


def columns_of(rows: Sequence[Row]) -> Blocks:
    """Gene by gene what stands block by block."""
    return dict(zip(("levels", "types", "parents"), zip(*rows, strict=True), strict=True))


def _stem_blocks(baseline: Architecture) -> tuple[tuple[int, str], ...]:
    if "types" not in baseline.genes:
        return tuple((level, "mbconv") for level in MOBILE_STEM)
    levels = cast(tuple[int, ...], baseline.settings["stem"])
    return tuple((level, "bottleneck") for level in levels)


def _within_reach(levels: Sequence[int]) -> tuple[int, ...]:
    """The levels of base blocks that every adjustment leaves in the table of widths, and these within reach."""
    lowest, highest = LOWEST - DELTAS[0], HIGHEST - DELTAS[-1]
    return tuple(min(max(level, lowest), highest) for level in levels)
