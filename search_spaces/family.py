"""A family of networks: everything that can be known of its members, first without torch, then built.

A :class:`Family` reads an :class:`~search_spaces.architecture.Architecture` and gives its cost, its
levels and its network. Search logic and cost models stay on the torch-free side of it.
"""

import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.layer import Cost, Layer, layer_costs, layer_fields
from search_spaces.targets import address, beside, load

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ChainFamily", "Cost", "Family", "Layer", "Level"]


class Level(NamedTuple):
    """One feature map of a backbone: its channels and its stride in input pixels."""

    channels: int
    stride: int


class Family(ABC):
    """Builds and describes the networks of one kind.

    Attributes:
        version: of the definition, as in ``Architecture.version``.
        module: dotted name of the file that defines the network and imports only torch; for a family in a person's
            own file the name of another one beside it (``"my_network.py"``).
        network: the class in that file.
    """

    version: int = 1
    module: str
    network: str

    @property
    def name(self) -> str:
        """What ``Architecture.family`` says; the house's families have short names of their own."""
        return address(type(self))

    @abstractmethod
    def validate(self, architecture: Architecture) -> None:
        """Check every setting and gene.

        Raises:
            InvalidArchitecture: with the value found and what is allowed.
        """

    @abstractmethod
    def cost_by_stage(self, architecture: Architecture, input_size: tuple[int, int]) -> dict[str, Cost]:
        """Cost of each part of the network for one image, without building anything.

        Args:
            architecture: a member of this family.
            input_size: (height, width) in pixels.

        Raises:
            InvalidArchitecture: see :meth:`validate`; or an input side below 32 px.
        """

    @abstractmethod
    def fields(self, architecture: Architecture) -> dict[str, int]:
        """Level name -> side in pixels of the largest theoretical receptive field of one of its cells."""

    @abstractmethod
    def levels(self, architecture: Architecture) -> dict[str, Level]:
        """Channels and stride of every feature map the network returns, finest first."""

    @abstractmethod
    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments, plain data, that make the network class build this architecture."""

    def text(self, architecture: Architecture) -> str:
        """The genes in one short line, for tables and progress; two networks of one search differ in it."""
        # An architecture writes its family first, which all networks of a search share.
        return str(architecture).partition(" ")[2]

    @property
    def source(self) -> Path:
        """The file that defines the network; its text is what an export carries."""
        if self.module.endswith(".py"):
            return beside(type(self), self.module)
        found = importlib.util.find_spec(self.module)
        assert found is not None and found.origin is not None
        return Path(found.origin)

    def build(self, architecture: Architecture, *, seed: int | None = None) -> "nn.Module":
        """Build the backbone with random weights; ``forward(images)`` returns level name -> feature map.

        Args:
            architecture: a member of this family.
            seed: of the weights; without it they come from torch's global generator.

        Raises:
            InvalidArchitecture: see :meth:`validate`.
            ConfigError: the file of a person's own network is not there or lacks the class.
        """
        import torch

        self.validate(architecture)
        if self.module.endswith(".py"):
            kind = load(f"{self.source}:{self.network}")
            defined = sys.modules[kind.__module__]
            if not hasattr(defined, "initialise"):
                raise ConfigError(
                    f"{self.source} lacks initialise(network, generator), which draws the weights from a generator"
                )
        else:
            defined = importlib.import_module(self.module)
            kind = getattr(defined, self.network)
        network: nn.Module = kind(**self.arguments(architecture))
        if seed is not None:
            defined.initialise(network, torch.Generator().manual_seed(seed))
        return network


class ChainFamily(Family):
    """A family whose layers follow each other, shortcuts aside: the list of layers gives costs and fields."""

    @abstractmethod
    def layers(self, architecture: Architecture) -> tuple[Layer, ...]:
        """Every layer in execution order, without building anything."""

    def cost_by_stage(self, architecture: Architecture, input_size: tuple[int, int]) -> dict[str, Cost]:
        """Cost of the stem and of each level's stage; see :meth:`Family.cost_by_stage`."""
        total: dict[str, Cost] = {}
        for layer, spent in layer_costs(self.layers(architecture), input_size):
            total[layer.stage] = total.get(layer.stage, Cost()) + spent
        return total

    def fields(self, architecture: Architecture) -> dict[str, int]:
        """Level name -> side of the field of each of its cells, which are all alike."""
        levels = self.levels(architecture)
        found = layer_fields(self.layers(architecture))
        return {stage: field for stage, field in found.items() if stage in levels}


def check_identity(family: "Family", architecture: Architecture) -> None:
    """Refuse an architecture of another family or version.

    Raises:
        InvalidArchitecture: names both.
    """
    if (architecture.family, architecture.version) != (family.name, family.version):
        raise InvalidArchitecture(
            f"the family {family.name} version {family.version} cannot read an architecture of "
            f"{architecture.family} version {architecture.version}"
        )


def check_keys(where: str, found: Collection[str], allowed: tuple[str, ...]) -> None:
    """Refuse settings or genes with other keys than exactly these.

    Raises:
        InvalidArchitecture: names what was found and what is needed.
    """
    if set(found) != set(allowed):
        raise InvalidArchitecture(f"{where}: found {sorted(found)}; needed are exactly {sorted(allowed)}")
