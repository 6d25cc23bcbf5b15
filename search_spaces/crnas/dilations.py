"""Spatial reallocation: a dilation for every block of a fixed allocation, at no cost at all.

Liang et al., "Computation Reallocation for Object Detection", ICLR 2020, section 3.2.2: the second 3x3
convolution of a basic block, the 3x3 of a bottleneck (and, by our choice, the depthwise one of MobileNetV2)
has dilation 1, 2 or 3. Parameters and multiply-adds stay as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.crnas.families import DILATIONS
from search_spaces.crnas.stages import check_same_network
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.genes import Choice
from search_spaces.space import SearchSpace


class DilationSpace(SearchSpace):
    """Dilations of every block; one gene a block, ``d1.0`` for the first of stage 1, from input to output.

    Args:
        name: of the space.
        base: the network whose blocks get dilations; the baseline of the space.

    Raises:
        InvalidArchitecture: a base that its family does not allow.
    """

    def __init__(self, name: str, base: Architecture) -> None:
        self.name = name
        family_of(base).validate(base)
        self._base = base

    @cached_property
    def genes(self) -> Mapping[str, Choice]:
        """One choice a block, in the order of the network."""
        blocks = cast(tuple[int, ...], self._base.genes["blocks"])
        return {
            f"d{stage}.{index}": Choice(DILATIONS)
            for stage, count in enumerate(blocks, start=1)
            for index in range(count)
        }

    @property
    def baseline(self) -> Architecture:
        """The network the space was made from."""
        return self._base

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """The base with these dilations."""
        dilations = tuple(self.check_values(values).values())
        return replace(self._base, genes=Genes({**self._base.genes, "dilations": dilations}))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The dilation of each block of a member.

        Raises:
            InvalidArchitecture: another network, another allocation, or dilations that are not allowed.
        """
        check_same_network(self.name, architecture, self._base)
        blocks, dilations = architecture.genes["blocks"], architecture.genes["dilations"]
        if blocks != self._base.genes["blocks"]:
            raise InvalidArchitecture(
                f"{self.name}: found blocks {blocks}; this space has {self._base.genes['blocks']} only"
            )
        if not isinstance(dilations, tuple) or len(dilations) != len(self.genes):
            raise InvalidArchitecture(
                f"{self.name}: found dilations {dilations!r}; needed is one for each of the "
                f"{len(self.genes)} blocks"
            )
        return self.check_values(dict(zip(self.genes, dilations, strict=True)))
