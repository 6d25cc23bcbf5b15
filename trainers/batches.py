"""Mini-batches of a training, each a function of (seed, step)."""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pad, resize

from search_spaces.randomness import rng_for
from trainers.data.detection_set import DetectionSet, Target
from trainers.data.stored import StoredImages
from trainers.epochs import Epochs, GroupedEpochs
from trainers.ranks import ALONE, Ranks
from trainers.recipes import TrainRecipe

# After a crop: px of each side that must be left of a box. The authors of SpineNet drop boxes of no area; with less
# than a pixel there is nothing to see either.
_LEFT_OVER = 1.0
# Of each image, by jitter_scale: its factor and its place.
_JITTER_DRAWS = 3


class Batches:
    """The images of every step: one permutation an epoch, strung together, cut into batches.

    Those of a set with sides are of one orientation as far as that goes.

    Args:
        data: what to draw from.
        recipe: batch size and augmentation.
        seed: of order and augmentation.
        multiple: what sides of resized images are rounded to multiples of, px.
    """

    def __init__(self, data: DetectionSet, recipe: TrainRecipe, seed: int, multiple: int = 32) -> None:
        self._data = data
        self._multiple = multiple
        self._recipe = recipe
        self._seed = seed
        self._epochs = Epochs(len(data), seed)
        self._grouped: GroupedEpochs | None = None
        if data.sides is not None:
            standing = [data.standing(index) for index in range(len(data))]
            self._grouped = GroupedEpochs(standing, recipe.batch_size, seed)

    def indices(self, step: int) -> list[int]:
        """Positions in the set of the images of a step."""
        if self._grouped is not None:
            return list(self._grouped.batch(step))
        size = self._recipe.batch_size
        return [self._epochs.image(place) for place in range(step * size, (step + 1) * size)]

    def at(
        self, step: int, device: torch.device, ranks: Ranks = ALONE, micro: int = 0
    ) -> tuple[Tensor, list[Target]]:
        """Images (N, 3, H, W), bytes, and their targets, augmented, on ``device``.

        Args:
            step: optimiser step.
            device: of the images.
            ranks: whose first to last take the images of a micro-batch in parts.
            micro: which of the step's micro-batches.
        """
        chosen = self.indices(step)
        size = self._recipe.micro_batch
        begin, end = (micro * size + place for place in ranks.part(size))
        rng = rng_for(self._seed, "augment", step)
        mirrored = [rng.random() < 0.5 for _ in chosen][begin:end] if self._recipe.flip else None
        # Not that of this rank's part: what is learned shall not depend on who shares a batch.
        padded = self._data.padded_size(chosen[micro * size : (micro + 1) * size])
        chosen = chosen[begin:end]
        images = self._data.padded(chosen, padded).to(device)
        if isinstance(self._data.images, StoredImages):
            self._data.images.soon(self._following(step, micro, ranks))
        targets = [self._data.target(index, padded) for index in chosen]
        if self._recipe.scale_jitter is not None:
            for _ in range(begin * _JITTER_DRAWS):
                rng.random()
            contents = [self._data.content(index) for index in chosen]
            images, targets = jitter_scale(images, targets, contents, self._recipe.scale_jitter, rng)
        if mirrored is not None:
            images, targets = flip(images, targets, mirrored)
        return resized(images, targets, scaled_size(padded, self.factor(step), self._multiple))

    def _following(self, step: int, micro: int, ranks: Ranks) -> list[int]:
        """What this rank takes after a micro-batch of a step."""
        micro, size = micro + 1, self._recipe.micro_batch
        step, micro = step + micro // self._recipe.accumulate, micro % self._recipe.accumulate
        begin, end = (micro * size + place for place in ranks.part(size))
        return self.indices(step)[begin:end]

    @property
    def smallest(self) -> tuple[int, int]:
        """(height, width) px of the smallest images of any step, in the orientation of most."""
        return scaled_size(self._data.usual_size, min(self._recipe.sizes, default=1.0), self._multiple)

    def factor(self, step: int) -> float:
        """By which the sides of a step's images are multiplied."""
        return rng_for(self._seed, "size", step).choice(self._recipe.sizes) if self._recipe.sizes else 1.0


def flip(images: Tensor, targets: list[Target], chosen: list[bool]) -> tuple[Tensor, list[Target]]:
    """Mirror the chosen images left to right, padding included."""
    width = images.shape[-1]
    mask = torch.tensor(chosen, device=images.device)
    images = torch.where(mask[:, None, None, None], images.flip(-1), images)
    flipped = []
    for target, mirrored in zip(targets, chosen, strict=True):
        boxes = target["boxes"]
        if mirrored:
            boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        one = Target(boxes=boxes, labels=target["labels"], image_id=target["image_id"])
        if "masks" in target:
            one["masks"] = target["masks"].flip(-1) if mirrored else target["masks"]
        flipped.append(one)
    return images, flipped


def scaled_size(size: tuple[int, int], factor: float, multiple: int) -> tuple[int, int]:
    """Both sides times a factor, to the nearest multiple; sides that it leaves alone stay, multiples or not."""
    if factor == 1.0:
        return size
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in size)
    return height, width


def resized(images: Tensor, targets: list[Target], size: tuple[int, int]) -> tuple[Tensor, list[Target]]:
    """Images and what they hold at another (height, width).

    Boxes that are left with less than a pixel, or with an empty mask, are left out, as by :func:`jitter_scale`.
    """
    before = (images.shape[-2], images.shape[-1])
    if size == before:
        return images, targets
    scale = torch.tensor([size[1] / before[1], size[0] / before[0]]).repeat(2)
    moved = []
    for target in targets:
        boxes = target["boxes"] * scale
        kept = (boxes[:, 2:] - boxes[:, :2] >= _LEFT_OVER).all(1)
        if "masks" in target:
            masks = _resized_masks(target["masks"], size)
            kept &= masks.flatten(1).bool().any(1)
        one = Target(boxes=boxes[kept], labels=target["labels"][kept], image_id=target["image_id"])
        if "masks" in target:
            one["masks"] = masks[kept]
        moved.append(one)
    return resize(images, list(size), antialias=True), moved


def jitter_scale(
    images: Tensor,
    targets: Sequence[Target],
    contents: Sequence[tuple[int, int]],
    between: tuple[float, float],
    rng: Random,
) -> tuple[Tensor, list[Target]]:
    """Resize each image by its own random factor, then crop or pad it to the size that all have.

    The factor is uniform. A side that has become too long is cropped at a random place, one that has become too
    short is padded at right and bottom, as in the authors' code of Du et al. 2020 (``tensorflow/tpu``,
    ``models/official/detection``); they resize the photo itself, here it is the picture of the set.

    Args:
        images: (N, 3, H, W), bytes.
        targets: of each image.
        contents: (height, width) of each picture; what lies right of it and below is padding.
        between: the smallest and the largest factor.
        rng: of factors and places.

    Returns:
        Images of the same shape, and their targets: boxes clipped to the image, those of less than a pixel or with an
        empty mask left out.
    """
    canvas = (images.shape[-2], images.shape[-1])
    pictures, moved = [], []
    for image, target, content in zip(images, targets, contents, strict=True):
        factor = rng.uniform(*between)
        size = [max(1, round(side * factor)) for side in content]
        # Always two draws, so that no image's place depends on another's size.
        top, left = (int(rng.random() * max(0, now - most)) for now, most in zip(size, canvas, strict=True))
        picture = resize(image[:, : content[0], : content[1]], size, antialias=True)
        picture = picture[:, top : top + canvas[0], left : left + canvas[1]]
        pictures.append(pad(picture, [0, 0, canvas[1] - picture.shape[-1], canvas[0] - picture.shape[-2]]))
        scale = torch.tensor([size[1] / content[1], size[0] / content[0]]).repeat(2)
        shift = torch.tensor([left, top], dtype=torch.float32).repeat(2)
        limit = torch.tensor([canvas[1], canvas[0]], dtype=torch.float32).repeat(2)
        boxes = torch.minimum((target["boxes"] * scale - shift).clamp(min=0), limit)
        kept = (boxes[:, 2:] - boxes[:, :2] >= _LEFT_OVER).all(1)
        one = Target(boxes=boxes[kept], labels=target["labels"][kept], image_id=target["image_id"])
        if "masks" in target:
            masks = target["masks"][kept][:, : content[0], : content[1]]
            masks = _resized_masks(masks, (size[0], size[1]))[
                :, top : top + canvas[0], left : left + canvas[1]
            ]
            masks = pad(masks, [0, 0, canvas[1] - masks.shape[-1], canvas[0] - masks.shape[-2]])
            # Of an object cut at a corner a box may be left, and nothing in it.
            left_over = masks.flatten(1).bool().any(1)
            one = Target(
                boxes=one["boxes"][left_over],
                labels=one["labels"][left_over],
                image_id=one["image_id"],
                masks=masks[left_over],
            )
        moved.append(one)
    return torch.stack(pictures), moved


def _resized_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W) of zeros and ones -> (n, *size), by nearest neighbour: a scene of cells has hundreds of masks."""
    if not len(masks):
        return masks.new_zeros((0, *size))
    return nn.functional.interpolate(masks[:, None], size=size, mode="nearest-exact")[:, 0]
