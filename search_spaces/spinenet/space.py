"""The search space of SpineNet: scale permutations, cross-scale connections, block adjustments.

Du et al. 2020, "SpineNet: Learning Scale-Permuted Backbone for Recognition and Localization" (arXiv
1912.05027), section 3.1. Each of the decisions may be held at the baseline's value: R[N]-SP[M] searches free
the permutation and the connections, SpineNet's frees all (sections 3.3 and 5.1).
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from search_spaces.architecture import Architecture, Genes, Value, digest_of
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.gene import Gene
from search_spaces.genes import Choice, Parents, Permutation
from search_spaces.space import SearchSpace
from search_spaces.spinenet.checks import Dead, check_held, check_options, check_settings, checked_base
from search_spaces.spinenet.costs import MOBILE_STEM
from search_spaces.spinenet.dead import why_dead
from search_spaces.spinenet.family import TYPES
from search_spaces.spinenet.graph import HIGHEST, LOWEST, OUTPUT_LEVELS
from search_spaces.spinenet.labels import DELTAS, labelling, labellings, sequences
from search_spaces.spinenet.moves import exchanges, put, rewired
from search_spaces.spinenet.orders import (
    Fits,
    Merged,
    Orders,
    Row,
    Wires,
    merged_in,
    merged_in_any,
    output_orders,
)

INTERMEDIATES = (2, 3, 3, 3, 4, 4, 4, 4, 4, 5)
"""Levels of the base blocks of R0-SP53, from which SpineNet-49 was searched: table 1 of the paper, less one
output a level."""
WINDOW = 5
"""An intermediate block reads among this many blocks before it (section 5.1)."""

LISTED = 10_000
"""Spaces of so many values at most are listed to count the different architectures."""

_Blocks = dict[str, tuple[Any, ...]]
"""Levels, types and parents of the permuted blocks: the genes of an architecture."""


class SpineNetSpace(SearchSpace):
    """Scale-permuted networks of one stem and one multiset of blocks.

    Genes, in the paper's order of decisions: ``order`` (which base block stands at each intermediate place) and
    ``outputs`` (which level each output place has, 0 for P3); then, for place 9 of the graph, stem blocks counted
    first, ``parents9`` (two earlier places; within a window, counted from its oldest place), ``delta9``
    (adjustment of an intermediate block's level) and ``type9``. Adjustments and types belong to the place, not to
    the base block: they are decided after the permutation. A gene that is not free is absent.

    ``size`` counts values of the genes, as the paper counts its space, and draws are uniform over these. Many
    describe one network: blocks may be labelled (:mod:`search_spaces.spinenet.labels`) and ordered
    (:mod:`search_spaces.spinenet.orders`) in several ways. A member may be written in any order within the window, but
    whatever this space returns, :attr:`baseline` aside, is in the canonical one, so that equal networks have equal
    digests; :meth:`validate` brings any member there. :meth:`labellings` counts the values that describe a network,
    and :meth:`values` gives the canonical ones. What is not free belongs to the place: where types are held, only
    orders that have these types count.

    Neighbours are therefore steps between networks: two blocks exchange levels (their types and parents stay), one
    parent is replaced by any block with which the network still has an order within the window, one level moves to
    any other that leaves the levels described, one type flips.

    Two orders of one network differ in training with stochastic depth alone, whose rates grow with the place.

    Args:
        name: of the space.
        baseline: gives the stem, the settings, and the value of what is not free. Its
            ``settings.unconnected`` is set as ``dead`` says.
        intermediates: levels of the base blocks, in any order. By default those of :data:`INTERMEDIATES`
            where levels are free, and the baseline's own where they are not. The paper gives no base blocks
            of Mobile SpineNet: where levels are free, they are the baseline's own, 6 and 7 lowered to 5.
        window: an intermediate block reads among so many places before it; None: all of them.
        permutation: whether the order of intermediate and of output blocks is free.
        connections: whether the parents are free.
        levels: whether intermediate blocks' levels may be adjusted by one of :data:`DELTAS`; otherwise they
            are those of the base.
        types: whether each block's type is free; not for Mobile SpineNet, whose blocks are of one type.
        dead: what becomes of an intermediate block that nothing reads and that, at its level, is as wide as no
            output block: ``"connect"`` resamples it into the output nearest in level; ``"allow"`` leaves it
            dead, as the authors' code does; ``"limit"`` leaves it too, and :meth:`limit` says why such a
            network is not to be scored.

    Raises:
        InvalidArchitecture: an argument that is not allowed, nothing free, or a baseline that is not a member.
    """

    def __init__(
        self,
        name: str,
        baseline: Architecture,
        *,
        intermediates: Sequence[int] | None = None,
        window: int | None = WINDOW,
        permutation: bool = True,
        connections: bool = True,
        levels: bool = True,
        types: bool = True,
        dead: Dead = "connect",
    ) -> None:
        self.name, self.window, self.dead = name, window, dead
        self.permutation, self.connections, self.levels, self.types = permutation, connections, levels, types
        check_options(name, baseline, window, dead, types=types)
        self._baseline = _with_rule(baseline, dead)
        family_of(baseline).validate(self._baseline)
        self._typed = "types" in baseline.genes
        self._stem = len(self._stem_blocks)
        self._own_levels = cast(tuple[int, ...], baseline.genes["levels"])
        self._count = len(self._own_levels) - len(OUTPUT_LEVELS)
        if intermediates is None:
            own = self._own_levels[: self._count]
            intermediates = own if not levels else INTERMEDIATES if self._typed else _within_reach(own)
        self.base = checked_base(name, intermediates, self._count, self._deltas)
        # The baseline's canonical order: what holds where the permutation is not free.
        self._held_order = labelling(self._own_levels[: self._count], self.base, self._deltas) or ()
        self._check_baseline()
        if not self.genes:
            raise InvalidArchitecture(
                f"{name}: nothing is free; free at least one of permutation, connections, levels, types"
            )

    def _check_baseline(self) -> None:
        try:
            self.values(self._baseline)
        except InvalidArchitecture as error:
            raise InvalidArchitecture(
                f"{error}. That is the baseline, which must be in the space; change window or intermediates, or "
                "start from another network"
            ) from error

    @property
    def _held(self) -> list[str]:
        # Blocks without a gene for their type are of one type.
        return ["parents"] * (not self.connections) + ["types"] * (self._typed and not self.types)

    @property
    def _deltas(self) -> tuple[int, ...]:
        return DELTAS if self.levels else (0,)

    @property
    def _places(self) -> range:
        """All permuted places."""
        return range(self._stem, self._stem + self._count + len(OUTPUT_LEVELS))

    @cached_property
    def _decisions(self) -> dict[str, dict[str, Gene]]:
        """Free decision -> its genes."""
        found: dict[str, dict[str, Gene]] = {}
        if self.permutation:
            # An order of nothing is no decision.
            order: dict[str, Gene] = {"order": Permutation(self._count)} if self._count else {}
            found["permutation"] = {**order, "outputs": Permutation(len(OUTPUT_LEVELS))}
        if self.connections:
            found["connections"] = {
                f"parents{place}": Parents(place - self._oldest(place)) for place in self._places
            }
        if self.levels:
            found["levels"] = {f"delta{place}": Choice(DELTAS) for place in self._places[: self._count]}
        if self.types:
            found["types"] = {f"type{place}": Choice(TYPES) for place in self._places}
        return found

    def _oldest(self, place: int) -> int:
        """The first place that a block may read."""
        is_output = place >= self._stem + self._count
        return 0 if self.window is None or is_output else max(0, place - self.window)

    @cached_property
    def genes(self) -> Mapping[str, Gene]:
        """The genes of the free decisions."""
        return {name: gene for genes in self._decisions.values() for name, gene in genes.items()}

    @property
    def baseline(self) -> Architecture:
        """The network the space was made from, with the space's rule for dead blocks."""
        return self._baseline

    @property
    def digest(self) -> str:
        """Stable key of what the space contains."""
        # Before members had a canonical order, spaces had the digest without this word.
        return digest_of([super().digest, self.base, self.dead, "ordered"])

    @cached_property
    def distinct(self) -> int | None:
        """Exact number of different architectures where values number :data:`LISTED` at most; else None."""
        return sum(1 for _ in self.enumerate()) if self.size <= LISTED else None

    @property
    def lists(self) -> int:
        """Exact number of different lists of blocks: of architectures, were each order another one."""
        others = [gene.size for name, gene in self.genes.items() if name != "order" and name[:5] != "delta"]
        return math.prod(others) * self._sequences

    @property
    def redundancy(self) -> float:
        """Mean number of values of the genes that describe one list of blocks, so that differ in labels alone."""
        return self.size / self.lists

    @property
    def _sequences(self) -> int:
        return sequences(self.base, self._deltas) if self.permutation else len(self._deltas) ** self._count

    def labellings(self, architecture: Architecture) -> int:
        """How many values of the genes describe it; it is drawn with probability this over ``size``.

        Raises:
            InvalidArchitecture: see :meth:`values`.
        """
        blocks = self._checked_blocks(architecture)
        if not self.permutation:
            return self._orders(blocks).count()
        levels = blocks["levels"][: self._count]
        return labellings(levels, self.base, self._deltas) * self._orders(blocks).count()

    def orders(self, architecture: Architecture) -> int:
        """How many lists of blocks describe it: orders that keep the window and what is not free.

        Raises:
            InvalidArchitecture: see :meth:`values`.
        """
        return self._orders(self._checked_blocks(architecture)).count()

    @property
    def limits(self) -> str | None:
        """What :meth:`limit` rejects."""
        return "no dead block" if self.dead == "limit" else None

    def limit(self, architecture: Architecture) -> str | None:
        """Why a network is not to be scored where ``dead`` is ``"limit"``: the sentence, or None."""
        return why_dead(architecture) if self.dead == "limit" else None

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """The network that a value for each gene describes."""
        return self._described(self.check_values(values))

    def _described(self, values: Mapping[str, Any]) -> Architecture:
        return self._with(self._canonical(self._listed(values)))

    def _listed(self, values: Mapping[str, Any]) -> _Blocks:
        """The blocks in the order that the values give."""
        held = _blocks(self._baseline)
        count, places = self._count, self._places
        levels = held["levels"]
        if "outputs" in values:
            levels = (*levels[:count], *(OUTPUT_LEVELS[label] for label in values["outputs"]))
        order = values.get("order", self._held_order)
        deltas = (values.get(f"delta{place}", 0) for place in places)
        intermediates = (self.base[label] + delta for label, delta in zip(order, deltas, strict=False))
        parents, types = held["parents"], held["types"]
        if self.connections:
            parents = tuple(
                tuple(self._oldest(place) + offset for offset in values[f"parents{place}"])
                for place in places
            )
        if self.types:
            types = tuple(values[f"type{place}"] for place in places)
        return {"levels": (*intermediates, *levels[count:]), "types": types, "parents": parents}

    def _orders(self, blocks: _Blocks, merged: Merged | None = None) -> Orders:
        """The orders of these blocks, which stand in one themselves unless ``merged`` is given."""
        wires = self._wires(blocks) if merged is None else Wires(self._stem_blocks, _rows(blocks), merged)
        # Wires that are held say themselves what each place reads.
        return Orders(wires, self.window if self.connections else None, self._fits)

    def _canonical(self, blocks: _Blocks) -> _Blocks:
        """The same network in its canonical order."""
        if all(place - 1 in parents for place, parents in zip(self._places, blocks["parents"], strict=True)):
            # Each block reads the one before it: there is no other order.
            return blocks
        rows = self._orders(blocks).first()
        assert rows is not None, "blocks that stand in an order have one"
        return _columns(rows)

    @cached_property
    def _stem_blocks(self) -> tuple[tuple[int, str], ...]:
        if not self._typed:
            return tuple((level, "mbconv") for level in MOBILE_STEM)
        levels = cast(tuple[int, ...], self._baseline.settings["stem"])
        return tuple((level, "bottleneck") for level in levels)

    @cached_property
    def _fits(self) -> Fits | None:
        """Whether a block may stand at a place, by what is not free; None where nothing can forbid it."""
        if self.permutation and not self._held:
            return None
        held = _rows(_blocks(self._baseline))

        def fits(place: int, row: Row) -> bool:
            index = place - self._stem
            level, kind, parents = held[index]
            if not self.permutation and index >= self._count:
                level_fits = row[0] == level
            elif not self.permutation:
                level_fits = row[0] - self.base[self._held_order[index]] in self._deltas
            else:
                level_fits = True
            return level_fits and (self.types or row[1] == kind) and (self.connections or row[2] == parents)

        return fits

    def _with(self, blocks: Mapping[str, Any]) -> Architecture:
        return replace(self._baseline, genes=Genes({name: blocks[name] for name in self._baseline.genes}))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The canonical value of each gene.

        They describe the canonical order of the blocks, and of all labels with adjustments that give its levels
        those with the least total adjustment in which lower levels come from lower base blocks
        (:func:`~search_spaces.spinenet.labels.labelling`).

        Raises:
            InvalidArchitecture: other settings than the baseline's, another number of blocks, a value that
                differs where nothing is free, or a parent outside the window.
        """
        return self._values(self._canonical(self._checked_blocks(architecture)))

    def _checked_blocks(self, architecture: Architecture) -> _Blocks:
        """The blocks of a member as they stand.

        Raises:
            InvalidArchitecture: see :meth:`values`.
        """
        check_settings(self.name, architecture, self._baseline)
        family_of(architecture).validate(architecture)
        check_held(self.name, architecture, self._baseline, self._places, self._held)
        blocks = _blocks(architecture)
        if self._order(blocks["levels"]) is None:
            raise InvalidArchitecture(self._undescribed(blocks["levels"]))
        if self.connections:
            for place, parents in zip(self._places, blocks["parents"], strict=True):
                self._offsets(place, parents)
        return blocks

    def _values(self, blocks: _Blocks) -> dict[str, Value]:
        """The canonical values of blocks in the order in which they stand."""
        order = self._order(blocks["levels"])
        assert order is not None
        values: dict[str, Value] = {}
        if self.permutation:
            if self._count:
                values["order"] = order
            values["outputs"] = tuple(map(OUTPUT_LEVELS.index, blocks["levels"][self._count :]))
        rows = list(zip(self._places, *blocks.values(), strict=True))
        if self.connections:
            for place, _, _, parents in rows:
                values[f"parents{place}"] = self._offsets(place, parents)
        if self.levels:
            for (place, level, _, _), label in zip(rows, order, strict=False):
                values[f"delta{place}"] = level - self.base[label]
        if self.types:
            values |= {f"type{place}": kind for place, _, kind, _ in rows}
        return values

    def _order(self, levels: Sequence[int]) -> tuple[int, ...] | None:
        """The canonical order behind all blocks' levels; None where they are not of this space."""
        intermediates, outputs = levels[: self._count], levels[self._count :]
        if self.permutation:
            return labelling(intermediates, self.base, self._deltas)
        pairs = zip(intermediates, self._held_order, strict=False)
        described = len(self._held_order) == self._count and all(
            level - self.base[label] in self._deltas for level, label in pairs
        )
        return self._held_order if described and outputs == self._own_levels[self._count :] else None

    def _undescribed(self, levels: Sequence[int]) -> str:
        order = "in any order" if self.permutation else "in this order"
        base = (
            self.base if self.permutation else [self.base[label] for label in self._held_order] or self.base
        )
        moved = f", each moved by one of {list(self._deltas)}" if self.levels else ""
        outputs = f"; outputs at {list(self._own_levels[self._count :])}" if not self.permutation else ""
        return (
            f"{self.name}: levels: found {list(levels)}; allowed are intermediate blocks at {list(base)}, "
            f"{order}{moved}{outputs}"
        )

    def _offsets(self, place: int, parents: Sequence[int]) -> tuple[int, ...]:
        oldest = self._oldest(place)
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

    def sample(self, rng: random.Random) -> Architecture:
        """Draw uniformly from the values of the genes, so a network with probability labellings / size."""
        # Drawn values need no check.
        return self._described({name: gene.sample(rng) for name, gene in self.genes.items()})

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in lexicographic order of its canonical values."""
        for values in self._enumerated(list(self.genes)):
            blocks = self._listed(values)
            if self._values(blocks) == values and self._canonical(blocks) == blocks:
                yield self._with(blocks)

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every architecture one step away, each once; symmetric, and steps connect the space.

        In the order of outputs that a step starts from, an unread block may be taken in by another output than in
        an order that describes the same network; a step may start from each of them.
        """
        start = self._canonical(self._checked_blocks(architecture))
        ends = output_orders(self._wires(start))
        seen = {_rows(start)}
        for name in self.genes:
            for moved in self._steps(start, name):
                for merged in merged_in_any(self._stem_blocks, _rows(moved), ends):
                    rows = self._orders(moved, merged).first()
                    if rows is not None and rows not in seen:
                        seen.add(rows)
                        yield self._with(_columns(rows))

    def mutate(
        self, architecture: Architecture, rng: random.Random, rate: float | None = None
    ) -> Architecture:
        """Move to another architecture.

        Args:
            architecture: a member of this space.
            rng: decides which genes and where to.
            rate: probability of each gene to take a step, each possible step equally likely. Without it, or
                where that leads nowhere else, one gene does: first one of the free decisions is drawn (so that
                permutations are not drowned by the many parents), then one of its genes.

        Returns:
            Another architecture, or the same where the space has only one.
        """
        start = self._canonical(self._checked_blocks(architecture))
        ends = rng.choice(output_orders(self._wires(start)))
        blocks = start
        for name in self.genes if rate is not None else ():
            if rng.random() < cast(float, rate):
                blocks = self._drawn(blocks, name, ends, rng) or blocks
        found = self._settled(blocks, ends)
        return self._with(found if found is not None and found != start else self._step(start, ends, rng))

    def _step(self, start: _Blocks, ends: Sequence[int], rng: random.Random) -> _Blocks:
        decisions = list(self._decisions.values())
        for genes in rng.sample(decisions, len(decisions)):
            for name in rng.sample(list(genes), len(genes)):
                if moved := self._drawn(start, name, ends, rng, other_than=start):
                    return cast(_Blocks, self._settled(moved, ends))
        return start

    def _drawn(
        self,
        blocks: _Blocks,
        name: str,
        ends: Sequence[int],
        rng: random.Random,
        other_than: _Blocks | None = None,
    ) -> _Blocks | None:
        """One of the steps of a gene that lead to a member, each equally likely; None where none does."""
        steps = list(self._steps(blocks, name))
        for moved in rng.sample(steps, len(steps)):
            found = self._settled(moved, ends)
            if found is not None and found != other_than:
                return moved
        return None

    def _settled(self, blocks: _Blocks, ends: Sequence[int]) -> _Blocks | None:
        """The canonical order of blocks that need not stand in one, the outputs in this order; None: no member."""
        merged = merged_in(self._stem_blocks, _rows(blocks), ends)
        rows = None if merged is None else self._orders(blocks, merged).first()
        return None if rows is None else _columns(rows)

    def _steps(self, blocks: _Blocks, name: str) -> Iterator[_Blocks]:
        """What one step of a gene makes of the blocks, whether or not that still has an order.

        Blocks keep their index, so that parents may come to stand behind what reads them.
        """
        levels = blocks["levels"]
        kind = name.rstrip("0123456789")
        if kind in ("order", "outputs"):
            span = range(self._count) if kind == "order" else range(self._count, len(levels))
            yield from ({**blocks, "levels": moved} for moved in exchanges(levels, span))
            return
        index = int(name.removeprefix(kind)) - self._stem
        if kind == "parents":
            stop = self._places.stop if index >= self._count else self._stem + self._count
            for parents in rewired(blocks["parents"], index, self._stem, stop):
                yield {**blocks, "parents": put(blocks["parents"], index, parents)}
        elif kind == "type":
            for other in self.genes[name].neighbours(blocks["types"][index]):
                yield {**blocks, "types": put(blocks["types"], index, other)}
        else:
            for level in range(LOWEST, HIGHEST + 1):
                moved = put(levels, index, level)
                # Where the permutation is held, the place that the block comes to stand at decides.
                described = not self.permutation or self._order(moved) is not None
                if level != levels[index] and described:
                    yield {**blocks, "levels": moved}

    def _wires(self, blocks: _Blocks) -> Wires:
        rows = _rows(blocks)
        merged = merged_in(self._stem_blocks, rows, self._places[self._count :])
        assert merged is not None, "outputs read earlier ones"
        return Wires(self._stem_blocks, rows, merged)


def _blocks(architecture: Architecture) -> _Blocks:
    levels = cast(tuple[Any, ...], architecture.genes["levels"])
    types = cast(tuple[Any, ...], architecture.genes.get("types", ("mbconv",) * len(levels)))
    return {"levels": levels, "types": types, "parents": cast(tuple[Any, ...], architecture.genes["parents"])}


def _within_reach(levels: Sequence[int]) -> tuple[int, ...]:
    """The levels of base blocks that every adjustment leaves in the table of widths, and these within reach."""
    lowest, highest = LOWEST - DELTAS[0], HIGHEST - DELTAS[-1]
    return tuple(min(max(level, lowest), highest) for level in levels)


def _rows(blocks: _Blocks) -> tuple[Row, ...]:
    return tuple(zip(*blocks.values(), strict=True))


def _columns(rows: Sequence[Row]) -> _Blocks:
    return dict(zip(("levels", "types", "parents"), zip(*rows, strict=True), strict=True))


def _with_rule(baseline: Architecture, dead: Dead) -> Architecture:
    rule = "connect" if dead == "connect" else "published"
    return replace(baseline, settings=Genes({**baseline.settings, "unconnected": rule}))
