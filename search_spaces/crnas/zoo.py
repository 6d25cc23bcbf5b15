"""Published architectures by name (Liang et al. 2020, arXiv 1912.11234), without torch.

Stage-reallocated networks carry the block counts of the released ``crnas_resnet{18,50,101}c`` models
(``shipxu123/SuperAdvNet``, ``crnas_resnet.py``). The names ``scr_*`` have the plain stem that the paper
describes; the names ``crnas_*c`` have the release's pooling, 2x2 with sizes rounded up.
"""

from search_spaces.architecture import Architecture, Genes

RESNET_WIDTHS = (64, 128, 256, 512)


def _resnet(
    block: str, blocks: tuple[int, ...], *, stem: str = "imagenet", groups: int = 1, width_per_group: int = 64
) -> Architecture:
    return Architecture(
        family="crnas.resnet",
        settings=Genes(
            {
                "block": block,
                "widths": RESNET_WIDTHS,
                "stem": stem,
                "groups": groups,
                "width_per_group": width_per_group,
            }
        ),
        genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}),
    )


def _mobilenet(blocks: tuple[int, ...]) -> Architecture:
    return Architecture(
        family="crnas.mobilenetv2",
        settings=Genes({"stem": "imagenet", "width_multiplier": 1.0}),
        genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}),
    )


ZOO: dict[str, Architecture] = {
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet101": _resnet("bottleneck", (3, 4, 23, 3)),
    "resnext50": _resnet("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101": _resnet("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=4),
    "mobilenetv2": _mobilenet((2, 3, 7, 3)),
    "scr_resnet18": _resnet("basic", (1, 1, 2, 4)),
    "scr_resnet50": _resnet("bottleneck", (1, 3, 5, 7)),
    "scr_resnet101": _resnet("bottleneck", (2, 3, 17, 11)),
    "crnas_resnet18c": _resnet("basic", (1, 1, 2, 4), stem="ceil_pool"),
    "crnas_resnet50c": _resnet("bottleneck", (1, 3, 5, 7), stem="ceil_pool"),
    "crnas_resnet101c": _resnet("bottleneck", (2, 3, 17, 11), stem="ceil_pool"),
}
"""Name -> architecture: the baselines, then what was found of the paper's results."""

NOT_FOUND: dict[str, str] = {
    "scr_resnext50": "the block counts of the reallocated ResNeXt-50-32x4d were not found in print or code",
    "scr_resnext101": "the block counts of the reallocated ResNeXt-101-32x4d were not found in print or code",
    "scr_mobilenetv2": "the block counts of the reallocated MobileNetV2 were not found in print or code",
    "cr_resnet18": "its dilations exist only as a drawing (figure 4 of the paper)",
    "cr_resnet50": "its dilations exist only as a drawing (figure 4 of the paper)",
    "cr_resnet101": "its dilations exist only as a drawing (figure 4 of the paper)",
    "cr_resnext50": "neither its block counts nor its dilations were found in print or code",
    "cr_resnext101": "neither its block counts nor its dilations were found in print or code",
    "cr_mobilenetv2": "neither its block counts nor its dilations were found in print or code",
}
"""Name -> why the architecture is left out of :data:`ZOO` although the paper reports results for it."""
