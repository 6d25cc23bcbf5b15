"""Stage reallocation: how many blocks each of the four resolutions gets, at equal cost.

Liang et al., "Computation Reallocation for Object Detection", ICLR 2020, section 3.2.1. A ResNet block costs
the same multiply-adds in every stage, so there the budget is a number of blocks; where blocks differ in
cost, as in MobileNetV2, it is a window of multiply-adds around the baseline's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.cost import cost
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.gene import as_integers
from search_spaces.genes import Composition
from search_spaces.space import SearchSpace

RESNET_BRANCHES = (
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    (2, 3, 5, 6, 9, 11, 14, 17, 20, 23),
    (2, 3, 4, 6, 7, 9, 11, 13, 15, 17),
)
"""Block counts of the four stages; one table for the whole ResNet series, so that one supernet serves all."""

MOBILENETV2_BRANCHES = (
    tuple(range(1, 9)),
    tuple(range(1, 9)),
    tuple(range(2, 13)),
    tuple(range(1, 11)),
)
"""Ours: the paper's table for MobileNetV2 is in an appendix that we did not find."""

BRANCHES = {"crnas.resnet": RESNET_BRANCHES, "crnas.mobilenetv2": MOBILENETV2_BRANCHES}
"""Family -> block counts that a search may choose when a recipe gives none."""

MACS_AT = (224, 224)
"""Input (height, width) at which a budget of multiply-adds is counted."""


class StageSpace(SearchSpace):
    """Allocations of blocks to stages; one gene, ``blocks``.

    Args:
        name: of the space.
        baseline: the hand-made network; it gives family and settings, and its allocation must be a member.
        branches: allowed block counts of each of the four stages, ascending.
        budget: number of blocks in all. Without it the multiply-adds at 224 x 224 stay within
            ``tolerance`` of the baseline's.
        tolerance: relative difference in multiply-adds from the baseline that counts as equal cost.

    Raises:
        InvalidArchitecture: no allocation fits, or the baseline is not a member.
    """

    def __init__(
        self,
        name: str,
        baseline: Architecture,
        branches: Sequence[Sequence[int]],
        budget: int | None,
        *,
        tolerance: float = 0.005,
    ) -> None:
        self.name = name
        self.budget = budget
        self.tolerance = tolerance
        self._baseline = baseline
        family_of(baseline).validate(baseline)
        try:
            self.branches = _checked(branches)
            self._blocks = self._by_blocks() if budget is not None else self._by_macs()
        except InvalidArchitecture as error:
            raise InvalidArchitecture(f"{name}: branches: {error}") from error
        self._check_baseline()

    def _by_blocks(self) -> Composition:
        return Composition(parts=self.branches, total=self.budget)

    def _by_macs(self) -> Composition:
        if not 0 <= self.tolerance < 1:
            raise InvalidArchitecture(f"tolerance {self.tolerance!r}: allowed is from 0 to below 1")
        base = cost(self._baseline, MACS_AT).macs
        before = cast(tuple[int, ...], self._baseline.genes["blocks"])
        costs = []
        for stage, counts in enumerate(self.branches):
            # What a stage costs does not depend on the others: one stage carries the rest of the network,
            # the others their difference to the baseline.
            shift = 0 if stage == 0 else base
            allocations = [(*before[:stage], count, *before[stage + 1 :]) for count in counts]
            costs.append(
                tuple(cost(self._allocation(blocks), MACS_AT).macs - shift for blocks in allocations)
            )
        slack = int(base * self.tolerance)
        return Composition(
            parts=self.branches,
            window=(base - slack, base + slack),
            costs=tuple(costs),
            measure=f"MACs at {MACS_AT[0]}x{MACS_AT[1]}",
        )

    def _check_baseline(self) -> None:
        try:
            self.values(self._baseline)
        except InvalidArchitecture as error:
            raise InvalidArchitecture(
                f"{error}. That is the baseline, which must be in the space to be compared at equal cost; "
                "change branches or budget, or start from another network"
            ) from error

    def _allocation(self, blocks: Sequence[int]) -> Architecture:
        genes = Genes({"blocks": tuple(blocks), "dilations": (1,) * sum(blocks)})
        return replace(self._baseline, genes=genes)

    @cached_property
    def genes(self) -> Mapping[str, Composition]:
        """``blocks``: four block counts."""
        return {"blocks": self._blocks}

    @property
    def baseline(self) -> Architecture:
        """The hand-made network."""
        return self._baseline

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """The network with these block counts and no dilation."""
        return self._allocation(cast(tuple[int, ...], self.check_values(values)["blocks"]))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The block counts of a member.

        Raises:
            InvalidArchitecture: another family or other settings, dilations, or an allocation outside.
        """
        check_same_network(self.name, architecture, self._baseline)
        values = self.check_values({"blocks": architecture.genes["blocks"]})
        if architecture.genes["dilations"] != self.architecture(values).genes["dilations"]:
            raise InvalidArchitecture(
                f"{self.name}: found dilations {architecture.genes['dilations']}; allowed is 1 for each of "
                "the blocks, dilations have a space of their own"
            )
        return values


def _checked(branches: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    if len(branches) != 4:
        raise InvalidArchitecture(f"found {len(branches)} stages; needed are four lists of block counts")
    table = tuple(as_integers(counts) for counts in branches)
    for stage, counts in enumerate(table, start=1):
        if any(count < 1 for count in counts):
            raise InvalidArchitecture(
                f"found {list(counts)} for stage {stage}; allowed are counts of at least 1"
            )
    return table


def check_same_network(space: str, architecture: Architecture, base: Architecture) -> None:
    """Check that two architectures differ in nothing but the values of their genes.

    Raises:
        InvalidArchitecture: they do; names the first difference.
    """
    for what in ("family", "version", "settings"):
        found, needed = getattr(architecture, what), getattr(base, what)
        if found != needed:
            raise InvalidArchitecture(f"{space}: found {what} {found!r}; this space has {needed!r} only")
    if set(architecture.genes) != set(base.genes):
        raise InvalidArchitecture(
            f"{space}: found genes {sorted(architecture.genes)}; needed are exactly {sorted(base.genes)}"
        )
