"""What a built network costs, counted by hooks while one image passes through it.

On the meta device nothing is computed and no weight is stored. The cost model never sees a network, and this never
sees the cost model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Count:
    """Filled while a network runs.

    Args:
        macs: multiply-adds of convolutions and linear layers.
        activations: elements that they write.
        normalisation: what fvcore adds for it: 2 for each element of a batch normalisation, 5 of a layer or group
            normalisation.
        upsampling: the same, 1 for each element written, 4 where it is bilinear.
        pooling: the same, 1 for each element that an adaptive average pooling reads.
    """

    macs: int = 0
    activations: int = 0
    normalisation: int = 0
    upsampling: int = 0
    pooling: int = 0

    @property
    def as_fvcore(self) -> int:
        """Everything that fvcore counts as floating-point operations."""
        return self.macs + self.normalisation + self.upsampling + self.pooling

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """As a forward hook."""
        if isinstance(layer, nn.ConvTranspose2d):
            self.macs += inputs[0].numel() * layer.weight[0].numel()
            self.activations += output.numel()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            self.macs += output.numel() * layer.weight[0].numel()
            self.activations += output.numel()
        elif isinstance(layer, nn.BatchNorm2d):
            self.normalisation += 2 * inputs[0].numel()
        elif isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            self.normalisation += 5 * inputs[0].numel()
        elif isinstance(layer, nn.Upsample):
            self.upsampling += output.numel() * (4 if layer.mode == "bilinear" else 1)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            self.pooling += inputs[0].numel()


@contextmanager
def hooked(network: nn.Module) -> Iterator[Count]:
    """Counts what passes through the layers of a network inside the block."""
    count = Count()
    handles = [module.register_forward_hook(count) for module in network.modules()]
    yield count
    for handle in handles:
        handle.remove()
