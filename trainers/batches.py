"""Mini-batches of a training, each a function of (seed, step)."""

import math
from random import Random

import torch
from torch import Tensor, nn

from search_spaces.randomness import rng_for, seed_for
from trainers.data.detection_set import DetectionSet, Target
from trainers.recipes import TrainRecipe

# After a crop: a box is kept while this share of each side is left.
_LEFT_OVER = 0.3
_GRAIN = 32


class Batches:
    """The images of every step: one permutation an epoch, strung together, cut into batches.

    Args:
        data: what to draw from.
        recipe: batch size and augmentation.
        seed: of order and augmentation.
    """

    def __init__(self, data: DetectionSet, recipe: TrainRecipe, seed: int) -> None:
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def indices(self, step: int) -> list[int]:
        """Positions in the set of the images of a step."""
        size = self._recipe.batch_size
        chosen = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(self._data))
            chosen.append(self._permutation(epoch)[place])
        return chosen

    def at(self, step: int, device: torch.device) -> tuple[Tensor, list[Target]]:
        """Images (N, 3, H, W), bytes, and their targets, augmented, on ``device``."""
        chosen = self.indices(step)
        rng = rng_for(self._seed, "augment", step)
        images = self._data.images[chosen].to(device)
        targets = [self._data.targets[index] for index in chosen]
        if self._recipe.flip:
            images, targets = flip(images, targets, [rng.random() < 0.5 for _ in chosen])
        if self._recipe.scale_jitter is not None:
            images, targets = jitter_scale(images, targets, self._recipe.scale_jitter, rng)
        return images, targets

    def _permutation(self, epoch: int) -> list[int]:
        if epoch != self._epoch:
            order = list(range(len(self._data)))
            Random(seed_for(self._seed, "epoch", epoch)).shuffle(order)
            self._epoch, self._order = epoch, order
        return self._order


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
        flipped.append(Target(boxes=boxes, labels=target["labels"], image_id=target["image_id"]))
    return images, flipped


def jitter_scale(
    images: Tensor, targets: list[Target], between: tuple[float, float], rng: Random
) -> tuple[Tensor, list[Target]]:
    """Resize a batch by one random factor, then cut or pad it back to its size at a random offset.

    One factor for the batch costs one interpolation; over the steps every image meets every scale.
    """
    height, width = images.shape[-2:]
    factor = math.exp(rng.uniform(math.log(between[0]), math.log(between[1])))
    new_height, new_width = max(_GRAIN, round(height * factor)), max(_GRAIN, round(width * factor))
    resized = nn.functional.interpolate(
        images.float(), size=(new_height, new_width), mode="bilinear", antialias=True, align_corners=False
    )
    # A positive offset cuts, a negative one pads.
    top = round(rng.random() * (new_height - height))
    left = round(rng.random() * (new_width - width))
    padded = nn.functional.pad(resized, (-left, width - new_width + left, -top, height - new_height + top))
    scale = torch.tensor([new_width / width, new_height / height]).repeat(2)
    shift = torch.tensor([left, top], dtype=torch.float32).repeat(2)
    limit = torch.tensor([width, height], dtype=torch.float32).repeat(2)
    moved = []
    for target in targets:
        whole = target["boxes"] * scale - shift
        cut = torch.minimum(whole.clamp(min=0), limit)
        before, after = whole[:, 2:] - whole[:, :2], cut[:, 2:] - cut[:, :2]
        kept = ((after >= _LEFT_OVER * before) & (after > 0)).all(1)
        moved.append(Target(boxes=cut[kept], labels=target["labels"][kept], image_id=target["image_id"]))
    return padded.round().clamp(0, 255).to(torch.uint8), moved
