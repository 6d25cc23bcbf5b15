"""Pooling of regions from the levels of their sizes as one operation of a graph (RoIAlign, He et al. 2017).

How many regions a level has depends on the images; here that stays inside.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align


@torch.library.custom_op("vertebra::pool", mutates_args=())
def pool(
    maps: Sequence[Tensor], regions: Tensor, levels: Tensor, scales: Sequence[float], side: int, samples: int
) -> Tensor:
    """Regions cut out of the maps.

    Args:
        maps: (N, C, H, W) each.
        regions: (R, 5), image, x1 y1 x2 y2 px.
        levels: (R,), which map.
        scales: cells a px of every map.
        side: cells of what is cut out.
        samples: taken in a cell, in each direction.

    Returns:
        (R, C, side, side).
    """
    found = regions.new_zeros((len(regions), maps[0].shape[1], side, side))
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        here = torch.nonzero(levels == level).squeeze(1)
        found[here] = roi_align(one, regions[here], side, scale, samples)
    return found


@pool.register_fake
def _(
    maps: Sequence[Tensor], regions: Tensor, levels: Tensor, scales: Sequence[float], side: int, samples: int
) -> Tensor:
    del levels, scales, samples
    return regions.new_empty((regions.shape[0], maps[0].shape[1], side, side))


def pool_in_onnx(
    maps: Sequence[Any], regions: Any, levels: Any, scales: Sequence[float], side: int, samples: int
) -> Any:
    """The same in ONNX, for its exporter."""
    import onnx
    from onnxscript import opset20

    # Its types know only what numbers may enter, not those that do.
    op: Any = opset20

    def numbers(*values: int) -> Any:
        return op.Constant(
            value=onnx.helper.make_tensor("", onnx.TensorProto.INT64, [len(values)], list(values))
        )

    places, parts = [], []
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        here = op.Reshape(op.NonZero(op.Equal(levels, numbers(level))), numbers(-1))
        chosen = op.Gather(regions, here, axis=0)
        image = op.Cast(op.Gather(chosen, op.Constant(value_int=0), axis=1), to=onnx.TensorProto.INT64)
        parts.append(
            op.RoiAlign(
                one,
                op.Gather(chosen, numbers(1, 2, 3, 4), axis=1),
                image,
                coordinate_transformation_mode="output_half_pixel",
                mode="avg",
                output_height=side,
                output_width=side,
                sampling_ratio=samples,
                spatial_scale=float(scale),
            )
        )
        places.append(here)
    found = op.Concat(*parts, axis=0)
    zero = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [1], [0.0])
    return op.ScatterND(
        op.ConstantOfShape(op.Shape(found), value=zero),
        op.Unsqueeze(op.Concat(*places, axis=0), numbers(1)),
        found,
    )


def pooled(align: MultiScaleRoIAlign, maps: dict[str, Tensor], regions: Tensor) -> Tensor:
    """What torchvision's layer gives for regions (R, 5), once it has seen maps; in a graph one operation."""
    chosen = [maps[name] for name in align.featmap_names]
    levels = align.map_levels([regions[:, 1:]])
    found: Tensor = pool(
        chosen, regions, levels, list(align.scales), align.output_size[0], align.sampling_ratio
    )
    return found
