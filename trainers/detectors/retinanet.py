"""RetinaNet, one-stage with anchors (Lin et al. 2017), as Du et al. 2020 train SpineNet with it.

Anchors, matching, losses and their weights follow the authors' code (``tensorflow/tpu``,
``models/official/detection``: ``configs/retinanet_config.py``, ``dataloader/anchor.py``, ``modeling/losses.py``):
an anchor is positive from an IoU of 0.5 on and negative below, the best anchor of every object is positive
whatever its IoU, focal and Huber loss are divided by the positives of the batch and one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, sigmoid_focal_loss

from trainers.data.detection_set import Target
from trainers.detectors.dense import DenseDetector
from trainers.detectors.norm import TOWERS, norm_of
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.detectors.retinanet_head import RetinaNetHead
from trainers.ranks import ALONE, Ranks
from trainers.recipes import RETINANET_OCTAVES, DetectorRecipe

_ASPECTS = (0.5, 1.0, 2.0)
_MATCH_IOU = 0.5


class RetinaNet(DenseDetector):
    """RetinaNet over a pyramid.

    Args:
        backbone: with its pyramid.
        num_classes: categories.
        recipe: head, anchors, loss and post-processing.
    """

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe) -> None:
        super().__init__(backbone, num_classes, recipe)
        self.anchors = _anchor_generator(backbone.strides, recipe.anchor_scale)
        self.head = RetinaNetHead(
            backbone.out_channels,
            levels=len(backbone.strides),
            num_classes=num_classes,
            anchors=len(RETINANET_OCTAVES) * len(_ASPECTS),
            convs=recipe.head_convs,
            width=recipe.head_channels or backbone.out_channels,
            activation=recipe.head_activation,
            norm=norm_of(recipe, TOWERS),
            separable=recipe.head_separable,
        )
        self.coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.matcher = SSDMatcher(_MATCH_IOU)
        self.focal = (recipe.focal_alpha, recipe.focal_gamma)
        self.huber_delta = recipe.huber_delta
        self.box_weight = recipe.box_weight

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss and weighted Huber loss of the box codes, over the positive anchors of the batch and one."""
        logits, codes = self._outputs(images)
        anchors = self._anchors(images)
        image, place, boxes, labels = self.assign(targets, anchors)
        return retinanet_losses(
            logits=logits,
            codes=codes[image, place],
            wanted=self.coder.encode_single(boxes, anchors[place]),
            chosen=(image, place),
            labels=labels,
            focal=self.focal,
            huber_delta=self.huber_delta,
            box_weight=self.box_weight,
            ranks=self.ranks,
        )

    def scored(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Scores and boxes of all anchors."""
        logits, codes = self._outputs(images)
        anchors = self._anchors(images)
        scores = logits.flatten(1).sigmoid()

        def boxes_at(place: Tensor) -> Tensor:
            found = codes.gather(1, place[:, :, None].expand(-1, -1, 4))
            boxes: Tensor = self.coder.decode_single(found.flatten(0, 1), anchors[place.flatten()])
            return boxes.reshape(found.shape)

        return scores, boxes_at

    def objects_by_level(self, targets: Sequence[Target], image_size: tuple[int, int]) -> dict[str, int]:
        """How many objects have a positive anchor on each level; an object may have several.

        Args:
            targets: of any number of images.
            image_size: (height, width) of those images in px.
        """
        grids = self.backbone.grids(image_size)
        anchors = self._grid_anchors(grids, torch.device("cpu"))
        per_cell = len(RETINANET_OCTAVES) * len(_ASPECTS)
        ends = per_cell * torch.tensor([height * width for height, width in grids]).cumsum(0)
        found = [0] * len(grids)
        for target in targets:
            if len(target["boxes"]):
                box, place = self._matched(target["boxes"], anchors)
                level = torch.searchsorted(ends, place, right=True)
                for _, index in set(zip(box.tolist(), level.tolist(), strict=True)):
                    found[index] += 1
        return dict(zip(self.backbone.names, found, strict=True))

    def assign(self, targets: Sequence[Target], anchors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which anchors are positive, and for which box.

        Args:
            targets: one an image.
            anchors: (L, 4) px, the same for all images.

        Returns:
            Image and anchor index of the P positives, their boxes (P, 4) and labels (P,).
        """
        images, places, boxes, labels = [], [], [], []
        for index, target in enumerate(targets):
            inside = target["boxes"].to(anchors.device)
            box, place = self._matched(inside, anchors)
            images.append(torch.full_like(place, index))
            places.append(place)
            boxes.append(inside[box])
            labels.append(target["labels"].to(anchors.device)[box])
        return torch.cat(images), torch.cat(places), torch.cat(boxes), torch.cat(labels)

    def _matched(self, boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of a box and its positive anchors in one image: two index tensors."""
        if not len(boxes):
            none = torch.zeros(0, dtype=torch.int64, device=anchors.device)
            return none, none
        overlap = box_iou(boxes, anchors)
        match = self.matcher(overlap)
        place = torch.nonzero(match >= 0).squeeze(1)
        box = match[place]
        # A box between all anchors has no best one.
        touching = overlap[box, place] > 0
        return box[touching], place[touching]

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 logits (N, L, C) and box codes (N, L, 4)."""
        logits, codes = self.head(list(self.backbone(self.normalise(images)).values()))
        return logits, codes

    def _anchors(self, images: Tensor) -> Tensor:
        return self._grid_anchors(self.backbone.grids((images.shape[-2], images.shape[-1])), images.device)

    def _grid_anchors(self, grids: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """(L, 4) px, level by level, cells row by row."""
        self.anchors.set_cell_anchors(torch.float32, device)
        strides = [[torch.tensor(stride, device=device)] * 2 for stride in self.backbone.strides]
        return torch.cat(self.anchors.grid_anchors([list(grid) for grid in grids], strides))


def _anchor_generator(strides: Sequence[int], scale: float) -> AnchorGenerator:
    """torchvision's, with anchors around the middle of a cell instead of its corner and sides not rounded."""
    sizes = [[scale * stride * octave for octave in RETINANET_OCTAVES] for stride in strides]
    generator = AnchorGenerator(tuple(map(tuple, sizes)), (_ASPECTS,) * len(strides))
    cells = []
    for stride, level in zip(strides, sizes, strict=True):
        sides = [
            (size / aspect**0.5, size * aspect**0.5) for size in level for aspect in _ASPECTS
        ]  # width, height
        half = torch.tensor(sides, dtype=torch.float32) / 2
        cells.append(torch.cat((-half, half), dim=1) + stride / 2)
    generator.cell_anchors = cells
    return generator


def retinanet_losses(
    *,
    logits: Tensor,
    codes: Tensor,
    wanted: Tensor,
    chosen: tuple[Tensor, Tensor],
    labels: Tensor,
    focal: tuple[float, float],
    huber_delta: float,
    box_weight: float,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """The two terms of RetinaNet.

    Args:
        logits: (N, L, C).
        codes: of the P positives, (P, 4).
        wanted: codes of the boxes they answer for, (P, 4).
        chosen: image and anchor index of the positives.
        labels: of these boxes, (P,).
        focal: alpha and gamma (Lin et al. 2017, equation 5).
        huber_delta: where Huber loss turns from a square to a line, in units of the codes.
        box_weight: of the box term, which is a mean over the four codes.
        ranks: whose positives count.
    """
    # One more than there are, as in the authors' code, and never zero.
    positives = (ranks.total(len(labels)) + 1) / ranks.count
    truth = torch.zeros_like(logits)
    truth[chosen[0], chosen[1], labels] = 1.0
    alpha, gamma = focal
    box = nn.functional.huber_loss(codes, wanted, reduction="sum", delta=huber_delta)
    return {
        "classification": sigmoid_focal_loss(logits, truth, alpha=alpha, gamma=gamma, reduction="sum")
        / positives,
        "bbox_regression": box_weight * box / (4 * positives),
    }
