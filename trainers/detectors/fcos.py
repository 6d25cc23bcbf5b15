"""FCOS, one-stage and anchor-free (Tian et al. 2019), from torchvision's losses and operations.

Assignment and losses are those of ``torchvision.models.detection.FCOS``, computed for the whole batch at
once: only the few locations around a box's centre are looked at, instead of every location against every box.
Two things differ on purpose: locations lie at the middle of their cell, as in the paper, and boxes that
claim one location are told apart by their exact area.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from trainers.data.detection_set import Target
from trainers.detectors.dense import DenseDetector
from trainers.detectors.fcos_head import FCOSHead
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.ranks import ALONE, Ranks
from trainers.recipes import DetectorRecipe

# Half side, in anchors, of the square around a box's centre whose locations are positive.
_CENTRE_RADIUS = 1.5


class FCOS(DenseDetector):
    """FCOS over a pyramid.

    Args:
        backbone: with its pyramid.
        num_classes: categories.
        recipe: head, assignment scale and post-processing.
    """

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> None:
        super().__init__(backbone, num_classes, recipe)
        self.head = FCOSHead(
            backbone.out_channels, num_classes, convs=recipe.head_convs, shared=recipe.shared_tower
        )
        self.anchors = tuple(stride * recipe.anchor_scale for stride in backbone.strides)

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss, GIoU and centerness, each over the number of positive locations."""
        logits, reaches, centerness, grids = self._outputs(images)
        points, sizes = self._locations(grids, images.device)
        image, location, boxes, labels = self.assign(targets, grids, images.device)
        return fcos_losses(
            logits=logits,
            distances=self.head.distances(reaches)[image, location] * sizes[location, None],
            centerness=centerness[image, location],
            points=points[location],
            chosen=(image, location),
            boxes=boxes,
            labels=labels,
            ranks=self.ranks,
        )

    def scored(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Scores and boxes of all locations."""
        logits, reaches, centerness, grids = self._outputs(images)
        points, sizes = self._locations(grids, images.device)
        # sqrt of the product, as torchvision scores.
        scores = (logits.sigmoid() * centerness.sigmoid()[:, :, None]).sqrt().flatten(1)

        def boxes_at(location: Tensor) -> Tensor:
            chosen = self.head.distances(reaches.gather(1, location[:, :, None].expand(-1, -1, 4)))
            return _corners(points[location], chosen * sizes[location][:, :, None])

        return scores, boxes_at

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[tuple[int, int], ...]]:
        """float32 logits (N, L, C), reaches (N, L, 4), centerness (N, L), map sizes."""
        maps = list(self.backbone(self.normalise(images)).values())
        logits, reaches, centerness = self.head(maps)
        grids = tuple((one.shape[-2], one.shape[-1]) for one in maps)
        return logits, reaches, centerness, grids

    def _locations(self, grids: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Middles of all cells (L, 2) as x, y and the anchor side of each (L,), px."""
        points, sizes = [], []
        for (height, width), stride, anchor in zip(grids, self.backbone.strides, self.anchors, strict=True):
            y = (torch.arange(height, device=device) + 0.5) * stride
            x = (torch.arange(width, device=device) + 0.5) * stride
            # Expanded and not repeated, which ONNX's exporter cannot do as often as an image's size says.
            cells = (x[None].expand(height, width), y[:, None].expand(height, width))
            points.append(torch.stack(cells, dim=2).flatten(0, 1))
            sizes.append(torch.full((height * width,), anchor, device=device))
        return torch.cat(points), torch.cat(sizes)

    def assign(
        self, targets: Sequence[Target], grids: Sequence[tuple[int, int]], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which locations are positive, and for which box.

        A location is positive for a box when it lies inside it, within 1.5 strides of its centre, and the
        farthest side is within the level's range; of several boxes the smallest wins.

        Returns:
            Image and location index of the P positives, their boxes (P, 4) and labels (P,).
        """
        counts = [len(target["labels"]) for target in targets]
        boxes = torch.cat([target["boxes"] for target in targets]).to(device)
        labels = torch.cat([target["labels"] for target in targets]).to(device)
        total = sum(height * width for height, width in grids)
        if not len(boxes):
            none = torch.zeros(0, dtype=torch.int64, device=device)
            return none, none, boxes, labels
        owner = torch.repeat_interleave(torch.arange(len(targets)), torch.tensor(counts)).to(device)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order = torch.argsort(area, stable=True)
        boxes, labels, owner = boxes[order], labels[order], owner[order]
        box, location = self._positives(boxes, grids)
        # Boxes are sorted by area, so the smallest index at a place is the smallest box.
        winner = torch.full((len(targets) * total,), len(boxes), device=device)
        winner.scatter_reduce_(0, owner[box] * total + location, box, reduce="amin")
        place = torch.nonzero(winner < len(boxes)).squeeze(1)
        won = winner[place]
        return place.div(total, rounding_mode="floor"), place % total, boxes[won], labels[won]

    def objects_by_level(self, targets: Sequence[Target], image_size: tuple[int, int]) -> dict[str, int]:
        """How many objects find a positive location on each level; an object may have several.

        Sizes that no object has leave a level, and the stage behind it, without a loss of its own.

        Args:
            targets: of any number of images.
            image_size: (height, width) of those images in px.
        """
        grids = self.backbone.grids(image_size)
        ends = torch.tensor([height * width for height, width in grids]).cumsum(0)
        found = [0] * len(grids)
        for target in targets:
            if len(target["boxes"]):
                box, place = self._positives(target["boxes"], grids)
                level = torch.searchsorted(ends, place, right=True)
                for _, index in set(zip(box.tolist(), level.tolist(), strict=True)):
                    found[index] += 1
        return dict(zip(self.backbone.names, found, strict=True))

    def _positives(self, boxes: Tensor, grids: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """All pairs of a box and a location that suit each other: two index tensors."""
        device = boxes.device
        strides = torch.tensor(self.backbone.strides, dtype=torch.float32, device=device)[None, :]
        anchors = torch.tensor(self.anchors, dtype=torch.float32, device=device)[None, :]
        heights = torch.tensor([height for height, _ in grids], device=device)[None, :, None]
        widths = torch.tensor([width for _, width in grids], device=device)[None, :, None]
        starts = torch.tensor([0, *[height * width for height, width in grids[:-1]]], device=device).cumsum(0)
        steps = torch.arange(math.floor(2 * _CENTRE_RADIUS) + 2, device=device)
        radius = _CENTRE_RADIUS * strides

        def along(low: Tensor, high: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """One axis: cell index (G, levels, span), distances to both sides, and whether it is near."""
            centre = ((low + high) / 2)[:, None]
            first = torch.floor((centre - radius) / strides - 0.5).long()
            cell = first[:, :, None] + steps
            point = (cell + 0.5) * strides[:, :, None]
            near = (point - centre[:, :, None]).abs() < radius[:, :, None]
            before, after = point - low[:, None, None], high[:, None, None] - point
            near &= (cell >= 0) & (cell < cells) & (torch.minimum(before, after) > 0)
            return cell, torch.maximum(before, after), near, point

        column, far_x, near_x, _ = along(boxes[:, 0], boxes[:, 2], widths)
        row, far_y, near_y, _ = along(boxes[:, 1], boxes[:, 3], heights)
        lowest, highest = 4 * anchors, 8 * anchors
        lowest[:, 0], highest[:, -1] = 0, math.inf
        reach = torch.maximum(far_y[:, :, :, None], far_x[:, :, None, :])
        fits = near_y[:, :, :, None] & near_x[:, :, None, :]
        fits &= (reach > lowest[:, :, None, None]) & (reach < highest[:, :, None, None])
        box, level, y, x = torch.nonzero(fits, as_tuple=True)
        place = starts[level] + row[box, level, y] * widths[0, level, 0] + column[box, level, x]
        return box, place


def fcos_losses(
    *,
    logits: Tensor,
    distances: Tensor,
    centerness: Tensor,
    points: Tensor,
    chosen: tuple[Tensor, Tensor],
    boxes: Tensor,
    labels: Tensor,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """The three terms of FCOS, torchvision's normaliser: all over the number of positives.

    Args:
        logits: (N, L, C).
        distances: of the P positives to left, top, right, bottom, (P, 4) px.
        centerness: logits of the positives, (P,).
        points: of the positives, (P, 2) px.
        chosen: image and location index of the positives.
        boxes: that the positives answer for, (P, 4) px.
        labels: of these boxes, (P,).
        ranks: whose positives count.
    """
    positives = max(1, ranks.total(len(labels))) / ranks.count
    wanted = torch.zeros_like(logits)
    wanted[chosen[0], chosen[1], labels] = 1.0
    sides = torch.cat((points - boxes[:, :2], boxes[:, 2:] - points), dim=1)
    across, down = sides[:, 0::2], sides[:, 1::2]
    centred = (across.amin(1) / across.amax(1) * down.amin(1) / down.amax(1)).sqrt()
    return {
        "classification": sigmoid_focal_loss(logits, wanted, reduction="sum") / positives,
        "bbox_regression": generalized_box_iou_loss(_corners(points, distances), boxes, reduction="sum")
        / positives,
        "bbox_ctrness": nn.functional.binary_cross_entropy_with_logits(centerness, centred, reduction="sum")
        / positives,
    }


def _corners(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) from points (..., 2) and distances (..., 4)."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1)
