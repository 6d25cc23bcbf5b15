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
from search_spaces.space import SearchSpace
from search_spaces.spinenet.checks import Dead, check_options
from search_spaces.spinenet.dead import why_dead
from search_spaces.spinenet.decisions import Blocks, Decisions, columns_of, rows_of
from search_spaces.spinenet.graph import HIGHEST, LOWEST
from search_spaces.spinenet.moves import exchanges, put, rewired
from search_spaces.spinenet.orders import (
    Merged,
    Orders,
    Wires,
    merged_in,
    merged_in_any,
    output_orders,
)

WINDOW = 5
"""An intermediate block reads among this many blocks before it (section 5.1)."""

LISTED = 10_000
"""Spaces of so many values at most are listed to count the different architectures."""


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
        intermediates: levels of the base blocks, in any order. By default
            :data:`search_spaces.spinenet.decisions.INTERMEDIATES`
            where levels are free, and the baseline's own where they are not. The paper gives no base blocks
            of Mobile SpineNet: where levels are free, they are the baseline's own, 6 and 7 lowered to 5.
        window: an intermediate block reads among so many places before it; None: all of them.
        permutation: whether the order of intermediate and of output blocks is free.
        connections: whether the parents are free.
        levels: whether intermediate blocks' levels may be adjusted by -1, 0, 1 or 2; otherwise they
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
        self.name, self.dead = name, dead
        check_options(name, baseline, window, dead, types=types)
        self._baseline = _with_rule(baseline, dead)
        family_of(baseline).validate(self._baseline)
        self._decisions = Decisions(
            name,
            self._baseline,
            intermediates=intermediates,
            window=window,
            permutation=permutation,
            connections=connections,
            levels=levels,
            types=types,
        )
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

    @cached_property
    def genes(self) -> Mapping[str, Gene]:
        """The genes of the free decisions."""
        return {name: gene for genes in self._decisions.genes.values() for name, gene in genes.items()}

    @property
    def baseline(self) -> Architecture:
        """The network the space was made from, with the space's rule for dead blocks."""
        return self._baseline

    @property
    def base(self) -> tuple[int, ...]:
        """Levels of the base blocks, rising."""
        return self._decisions.base

    @property
    def digest(self) -> str:
        """Stable key of what the space contains."""
        # Before members had a canonical order, spaces had the digest without this word.
        return digest_of([super().digest, self._decisions.base, self.dead, "ordered"])

    @cached_property
    def distinct(self) -> int | None:
        """Exact number of different architectures where values number :data:`LISTED` at most; else None."""
        return sum(1 for _ in self.enumerate()) if self.size <= LISTED else None

    @property
    def lists(self) -> int:
        """Exact number of different lists of blocks: of architectures, were each order another one."""
        others = [gene.size for name, gene in self.genes.items() if name != "order" and name[:5] != "delta"]
        return math.prod(others) * self._decisions.sequences

    @property
    def redundancy(self) -> float:
        """Mean number of values of the genes that describe one list of blocks, so that differ in labels alone."""
        return self.size / self.lists

    def labellings(self, architecture: Architecture) -> int:
        """How many values of the genes describe it; it is drawn with probability this over ``size``.

        Raises:
            InvalidArchitecture: see :meth:`values`.
        """
        blocks = self._decisions.checked(architecture)
        return self._decisions.labellings(blocks) * self._orders(blocks).count()

    def orders(self, architecture: Architecture) -> int:
        """How many lists of blocks describe it: orders that keep the window and what is not free.

        Raises:
            InvalidArchitecture: see :meth:`values`.
        """
        return self._orders(self._decisions.checked(architecture)).count()

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
        return self._with(self._canonical(self._decisions.blocks(values)))

    def _orders(self, blocks: Blocks, merged: Merged | None = None) -> Orders:
        """The orders of these blocks, which stand in one themselves unless ``merged`` is given."""
        wires = (
            self._wires(blocks)
            if merged is None
            else Wires(self._decisions.stem_blocks, rows_of(blocks), merged)
        )
        # Wires that are held say themselves what each place reads.
        free = self._decisions
        return Orders(wires, free.window if free.connections else None, free.fits)

    def _canonical(self, blocks: Blocks) -> Blocks:
        """The same network in its canonical order."""
        if all(
            place - 1 in parents
            for place, parents in zip(self._decisions.places, blocks["parents"], strict=True)
        ):
            # Each block reads the one before it: there is no other order.
            return blocks
        rows = self._orders(blocks).first()
        assert rows is not None, "blocks that stand in an order have one"
        return columns_of(rows)

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
        return self._decisions.values(self._canonical(self._decisions.checked(architecture)))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw uniformly from the values of the genes, so a network with probability labellings / size."""
        # Drawn values need no check.
        return self._described({name: gene.sample(rng) for name, gene in self.genes.items()})

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in lexicographic order of its canonical values."""
        for values in self._enumerated(list(self.genes)):
            blocks = self._decisions.blocks(values)
            if self._decisions.values(blocks) == values and self._canonical(blocks) == blocks:
                yield self._with(blocks)

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every architecture one step away, each once; symmetric, and steps connect the space.

        In the order of outputs that a step starts from, an unread block may be taken in by another output than in
        an order that describes the same network; a step may start from each of them.
        """
        start = self._canonical(self._decisions.checked(architecture))
        ends = output_orders(self._wires(start))
        seen = {rows_of(start)}
        for name in self.genes:
            for moved in self._steps(start, name):
                for merged in merged_in_any(self._decisions.stem_blocks, rows_of(moved), ends):
                    rows = self._orders(moved, merged).first()
                    if rows is not None and rows not in seen:
                        seen.add(rows)
                        yield self._with(columns_of(rows))

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
        start = self._canonical(self._decisions.checked(architecture))
        ends = rng.choice(output_orders(self._wires(start)))
        blocks = start
        for name in self.genes if rate is not None else ():
            if rng.random() < cast(float, rate):
                blocks = self._drawn(blocks, name, ends, rng) or blocks
        found = self._settled(blocks, ends)
        return self._with(found if found is not None and found != start else self._step(start, ends, rng))

    def _step(self, start: Blocks, ends: Sequence[int], rng: random.Random) -> Blocks:
        decisions = list(self._decisions.genes.values())
        for genes in rng.sample(decisions, len(decisions)):
            for name in rng.sample(list(genes), len(genes)):
                if moved := self._drawn(start, name, ends, rng, other_than=start):
                    return cast(Blocks, self._settled(moved, ends))
        return start

    def _drawn(
        self,
        blocks: Blocks,
        name: str,
        ends: Sequence[int],
        rng: random.Random,
        other_than: Blocks | None = None,
    ) -> Blocks | None:
        """One of the steps of a gene that lead to a member, each equally likely; None where none does."""
        steps = list(self._steps(blocks, name))
        for moved in rng.sample(steps, len(steps)):
            found = self._settled(moved, ends)
            if found is not None and found != other_than:
                return moved
        return None

    def _settled(self, blocks: Blocks, ends: Sequence[int]) -> Blocks | None:
        """The canonical order of blocks that need not stand in one, the outputs in this order; None: no member."""
        merged = merged_in(self._decisions.stem_blocks, rows_of(blocks), ends)
        rows = None if merged is None else self._orders(blocks, merged).first()
        return None if rows is None else columns_of(rows)

    def _steps(self, blocks: Blocks, name: str) -> Iterator[Blocks]:
        """What one step of a gene makes of the blocks, whether or not that still has an order.

        Blocks keep their index, so that parents may come to stand behind what reads them.
        """
        free, levels = self._decisions, blocks["levels"]
        stem = free.places.start
        kind = name.rstrip("0123456789")
        if kind in ("order", "outputs"):
            span = range(free.count) if kind == "order" else range(free.count, len(levels))
            yield from ({**blocks, "levels": moved} for moved in exchanges(levels, span))
            return
        index = int(name.removeprefix(kind)) - stem
        if kind == "parents":
            stop = free.places.stop if index >= free.count else stem + free.count
            for parents in rewired(blocks["parents"], index, stem, stop):
                yield {**blocks, "parents": put(blocks["parents"], index, parents)}
        elif kind == "type":
            for other in self.genes[name].neighbours(blocks["types"][index]):
                yield {**blocks, "types": put(blocks["types"], index, other)}
        else:
            for level in range(LOWEST, HIGHEST + 1):
                moved = put(levels, index, level)
                # Where the permutation is held, the place that the block comes to stand at decides.
                described = not free.permutation or free.order(moved) is not None
                if level != levels[index] and described:
                    yield {**blocks, "levels": moved}

    @property
    def _ends(self) -> range:
        """Places of the output blocks."""
        return self._decisions.places[self._decisions.count :]

    def _wires(self, blocks: Blocks) -> Wires:
        rows = rows_of(blocks)
        merged = merged_in(self._decisions.stem_blocks, rows, self._ends)
        assert merged is not None, "outputs read earlier ones"
        return Wires(self._decisions.stem_blocks, rows, merged)


def _with_rule(baseline: Architecture, dead: Dead) -> Architecture:
    rule = "connect" if dead == "connect" else "published"
    return replace(baseline, settings=Genes({**baseline.settings, "unconnected": rule}))
