"""SpineNet and its sisters: a backbone whose blocks change scale up and down along depth.

Imports only torch: an exported network carries this file's text. Du et al. 2020 (arXiv 1912.05027), sections 3.2
to 3.4, in the details as the authors' released code; batch normalisation with their epsilon of Mask R-CNN.
Which block reads which, the rule for blocks that nothing reads included, arrives as plain data.

Every edge has its own weights, but not its own computation: edges that leave one block are reduced by one
convolution, and up-sampled maps are added without being copied to the larger size first.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {1: 32, 2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
"""Of a block by level, before scaling; a bottleneck reads and writes four times as much."""
STEM_WIDTH = 64
"""Of the first convolution, whatever the scale."""
ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
OUTPUTS = 5
"""Blocks that make P3 to P7; they come last."""

Block = tuple[int, str, Sequence[int], Sequence[int]]
"""Level, kind, places that are resampled, places that are added as they are."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 carries the stride."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1, activation: str = "relu") -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.act = activation_layer(activation)
        self.downsample = projection(inputs, outputs, stride)
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.act(conv_norm(x, [(self.conv1, self.bn1)]))
        out = self.act(conv_norm(out, [(self.conv2, self.bn2)]))
        out = conv_norm(out, [(self.conv3, self.bn3)])
        out = drop_branch(out, self.drop_path if self.training else 0.0).add_(identity)
        return self.act(out)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first carries the stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int = 1, activation: str = "relu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, padding=1, bias=False)
        self.bn2 = norm(width)
        self.act = activation_layer(activation)
        self.downsample = projection(inputs, width, stride)
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.act(conv_norm(x, [(self.conv1, self.bn1)]))
        out = conv_norm(out, [(self.conv2, self.bn2)])
        out = drop_branch(out, self.drop_path if self.training else 0.0).add_(identity)
        return self.act(out)  # type: ignore[no-any-return]


BLOCKS: dict[str, type[Bottleneck] | type[Residual]] = {"bottleneck": Bottleneck, "residual": Residual}


class Resample(nn.Module):
    """Brings a map to the level and width of the block that reads it; the sum's activation is not its own.

    Args:
        inputs: channels read.
        reduced: width while the size changes.
        outputs: channels written.
        down: levels downwards in resolution; negative: upwards.
        pool: ``"single"``, the released code's one max-pooling for all that the convolution leaves (3x3 for a
            factor of 2, 5x5 for more), or ``"chain"``, one of 3x3 for each factor of 2.
        activation: name of the activation.
    """

    def __init__(
        self, inputs: int, reduced: int, outputs: int, *, down: int, pool: str, activation: str
    ) -> None:
        super().__init__()
        if pool not in ("single", "chain"):
            raise ValueError(f"unknown pool {pool!r}; allowed are 'single' and 'chain'")
        self.conv1 = nn.Conv2d(inputs, reduced, 1, bias=False)
        self.bn1 = norm(reduced)
        self.act = activation_layer(activation)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, 2, padding=1, bias=False) if down > 0 else None
        self.bn2 = norm(reduced) if down > 0 else None
        self.maxpool = max_pool(down - 1, pool)
        self.conv3 = nn.Conv2d(reduced, outputs, 1, bias=False)
        self.bn3 = norm(outputs)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What :func:`reduce_together` made, (N, reduced, H, W) -> (N, outputs, *size), or smaller by whole factors."""
        if self.conv2 is not None and self.bn2 is not None:
            x = self.maxpool(self.act(conv_norm(x, [(self.conv2, self.bn2)])))
        pair, cells = (self.conv3, self.bn3), x.shape[2] * x.shape[3]
        whole = size[0] % x.shape[2] == 0 and size[1] % x.shape[3] == 0
        # One value has no variance, but its copies may be normalised.
        if whole and replaceable([pair]) and not (self.bn3.training and x.shape[0] * cells == 1):
            return conv_norm(x, [pair], copies=size[0] * size[1] // cells)
        return conv_norm(resized(x, size), [pair])


class Inputs(nn.ModuleList):
    """The resamplings of one block's parents, and the sum of all that the block reads.

    Args:
        resamples: one for each parent.
        level: of the block.
        parents: places that are resampled.
        merged: places that are added as they are.
    """

    def __init__(
        self,
        resamples: Sequence[Resample],
        *,
        level: int,
        parents: Sequence[int],
        merged: Sequence[int],
    ) -> None:
        super().__init__(resamples)
        self.level, self.parents, self.merged = level, tuple(parents), tuple(merged)

    def forward(self, narrow: Sequence[Tensor], maps: Sequence[Tensor], image: tuple[int, int]) -> Tensor:
        """The parents' maps as reduced for this block, maps of all earlier places and the image's (height, width).

        Returns:
            The block's input, not yet activated.
        """
        size = (-(-image[0] // 2**self.level), -(-image[1] // 2**self.level))
        found = [resample(x, size) for resample, x in zip(self, narrow, strict=True)]
        first = next((place for place, x in enumerate(found) if x.shape[-2:] == size), 0)
        out = resized(found.pop(first), size)
        for other in (*found, *(maps[place] for place in self.merged)):
            out = add_spread(out, other)
        return out


class SpineNet(nn.Module):
    """A stem of bottlenecks, blocks in an order of any scales, and 1x1 convolutions that make P3 to P7.

    Args:
        stem: level of each stem block; they follow each other and are the first places.
        blocks: the permuted blocks in order, the last five being those of P3 to P7; parents count places from 0.
        filter_size_scale: times the widths of all blocks; halves are cut off.
        alpha: width inside a resampling by that of the parent block's 3x3 convolution.
        repeats: copies of each block in sequence, stem included.
        endpoint: channels of P3 to P7.
        activation: ``"relu"`` or ``"swish"``.
        pool: see :class:`Resample`.
        drop_path: see :meth:`set_drop_path`.

    Attributes:
        levels: name -> (channels, stride) of what ``forward`` returns.
    """

    def __init__(
        self,
        *,
        stem: Sequence[int],
        blocks: Sequence[Block],
        filter_size_scale: float = 1.0,
        alpha: float = 0.5,
        repeats: int = 1,
        endpoint: int = 256,
        activation: str = "relu",
        pool: str = "single",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = {level: int(base * filter_size_scale) for level, base in WIDTHS.items()}
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 7, 2, padding=3, bias=False)
        self.bn1 = norm(STEM_WIDTH)
        self.act = activation_layer(activation)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        places: list[tuple[int, int, int]] = []  # level, width, channels
        chain, channels, before = [], STEM_WIDTH, 2
        for level in stem:
            stride = 2 ** (level - before)
            chain.append(group("bottleneck", channels, width[level], repeats, stride, activation))
            channels, before = width[level] * Bottleneck.expansion, level
            places.append((level, width[level], channels))
        self.stem = nn.ModuleList(chain)
        resamples, permuted = [], []
        for level, kind, parents, merged in blocks:
            outputs = width[level] * BLOCKS[kind].expansion
            made = [
                Resample(
                    places[parent][2],
                    int(places[parent][1] * alpha),
                    outputs,
                    down=level - places[parent][0],
                    pool=pool,
                    activation=activation,
                )
                for parent in parents
            ]
            resamples.append(Inputs(made, level=level, parents=parents, merged=merged))
            permuted.append(group(kind, outputs, width[level], repeats, 1, activation))
            places.append((level, width[level], outputs))
        self.resamples = nn.ModuleList(resamples)
        self.blocks = nn.ModuleList(permuted)
        ends = {f"p{places[place][0]}": place for place in range(len(places) - OUTPUTS, len(places))}
        self.ends = dict(sorted(ends.items()))
        self.endpoints = nn.ModuleDict(
            {
                name: endpoint_layers(places[place][2], endpoint, activation)
                for name, place in self.ends.items()
            }
        )
        self.levels = {name: (endpoint, 2 ** places[place][0]) for name, place in self.ends.items()}
        self.readers = readers(len(stem), blocks)
        self.set_drop_path(drop_path)
        initialise(self)

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth: in training, the last permuted block drops its branch for this share of images.

        The rate of earlier ones falls linearly with their position; stem blocks drop nothing. No part of the
        architecture: a network of any rate has the same weights and outputs in evaluation.
        """
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path: found {rate}; allowed are rates from 0 to below 1")
        for index, copies in enumerate(self.blocks):
            for block in copies.children():
                assert isinstance(block, Bottleneck | Residual)
                block.drop_path = rate * (index + 1) / len(self.blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> ``{"p3": (N, C, H/8, W/8), ..., "p7": (N, C, H/128, W/128)}``, rounded up."""
        image = (x.shape[-2], x.shape[-1])
        x = self.maxpool(self.act(conv_norm(x, [(self.conv1, self.bn1)])))
        maps: list[Tensor] = []
        narrow: dict[tuple[int, int], Tensor] = {}
        for block in self.stem:
            x = block(x)
            self._keep(x, maps, narrow)
        for index, (inputs, block) in enumerate(zip(self.resamples, self.blocks, strict=True)):
            own = [narrow.pop((index, position)) for position, _ in enumerate(inputs.children())]
            self._keep(block(self.act(inputs(own, maps, image))), maps, narrow)
        return {name: layers(maps[self.ends[name]]) for name, layers in self.endpoints.items()}

    def _keep(self, x: Tensor, maps: list[Tensor], narrow: dict[tuple[int, int], Tensor]) -> None:
        """Append the next place's map, and what its readers make of it first."""
        for edges in self.readers[len(maps)]:
            resamples = [cast(Inputs, self.resamples[index])[position] for index, position in edges]
            together = reduce_together(x, cast(list[Resample], resamples))
            narrow.update(zip(edges, together, strict=True))
        maps.append(x)


Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
"""A convolution without bias and the normalisation of what it writes."""


def readers(stem: int, blocks: Sequence[Block]) -> list[list[list[tuple[int, int]]]]:
    """For each place the edges that leave it, as (block, position among its parents), in groups to compute at once.

    Edges to dead blocks, which lead to no output, stand alone: in one convolution with others their weights would
    get a gradient of zeros, and optimisers tell that from none.
    """
    alive = set(range(stem + len(blocks) - OUTPUTS, stem + len(blocks)))
    for index in reversed(range(len(blocks))):
        if stem + index in alive:
            alive.update(blocks[index][2], blocks[index][3])
    found: list[list[list[tuple[int, int]]]] = []
    for place in range(stem + len(blocks)):
        edges = [
            (index, position)
            for index, (_, _, parents, _) in enumerate(blocks)
            for position, parent in enumerate(parents)
            if parent == place
        ]
        together = [edge for edge in edges if stem + edge[0] in alive]
        alone = [[edge] for edge in edges if edge not in together]
        found.append([together, *alone] if together else alone)
    return found


def reduce_together(x: Tensor, layers: Sequence[Resample]) -> Sequence[Tensor]:
    """The first 1x1 convolution, normalised and activated, of resamplings that read the same map.

    (N, inputs, H, W) -> (N, reduced, H, W) for each.
    """
    pairs = [(one.conv1, one.bn1) for one in layers]
    if len(layers) == 1 or not replaceable(pairs):
        return [one.act(conv_norm(x, [pair])) for one, pair in zip(layers, pairs, strict=True)]
    out = layers[0].act(conv_norm(x, pairs))
    return torch.split(out, [conv.out_channels for conv, _ in pairs], dim=1)


def add_spread(out: Tensor, x: Tensor) -> Tensor:
    """Add in place a map as large as ``out``, or one smaller by whole factors that nearest neighbour would spread.

    Returns:
        ``out``.
    """
    if out.shape == x.shape:
        return out.add_(x)
    if torch.is_grad_enabled():
        return cast(Tensor, AddSpread.apply(out, x))
    cells(out, x).add_(x[:, :, :, None, :, None])
    return out


def cells(out: Tensor, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, h, H / h, w, W / w), a view, where x has the height h and the width w."""
    height, width = x.shape[-2:]
    return out.view(*out.shape[:2], height, out.shape[2] // height, width, out.shape[3] // width)


class AddSpread(torch.autograd.Function):
    """:func:`add_spread` of a smaller map, with the gradient as one pooling.

    Left to itself autograd copies the gradient twice, for the view that is written to, and sums it with strides.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C, H / a, W / b) for whole a and b."""
        ctx.mark_dirty(out)
        spread = cells(out, x)
        ctx.factors, ctx.dtype = (spread.shape[3], spread.shape[5]), x.dtype
        spread += x[:, :, :, None, :, None]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """Every value was added to a x b cells, and receives the sum of their gradients."""
        if not ctx.needs_input_grad[1]:
            return gradient, None
        sums = functional.avg_pool2d(gradient, ctx.factors, divisor_override=1)
        return gradient, sums.to(ctx.dtype)


def conv_norm(x: Tensor, pairs: Sequence[Pair], copies: int = 1) -> Tensor:
    """Normalised convolutions of one map and of one kind, as one; their channels follow each other.

    In evaluation the normalisations are folded into the weights; layers that are not :func:`replaceable` are called.

    Args:
        x: (N, C, H, W).
        pairs: more than one only where they are :func:`replaceable`.
        copies: of every value written, which the caller makes; they count in the running variance.
    """
    (conv, norm), training = pairs[0], pairs[0][1].training
    if not replaceable(pairs):
        return norm(conv(x))  # type: ignore[no-any-return]
    if len(pairs) == copies == 1 and training:
        return norm(convolved(x, conv, conv.weight))  # type: ignore[no-any-return]
    convs, norms = zip(*pairs, strict=True)
    weight = joined([one.weight for one in convs])
    scale, shift = joined([one.weight for one in norms]), joined([one.bias for one in norms])
    if not training:
        scale = scale * torch.rsqrt(joined([one.running_var for one in norms]) + norm.eps)
        shift = shift - scale * joined([one.running_mean for one in norms])
        weight = weight * scale[:, None, None, None]
        return convolved(x, conv, weight, shift)
    x = convolved(x, conv, weight)
    # With momentum 1 the buffers receive this batch's own statistics.
    mean, var = torch.zeros_like(scale), torch.zeros_like(scale)
    out = functional.batch_norm(x, mean, var, scale, shift, training=True, momentum=1.0, eps=norm.eps)
    count = x.numel() // x.shape[1]
    # Copies leave the biased variance as it is; the unbiased one divides by their number less one.
    var = var * (copies * (count - 1) / (copies * count - 1))
    widths = [one.out_channels for one in convs]
    with torch.no_grad():
        means, variances = torch.split(mean, widths), torch.split(var, widths)
        for one, its_mean, its_var in zip(norms, means, variances, strict=True):
            one.running_mean.lerp_(its_mean, one.momentum)
            one.running_var.lerp_(its_var, one.momentum)
            one.num_batches_tracked.add_(1)
    return out


def convolved(x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What the convolution would make of a map with other weights."""
    # One tap has nothing to dilate, but torch hands a dilated convolution to oneDNN, and computes a plain one of few
    # images in one thread by itself, which takes longer (benchmarks/spinenet_forward.py).
    dilation = 2 if ONEDNN and x.device.type == "cpu" and conv.kernel_size == (1, 1) else 1
    return functional.conv2d(x, weight, bias, conv.stride, conv.padding, dilation)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """One after the other along the first dimension; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def replaceable(pairs: Sequence[Pair]) -> bool:
    """Whether convolutions and normalisations may be computed without being called.

    They are as built here, in one mode, and no hook waits for a call (to count, to prune, to calibrate).
    """
    for conv, norm in pairs:
        for layer in (conv, norm):
            hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
            if any(hooks) or layer._backward_pre_hooks or type(layer) not in (nn.Conv2d, nn.BatchNorm2d):
                return False
        if norm.training != pairs[0][1].training or norm.momentum is None or norm.running_mean is None:
            return False
    return True


class ConvNorm(nn.Sequential):
    """Convolution, normalisation and, where given, an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        conv, norm, *rest = self
        x = conv_norm(x, [cast(Pair, (conv, norm))])
        return rest[0](x) if rest else x


def group(kind: str, inputs: int, width: int, repeats: int, stride: int, activation: str) -> nn.Sequential:
    """Copies of a block in sequence; the first reads ``inputs`` and has the stride."""
    if kind not in BLOCKS:
        raise ValueError(f"unknown block {kind!r}; allowed are {sorted(BLOCKS)}")
    made = BLOCKS[kind]
    return nn.Sequential(
        *(
            made(
                inputs if copy == 0 else width * made.expansion,
                width,
                stride=stride if copy == 0 else 1,
                activation=activation,
            )
            for copy in range(repeats)
        )
    )


def projection(inputs: int, outputs: int, stride: int) -> ConvNorm | None:
    """The shortcut's 1x1 convolution, where the block changes size or channels; else ``None``."""
    if stride == 1 and inputs == outputs:
        return None
    return ConvNorm(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))


def endpoint_layers(inputs: int, outputs: int, activation: str) -> ConvNorm:
    """1x1 convolution, normalisation and activation, which give all levels one width."""
    return ConvNorm(nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs), activation_layer(activation))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the authors' epsilon and decay 0.99."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def activation_layer(name: str) -> nn.Module:
    """The activation of this name."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "swish":
        # Not in place: its gradient needs what it read.
        return nn.SiLU()
    raise ValueError(f"unknown activation {name!r}; allowed are 'relu' and 'swish'")


def max_pool(levels: int, pool: str) -> nn.Module:
    """Max-pooling by 2^levels, sizes rounded up; the identity for none."""
    if levels < 1:
        return nn.Identity()
    if pool == "chain" or levels == 1:
        return nn.Sequential(*(nn.MaxPool2d(3, 2, padding=1) for _ in range(levels)))
    return nn.Sequential(nn.MaxPool2d(5, 2**levels, padding=2))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The map at this size, by nearest neighbour; where sides do not divide, some cells are repeated less."""
    return x if x.shape[-2:] == size else functional.interpolate(x, size=size, mode="nearest")


def drop_branch(x: Tensor, rate: float) -> Tensor:
    """Zero for each image with this probability, else divided by the rest of it: the mean stays."""
    if rate == 0.0:
        return x
    keep = 1.0 - rate
    kept = torch.rand((x.shape[0], 1, 1, 1), device=x.device) < keep
    return x * (kept.to(x.dtype) / keep)


def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew: He normal (fan out) for convolutions, one and zero for normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
