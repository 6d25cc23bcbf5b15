"""Layer lists of the CR-NAS families, without torch.

A second description of what ``resnet.py`` and ``mobilenet.py`` build, because fields and costs must not need torch;
the tests count the built networks with hooks and compare. ``costs.py`` counts them in closed form.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search_spaces.family import Layer, Level

LEVELS = ("c2", "c3", "c4", "c5")
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """The arguments of ``resnet.ResNet`` as plain data; documented there."""

    block: str
    blocks: tuple[int, ...]
    dilations: tuple[int, ...]
    widths: tuple[int, ...]
    stem: str
    groups: int
    width_per_group: int


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Shape:
    """The arguments of ``mobilenet.MobileNetV2`` as plain data; documented there."""

    blocks: tuple[int, ...]
    dilations: tuple[int, ...]
    stem: str
    width_multiplier: float


def conv_bn(
    conv: str,
    bn: str,
    stage: str,
    channels: tuple[int, int],
    *,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    shortcut: bool = False,
) -> Iterator[Layer]:
    """A convolution without bias that keeps the size at stride 1, and its batch normalisation."""
    yield Layer(
        name=conv,
        stage=stage,
        kind="conv",
        inputs=channels[0],
        outputs=channels[1],
        kernel=kernel,
        stride=stride,
        padding=kernel // 2 * dilation,
        dilation=dilation,
        groups=groups,
        shortcut=shortcut,
    )
    yield Layer(name=bn, stage=stage, kind="bn", inputs=channels[1], outputs=channels[1], shortcut=shortcut)


def resnet_layers(shape: ResNetShape) -> Iterator[Layer]:
    """Every layer of a ResNet in execution order."""
    channels = shape.widths[0]
    yield from conv_bn(
        "conv1", "bn1", "stem", (3, channels), kernel=3 if shape.stem == "small" else 7, stride=2
    )
    ceil = shape.stem == "ceil_pool"
    yield Layer(
        name="maxpool",
        stage="stem",
        kind="pool",
        inputs=channels,
        outputs=channels,
        kernel=2 if ceil else 3,
        stride=2,
        padding=0 if ceil else 1,
        ceil=ceil,
    )
    dilations = iter(shape.dilations)
    for stage, (count, width) in enumerate(zip(shape.blocks, shape.widths, strict=True)):
        for index in range(count):
            name, stride = f"layer{stage + 1}.{index}", 2 if stage and index == 0 else 1
            yield from _resnet_block(shape, name, LEVELS[stage], channels, width, stride, next(dilations))
            channels = width * EXPANSION[shape.block]


def _resnet_block(
    shape: ResNetShape, name: str, stage: str, inputs: int, width: int, stride: int, dilation: int
) -> Iterator[Layer]:
    outputs = width * EXPANSION[shape.block]
    if stride != 1 or inputs != outputs:
        yield from conv_bn(
            f"{name}.downsample.0",
            f"{name}.downsample.1",
            stage,
            (inputs, outputs),
            stride=stride,
            shortcut=True,
        )
    if shape.block == "basic":
        yield from conv_bn(f"{name}.conv1", f"{name}.bn1", stage, (inputs, width), kernel=3, stride=stride)
        yield from conv_bn(f"{name}.conv2", f"{name}.bn2", stage, (width, width), kernel=3, dilation=dilation)
        return
    inner = int(width * (shape.width_per_group / 64.0)) * shape.groups
    yield from conv_bn(f"{name}.conv1", f"{name}.bn1", stage, (inputs, inner))
    yield from conv_bn(
        f"{name}.conv2",
        f"{name}.bn2",
        stage,
        (inner, inner),
        kernel=3,
        stride=stride,
        dilation=dilation,
        groups=shape.groups,
    )
    yield from conv_bn(f"{name}.conv3", f"{name}.bn3", stage, (inner, outputs))


def resnet_levels(shape: ResNetShape) -> dict[str, Level]:
    """Channels and stride of each level of a ResNet."""
    expansion = EXPANSION[shape.block]
    return {
        name: Level(width * expansion, 4 * 2**stage)
        for stage, (name, width) in enumerate(zip(LEVELS, shape.widths, strict=True))
    }


def scaled(width: int, multiplier: float) -> int:
    """A width times the multiplier, as a multiple of 8 that loses no more than a tenth."""
    wanted = width * multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def mobilenet_widths(blocks: Sequence[int], multiplier: float) -> list[list[int]]:
    """Output width of every block at strides 4, 8, 16 and 32."""
    narrow = round(4 * blocks[2] / 7)
    plain = [
        [24] * blocks[0],
        [32] * blocks[1],
        [64] * narrow + [96] * (blocks[2] - narrow),
        [160] * blocks[3],
    ]
    return [[scaled(width, multiplier) for width in widths] for widths in plain]


def mobilenet_layers(shape: MobileNetV2Shape) -> Iterator[Layer]:
    """Every layer of a MobileNetV2 in execution order."""
    multiplier = shape.width_multiplier
    channels, narrow = scaled(32, multiplier), scaled(16, multiplier)
    yield from _features("0", "stem", (3, channels), kernel=3, stride=2)
    yield from _inverted_residual("features.1", "stem", (channels, narrow), expand=1)
    dilations, channels, number = iter(shape.dilations), narrow, 2
    for stage, widths in zip(LEVELS, mobilenet_widths(shape.blocks, multiplier), strict=True):
        for index, width in enumerate(widths):
            yield from _inverted_residual(
                f"features.{number}",
                stage,
                (channels, width),
                stride=2 if index == 0 else 1,
                dilation=next(dilations),
            )
            channels, number = width, number + 1
    width = scaled(320, multiplier)
    yield from _inverted_residual(f"features.{number}", "c5", (channels, width))
    yield from _features(str(number + 1), "c5", (width, scaled(1280, max(1.0, multiplier))))


def _features(
    index: str, stage: str, channels: tuple[int, int], *, kernel: int = 1, stride: int = 1
) -> Iterator[Layer]:
    return conv_bn(
        f"features.{index}.0", f"features.{index}.1", stage, channels, kernel=kernel, stride=stride
    )


def _inverted_residual(
    name: str, stage: str, channels: tuple[int, int], *, stride: int = 1, dilation: int = 1, expand: int = 6
) -> Iterator[Layer]:
    hidden, position = channels[0] * expand, 0
    if expand != 1:
        yield from conv_bn(f"{name}.conv.0.0", f"{name}.conv.0.1", stage, (channels[0], hidden))
        position = 1
    yield from conv_bn(
        f"{name}.conv.{position}.0",
        f"{name}.conv.{position}.1",
        stage,
        (hidden, hidden),
        kernel=3,
        stride=stride,
        dilation=dilation,
        groups=hidden,
    )
    yield from conv_bn(
        f"{name}.conv.{position + 1}", f"{name}.conv.{position + 2}", stage, (hidden, channels[1])
    )


def resnet_block_names(blocks: Sequence[int]) -> list[list[str]]:
    """Names of the blocks of each stage in a built ResNet, then those of the tail, which it does not have."""
    stages = [[f"layer{stage + 1}.{index}" for index in range(count)] for stage, count in enumerate(blocks)]
    return [*stages, []]


def mobilenet_block_names(blocks: Sequence[int]) -> list[list[str]]:
    """The same for MobileNetV2, whose tail has two."""
    numbers = iter(range(2, 4 + sum(blocks)))
    return [[f"features.{next(numbers)}" for _ in range(count)] for count in (*blocks, 2)]


def mobilenet_levels(shape: MobileNetV2Shape) -> dict[str, Level]:
    """Channels and stride of each level of a MobileNetV2; c5 is the 1280-wide map."""
    channels = [widths[-1] for widths in mobilenet_widths(shape.blocks, shape.width_multiplier)]
    channels[3] = scaled(1280, max(1.0, shape.width_multiplier))
    return {
        name: Level(width, 4 * 2**stage)
        for stage, (name, width) in enumerate(zip(LEVELS, channels, strict=True))
    }
