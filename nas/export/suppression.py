"""Non-maximum suppression as one operation of a graph, with shapes that do not depend on what is found.

torchvision's ``batched_nms`` looks at the number of boxes and returns as many as it likes, so no graph can be made of
it. Here every box stays where it is and is marked as kept or not.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

# From here on torchvision treats each class alone instead of moving its boxes away from the others' (``batched_nms``).
_MANY = 4000


@torch.library.custom_op("vertebra::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, overlap: float, threshold: float) -> Tensor:
    """Marks the boxes that no better one of the same image and group covers.

    Args:
        boxes: (N, K, 4) as x1 y1 x2 y2.
        scores: (N, G, K), a box's score in each group, 0 where it does not belong to it.
        overlap: IoU above which the worse box goes.
        threshold: scores have to be above it.

    Returns:
        bool (N, K).
    """
    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for image, groups in enumerate(scores):
        for group in groups:
            chosen = torch.nonzero(group > threshold).squeeze(1)
            kept[image, chosen[nms(boxes[image, chosen], group[chosen], overlap)]] = True
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, threshold: float) -> Tensor:
    del scores, overlap, threshold
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def suppress_in_onnx(boxes: Any, scores: Any, overlap: float, threshold: float) -> Any:
    """The same in ONNX, for its exporter."""
    import onnx
    from onnxscript import opset20

    # Its types know only what numbers may enter, not those that do.
    op: Any = opset20

    def number(value: Any, kind: int, *, single: bool = False) -> Any:
        values = [value] if not isinstance(value, list) else value
        return op.Constant(value=onnx.helper.make_tensor("", kind, [] if single else [len(values)], values))

    found = op.NonMaxSuppression(
        boxes,
        scores,
        number(2**31, onnx.TensorProto.INT64),
        number(float_at_most(overlap), onnx.TensorProto.FLOAT),
        number(threshold, onnx.TensorProto.FLOAT),
    )
    # Of image, group and box the group is not needed.
    places = op.Gather(found, number([0, 2], onnx.TensorProto.INT64), axis=1)
    count = op.Slice(op.Shape(places), number(0, onnx.TensorProto.INT64), number(1, onnx.TensorProto.INT64))
    one = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [1])
    zero = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [0])
    grid = op.Slice(op.Shape(boxes), number(0, onnx.TensorProto.INT64), number(2, onnx.TensorProto.INT64))
    marks = op.ScatterND(op.ConstantOfShape(grid, value=zero), places, op.ConstantOfShape(count, value=one))
    return op.Cast(marks, to=onnx.TensorProto.BOOL)


def sort_in_onnx(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, whose exporter knows none: its TopK leaves equal values in their order."""
    import onnx
    from onnxscript import opset20

    # Its types know only what numbers may enter, not those that do.
    op: Any = opset20

    del stable

    def number(value: int) -> Any:
        return op.Constant(value=onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [value]))

    count = op.Gather(op.Shape(values), number(dim), axis=0)
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def kept_of_each_class(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    classes: int,
    overlap: float,
    threshold: float,
    most: int,
) -> Tensor:
    """What torchvision's ``batched_nms`` keeps, for a batch; in a graph one operation.

    Args:
        boxes: (N, K, 4) px, not negative.
        scores: (N, K), falling.
        labels: (N, K).
        classes: how many there are.
        overlap: IoU above which the worse box of the same class goes.
        threshold: scores have to be above it; 0 or more.
        most: kept in an image, the best ones.

    Returns:
        bool (N, K).
    """
    good = scores > threshold
    # To the same digits as torchvision, whose rounding decides where an overlap is next to the limit.
    highest = torch.where(good[:, :, None], boxes, 0.0).amax(dim=(1, 2))[:, None]
    away = labels.to(boxes.dtype) * (highest + 1)
    if 4 * boxes.shape[1] <= _MANY:
        members = scores[:, None]
    else:
        away = torch.where(4 * good.sum(1, keepdim=True) > _MANY, 0.0, away)
        groups = torch.arange(classes, device=labels.device)[None, :, None]
        members = torch.where(labels[:, None] == groups, scores[:, None], 0.0)
    kept: Tensor = suppress(boxes + away[:, :, None], members, overlap, threshold)
    best: Tensor = kept & (kept.cumsum(1) <= most)
    return best


def float_at_most(value: float) -> float:
    """The largest float32 that is not above a number."""
    near = torch.tensor(value, dtype=torch.float32)
    if float(near) > value:
        near = torch.nextafter(near, torch.tensor(-math.inf))
    return float(near)
