"""Scores of a network that nobody has trained: each is one number a network, larger is taken to be better.

They are here to be measured against networks that were trained (``benchmarks/proxies.py``), not because they are
trusted. All see random weights; none sees a label, only :func:`naswot` sees images, :func:`fields_for_boxes` boxes.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas.proxies.erf import erf_at_random_init
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed
from search_spaces.families import family_of
from search_spaces.randomness import seed_for
from trainers.data.detection_set import DetectionSet
from trainers.learner import normalised

IMAGES = 32
"""That switch the ReLUs of :func:`naswot`; docs/evidence.md says what its order is worth with so many."""
LEVEL_WEIGHTS = {"c2": 0.0, "c3": 1.0, "c4": 1.0, "c5": 6.0}
"""Of the levels in MAE-DET's score (Sun et al. 2022, "MAE-DET: Revisiting Maximum Entropy Principle in Zero-Shot NAS
for Efficient Object Detection", section 4.2: 0, 0, 1, 1, 6 for C1 to C5). Other levels count 1."""


def first_images(data: DetectionSet) -> Tensor:
    """What :func:`naswot` looks at: the first :data:`IMAGES` of a split that differ, all of them where there are fewer.

    Equal images are left out, for no network tells them apart.

    Args:
        data: images to learn from.

    Returns:
        (N, 3, H, W), normalised, channels last, for speed.
    """
    chosen: dict[bytes, int] = {}
    for place in range(len(data)):
        if len(chosen) == IMAGES:
            break
        chosen.setdefault(hashlib.sha256(data.images[place].numpy().tobytes()).digest(), place)
    return normalised(data.images[list(chosen.values())]).contiguous(memory_format=torch.channels_last)


def naswot(architecture: Architecture, images: Tensor, *, seed: int = 0) -> float:
    """How differently a batch switches the ReLUs: log determinant of the kernel of their binary codes.

    Mellor et al. 2021, "Neural Architecture Search without Training", section 3: K counts for every two images the
    units that are on in both or off in both. Units are those of ReLU and ReLU6, on where their output is above zero.

    Args:
        architecture: of any family.
        images: (N, 3, H, W), normalised as the backbone takes them; they go through it at once, where they lie.
        seed: of the weights.

    Raises:
        CandidateFailed: a network without ReLU, or two images that no unit tells apart.
    """
    built = family_of(architecture).build(architecture, seed=seed_for(seed, "weights"))
    backbone = built.to(images.device).train()
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module, inputs
        # In the order in which they lie, for any will do.
        units = output.movedim(1, -1) if output.is_contiguous(memory_format=torch.channels_last) else output
        # 1 where a ReLU is on and 0 where it is off, in one pass; counted in float32, whatever they come in.
        on = units.flatten(1).sign().float()
        both = (on @ on.T).cpu().double()
        own = both.diagonal()
        # Those that are off in both are the rest: counts are whole numbers, so one product does.
        kernel.add_(on.shape[1] - own[:, None] - own[None, :] + 2.0 * both)

    hooks = [
        one.register_forward_hook(count) for one in backbone.modules() if isinstance(one, nn.ReLU | nn.ReLU6)
    ]
    if not hooks:
        raise CandidateFailed(
            "naswot: the network has no nn.ReLU or nn.ReLU6, whose states this score counts"
        )
    with torch.no_grad():
        backbone(images)
    sign, logarithm = torch.linalg.slogdet(kernel)
    if sign <= 0:
        raise CandidateFailed("naswot: two images switch every unit alike; take other images")
    return float(logarithm)


def synflow(architecture: Architecture, size: tuple[int, int], *, seed: int = 0) -> float:
    """Logarithm of the sum of parameter times gradient of a linear network of the weights' absolute values.

    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow", section 4:
    R is the sum of the outputs for an input of ones. Normalisation is left out, as there.

    Args:
        architecture: of any family.
        size: (height, width) px of the input.
        seed: of the weights.
    """
    backbone = family_of(architecture).build(architecture, seed=seed_for(seed, "weights")).double().eval()
    for name, value in backbone.named_parameters():
        value.data = value.data.abs() if value.dim() > 1 else torch.full_like(value, float("weight" in name))
    with _without_norms(backbone):
        maps = backbone(torch.ones(1, 3, *size, dtype=torch.float64))
        torch.stack([one.sum() for one in maps.values()]).sum().backward()  # type: ignore[no-untyped-call]
    flow = torch.stack(
        [
            (one.detach() * one.grad).sum()
            for one in backbone.parameters()
            if one.grad is not None and one.dim() > 1
        ]
    ).sum()
    return math.log(float(flow)) if 0 < float(flow) < math.inf else -math.inf


def entropy(architecture: Architecture, size: tuple[int, int], *, seed: int = 0, repeats: int = 4) -> float:
    """Weighted entropy of the feature maps: logarithm of their spread for Gaussian weights and noise.

    After MAE-DET (Sun et al. 2022, section 4). Without normalisation the deviation multiplies from layer to layer; its
    logarithm, which they sum layer by layer, is taken here of the maps themselves, in float64.

    Args:
        architecture: of any family.
        size: (height, width) px of the noise.
        seed: of weights and noise.
        repeats: draws of weights and noise that are averaged.
    """
    backbone = family_of(architecture).build(architecture, seed=0).double().eval()
    found = []
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(seed_for(seed, "entropy", repeat))
        for value in backbone.parameters():
            if value.dim() > 1:
                value.data = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        with _without_norms(backbone), torch.no_grad():
            maps = backbone(torch.randn(1, 3, *size, generator=generator, dtype=torch.float64))
        found += [LEVEL_WEIGHTS.get(name, 1.0) * math.log(float(one.std())) for name, one in maps.items()]
    return sum(found) / repeats


def fields_for_boxes(
    architecture: Architecture, sides: Sequence[float], size: tuple[int, int], *, seed: int = 0
) -> float:
    """How well effective receptive fields fit the objects: minus the mean distance of a box to its best level.

    A level fits an object whose side is that of its field (twice the standard deviation of the map of gradients at
    random weights on either side of the centre); distances are of logarithms, base 2. CR-NAS (Liang et al. 2020,
    section 1) argues from such fields, but gives no score.

    Args:
        architecture: of any family.
        sides: square roots of the boxes' areas, px of the image as the network sees it.
        size: (height, width) px of the canvas.
        seed: of weights and noise.

    Raises:
        CandidateFailed: no boxes, or a level that sees nothing.
    """
    fields = erf_at_random_init(architecture, seed=seed, input_size=size, images=2)
    reach = [4.0 * one.std for one in fields.values()]
    if not sides or min(reach) <= 0 or min(sides) <= 0:
        raise CandidateFailed(
            "fields_for_boxes: needs boxes of a positive side and levels that see something"
        )
    away = [min(abs(math.log2(one / side)) for one in reach) for side in sides]
    return -sum(away) / len(away)


@contextmanager
def _without_norms(network: nn.Module) -> Iterator[None]:
    """Every batch normalisation passes its input on."""
    hooks = [
        one.register_forward_hook(lambda module, inputs, output: inputs[0])  # noqa: ARG005
        for one in network.modules()
        if isinstance(one, nn.BatchNorm2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
