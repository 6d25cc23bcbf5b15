"""A family of networks: everything that can be known of its members, first without torch, then built.

A :class:`Family` reads an :class:`~search_spaces.architecture.Architecture` and gives its layers, its
levels and its network. Search logic and cost models stay on the torch-free side of it.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from search_spaces.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn


class Level(NamedTuple):
    """One feature map of a backbone: its channels and its stride in input pixels."""

    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer as the cost model sees it; layers follow each other in execution order.

    Args:
        name: of the module in the built network (``"layer1.0.conv1"``).
        stage: the part of the backbone it belongs to: ``"stem"``, then the level that it helps to make.
        kind: ``"conv"`` and ``"linear"`` multiply, ``"bn"`` has parameters only, ``"pool"`` neither.
        inputs: channels (or features) read.
        outputs: channels (or features) written.
        kernel: side of the square kernel.
        stride: of kernel placements.
        padding: on each side.
        dilation: distance between kernel taps.
        groups: of the convolution.
        bias: whether a convolution or linear layer adds one.
        ceil: whether the output size of a pooling is rounded up.
        shortcut: runs beside the trunk, from the block's input; listed before the block's other layers.
    """

    name: str
    stage: str
    kind: Literal["conv", "linear", "bn", "pool"]
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    ceil: bool = False
    shortcut: bool = False


class Family(ABC):
    """Builds and describes the networks of one kind.

    Attributes:
        name: what ``Architecture.family`` says.
        version: of the definition, as in ``Architecture.version``.
        module: dotted name of the file that defines the network and imports only torch.
        network: the class in that file.
    """

    name: str
    version: int = 1
    module: str
    network: str

    @abstractmethod
    def validate(self, architecture: Architecture) -> None:
        """Check every setting and gene.

        Raises:
            InvalidArchitecture: with the value found and what is allowed.
        """

    @abstractmethod
    def layers(self, architecture: Architecture) -> tuple[Layer, ...]:
        """Every layer in execution order, without building anything."""

    @abstractmethod
    def levels(self, architecture: Architecture) -> dict[str, Level]:
        """Channels and stride of every feature map the network returns, finest first."""

    @abstractmethod
    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments, plain data, that make the network class build this architecture."""

    @property
    def source(self) -> Path:
        """The file that defines the network; its text is what an export carries."""
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
        """
        import torch

        self.validate(architecture)
        defined = importlib.import_module(self.module)
        network: nn.Module = getattr(defined, self.network)(**self.arguments(architecture))
        if seed is not None:
            defined.initialise(network, torch.Generator().manual_seed(seed))
        return network
