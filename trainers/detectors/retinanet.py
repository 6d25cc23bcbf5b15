"""RetinaNet, one-stage with anchors (Lin et al. 2017), as Du et al. 2020 train SpineNet with it.

Anchors, matching, losses and their weights follow the authors' code (``tensorflow/tpu``,
``models/official/detection``: ``configs/retinanet_config.py``, ``dataloader/anchor.py``, ``modeling/losses.py``):
an anchor is positive from an IoU of 0.5 on and negative below, the best anchor of every object is positive
whatever its IoU, focal and Huber loss are divided by the positives of the batch and one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BoxCoder
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
_OVERLAPS_AT_ONCE = {"cpu": 2**19, "elsewhere": 2**24}
"""Boxes times anchors held at a time, of which box_iou makes half a dozen tensors. A CPU is slower when
they leave its cache; a GPU waits for every call."""


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
        image, place, box = _matched([target["boxes"] for target in targets], anchors)
        levels = torch.stack((image, box, torch.searchsorted(ends, place, right=True)), dim=1)
        pairs = torch.unique(levels, dim=0)
        found = torch.bincount(pairs[:, 2], minlength=len(grids)).tolist()
        return dict(zip(self.backbone.names, found, strict=True))

    def assign(self, targets: Sequence[Target], anchors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which anchors are positive, and for which box.

        Args:
            targets: one an image.
            anchors: (L, 4) px, the same for all images.

        Returns:
            Image and anchor index of the P positives, their boxes (P, 4) and labels (P,).
        """
        image, place, box = _matched([target["boxes"] for target in targets], anchors)
        boxes = torch.cat([target["boxes"] for target in targets]).to(anchors.device)
        labels = torch.cat([target["labels"] for target in targets]).to(anchors.device)
        counts = torch.tensor([len(target["boxes"]) for target in targets], device=anchors.device)
        chosen = (counts.cumsum(0) - counts)[image] + box
        return image, place, boxes[chosen], labels[chosen]

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


def _matched(boxes: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positive anchors of several images and the box of each, of all images at once as far as memory allows.

    Args:
        boxes: (G, 4) px, one tensor an image.
        anchors: (L, 4) px, the same for all images.

    Returns:
        Image, anchor and box in its image of the P positives, by image and anchor.
    """
    most = max((len(one) for one in boxes), default=0)
    room = _OVERLAPS_AT_ONCE["cpu" if anchors.device.type == "cpu" else "elsewhere"]
    together = max(room // max(most * len(anchors), 1), 1)
    found = [(torch.zeros(0, dtype=torch.int64, device=anchors.device),) * 3]
    for start in range(0, len(boxes), together):
        # A box of the padding covers nothing, and so no anchor.
        padded = pad_sequence(list(boxes[start : start + together]), batch_first=True).to(anchors.device)
        if padded.shape[1]:
            image, place, box = _matched_at_once(padded, anchors)
            found.append((image + start, place, box))
    image, place, box = (torch.cat(one) for one in zip(*found, strict=True))
    return image, place, box


def _matched_at_once(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for images with equally many boxes, (N, G, 4) px."""
    # Flat, for older releases of torchvision know no batches of boxes.
    overlap = box_iou(boxes.flatten(0, 1), anchors).unflatten(0, boxes.shape[:2])
    covered, match = overlap.max(dim=1)
    covers, best = overlap.max(dim=2)
    # An anchor that is the best of several boxes answers for the last of them. A box between all anchors has no best.
    order = torch.arange(boxes.shape[1], device=boxes.device).where(covers > 0, -1)
    forced = torch.full_like(match, -1).scatter_reduce(1, best, order, reduce="amax")
    match = forced.where(forced >= 0, match)
    image, place = torch.nonzero((covered >= _MATCH_IOU) | (forced >= 0), as_tuple=True)
    return image, place, match[image, place]


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
