"""Published scale-permuted networks by name (Du et al. 2020, arXiv 1912.05027), without torch.

Block lists of SpineNet-49 and Mobile SpineNet are those of the authors' released code
(``tensorflow/tpu``, ``models/official/detection``), that of R0-SP53 is that of ``hyperion-ml/hyperion`` and of the
paper's figure 4, and that of R23-SP30 was read from the same figure. Scaling is that of the released code; its
configurations train SpineNet with ReLU (the paper's protocol B) or swish (protocol C), the zoo has ReLU.
"""

from collections.abc import Mapping
from dataclasses import replace

from search_spaces.architecture import Architecture, Genes, Value

Blocks = tuple[tuple[int, str, tuple[int, int]], ...]

SPINENET49_BLOCKS: Blocks = (
    (2, "bottleneck", (0, 1)),
    (4, "residual", (0, 1)),
    (3, "bottleneck", (2, 3)),
    (4, "bottleneck", (2, 4)),
    (6, "residual", (3, 5)),
    (4, "bottleneck", (3, 5)),
    (5, "residual", (6, 7)),
    (7, "residual", (6, 8)),
    (5, "bottleneck", (8, 9)),
    (5, "bottleneck", (8, 10)),
    (4, "bottleneck", (5, 10)),
    (3, "bottleneck", (4, 10)),
    (5, "bottleneck", (7, 12)),
    (7, "bottleneck", (5, 14)),
    (6, "bottleneck", (12, 14)),
)
"""Level, type and parents; the last five are the outputs."""

R0_SP53_BLOCKS: Blocks = (
    (2, "bottleneck", (0, 1)),
    (3, "bottleneck", (0, 1)),
    (3, "bottleneck", (2, 3)),
    (4, "bottleneck", (2, 4)),
    (4, "bottleneck", (3, 5)),
    (3, "bottleneck", (5, 6)),
    (5, "bottleneck", (4, 7)),
    (4, "bottleneck", (4, 8)),
    (4, "bottleneck", (8, 9)),
    (4, "bottleneck", (8, 10)),
    (3, "bottleneck", (4, 10)),
    (4, "bottleneck", (6, 7)),
    (5, "bottleneck", (8, 13)),
    (7, "bottleneck", (6, 9)),
    (6, "bottleneck", (7, 9)),
)

R23_SP30_BLOCKS: Blocks = (
    (4, "bottleneck", (5, 6)),
    (4, "bottleneck", (5, 6)),
    (4, "bottleneck", (7, 8)),
    (3, "bottleneck", (8, 9)),
    (2, "bottleneck", (9, 10)),
    (4, "bottleneck", (5, 9)),
    (3, "bottleneck", (9, 10)),
    (5, "bottleneck", (9, 10)),
    (7, "bottleneck", (11, 13)),
    (6, "bottleneck", (9, 14)),
)

MOBILE_BLOCKS: tuple[tuple[int, tuple[int, int]], ...] = (
    (2, (0, 1)),
    (2, (1, 2)),
    (4, (1, 2)),
    (3, (3, 4)),
    (4, (3, 5)),
    (6, (4, 6)),
    (4, (4, 6)),
    (5, (7, 8)),
    (7, (7, 9)),
    (5, (9, 10)),
    (5, (9, 11)),
    (4, (6, 11)),
    (3, (5, 11)),
    (5, (8, 13)),
    (7, (6, 15)),
    (6, (13, 15)),
)

SETTINGS: dict[str, Value] = {
    "stem": (2, 2),
    "filter_size_scale": 1.0,
    "alpha": 0.5,
    "repeats": 1,
    "endpoint": 256,
    "activation": "relu",
    "pool": "single",
    "unconnected": "published",
}
"""Of SpineNet-49."""

MOBILE_SETTINGS: dict[str, Value] = {
    "filter_size_scale": 1.0,
    "repeats": 1,
    "endpoint": 48,
    "activation": "swish",
    "gate": "sigmoid",
    "unconnected": "published",
}
"""Of Mobile SpineNet-49."""


def with_settings(architecture: Architecture, changes: Mapping[str, Value]) -> Architecture:
    """The same genes with other settings: ``with_settings(ZOO["spinenet49"], {"activation": "swish"})``."""
    return replace(architecture, settings=Genes({**architecture.settings, **changes}))


def proxy(
    architecture: Architecture, *, width: float = 0.25, alpha: float = 0.25, endpoint: int = 64
) -> Architecture:
    """The narrow network that the paper trains in its search (section 5.1), of any SpineNet.

    Args:
        architecture: of the family ``spinenet``.
        width: times SpineNet-49's widths.
        alpha: width inside resamplings.
        endpoint: width of P3 to P7, and so of the detector's head.
    """
    return with_settings(
        architecture, {"filter_size_scale": width, "alpha": alpha, "endpoint": endpoint, "repeats": 1}
    )


def _spinenet(blocks: Blocks = SPINENET49_BLOCKS, **changes: Value) -> Architecture:
    levels, types, parents = zip(*blocks, strict=True)
    return Architecture(
        family="spinenet",
        settings=Genes({**SETTINGS, **changes}),
        genes=Genes({"levels": levels, "types": types, "parents": parents}),
    )


def _mobile(**changes: Value) -> Architecture:
    levels, parents = zip(*MOBILE_BLOCKS, strict=True)
    return Architecture(
        family="spinenet.mobile",
        settings=Genes({**MOBILE_SETTINGS, **changes}),
        genes=Genes({"levels": levels, "parents": parents}),
    )


ZOO: dict[str, Architecture] = {
    "spinenet49s": _spinenet(filter_size_scale=0.65, endpoint=128),
    "spinenet49": _spinenet(),
    "spinenet96": _spinenet(repeats=2),
    "spinenet143": _spinenet(alpha=1.0, repeats=3),
    "spinenet143l": _spinenet(filter_size_scale=1.3, alpha=1.0, repeats=3),
    "spinenet190": _spinenet(filter_size_scale=1.3, alpha=1.0, repeats=4, endpoint=512),
    "r0_sp53": _spinenet(R0_SP53_BLOCKS),
    "r23_sp30": _spinenet(R23_SP30_BLOCKS, stem=(2, 2, 3, 3, 4, 4, 5)),
    "spinenet49_mobile": _mobile(),
    "spinenet49s_mobile": _mobile(filter_size_scale=0.65, endpoint=40),
    "spinenet49xs_mobile": _mobile(filter_size_scale=0.6, endpoint=24),
}
"""Name -> architecture. The released code gives SpineNet-49S endpoints of 128; the published parameters are
those of 256 with a head of 128."""

NOT_FOUND: dict[str, str] = {
    "r35_sp18": "its block list was not found in print or code",
    "r14_sp39": "its block list was not found in print or code",
}
"""Name -> why the network is left out of :data:`ZOO` although the paper reports results for it."""
