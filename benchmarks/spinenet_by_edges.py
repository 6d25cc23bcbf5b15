"""SpineNet computed the straightforward way: every edge by itself, every layer called in turn.

What ``spinenet_forward.py`` measures against and the tests compare with. The weights and their names are those of
:class:`search_spaces.spinenet.network.SpineNet`; only the order of computation differs.
"""

from typing import Any

from torch import Tensor

from search_spaces.spinenet.network import Bottleneck, Resample, SpineNet, drop_branch, resized


class SpineNetByEdges(SpineNet):
    """The same network, module by module."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """As :meth:`SpineNet.forward`."""
        image = (x.shape[-2], x.shape[-1])
        x = self.maxpool(self.act(self.bn1(self.conv1(x))))
        maps: list[Tensor] = []
        for copies in self.stem:
            x = in_sequence(copies, x)
            maps.append(x)
        inputs: Any
        for inputs, copies in zip(self.resamples, self.blocks, strict=True):
            size = (-(-image[0] // 2**inputs.level), -(-image[1] // 2**inputs.level))
            found = [
                edge(layers, maps[place], size) for place, layers in zip(inputs.parents, inputs, strict=True)
            ]
            found += [maps[place] for place in inputs.merged]
            out = found[0]
            for other in found[1:]:
                out = out + other
            maps.append(in_sequence(copies, self.act(out)))
        return {
            name: layer_by_layer(layers, maps[self.ends[name]]) for name, layers in self.endpoints.items()
        }


def edge(layers: Resample, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce, bring to the size, widen."""
    x = layers.act(layers.bn1(layers.conv1(x)))
    if layers.conv2 is not None and layers.bn2 is not None:
        x = layers.maxpool(layers.act(layers.bn2(layers.conv2(x))))
    return layers.bn3(layers.conv3(resized(x, size)))


def in_sequence(copies: Any, x: Tensor) -> Tensor:
    """The copies of one block, a normalisation after each convolution."""
    for block in copies:
        identity = x if block.downsample is None else layer_by_layer(block.downsample, x)
        out = block.act(block.bn1(block.conv1(x)))
        out = block.bn2(block.conv2(out))
        if isinstance(block, Bottleneck):
            out = block.bn3(block.conv3(block.act(out)))
        x = block.act(identity + drop_branch(out, block.drop_path if block.training else 0.0))
    return x


def layer_by_layer(layers: Any, x: Tensor) -> Tensor:
    """Each in turn."""
    for layer in layers:
        x = layer(x)
    return x
