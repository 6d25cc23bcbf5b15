"""Mini-batches of labelled images, cropped and mirrored, each a function of (seed, step)."""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resized_crop

from search_spaces.randomness import rng_for
from trainers.data.image_folder import ImageFolder
from trainers.epochs import Epochs
from trainers.ranks import ALONE, Ranks
from trainers.recipes import ImageFolderRecipe, TrainRecipe

_TRIES = 10
Crop = tuple[int, int, int, int]
"""Top, left, height and width in px."""


class ImageBatches:
    """The images of every step, each with a crop and perhaps a mirroring of its own.

    Args:
        data: what to draw from.
        recipe: batch size and whether images are mirrored.
        seed: of order and augmentation.
    """

    def __init__(self, data: ImageFolder, recipe: TrainRecipe, seed: int) -> None:
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._epochs = Epochs(len(data), seed)
        loaders = data.recipe.loaders
        self._pool = ThreadPoolExecutor(loaders, thread_name_prefix="images") if loaders else None
        self._ahead: tuple[tuple[int, ...], list[Future[Tensor]]] = ((), [])

    def at(
        self, step: int, device: torch.device, ranks: Ranks = ALONE, micro: int = 0
    ) -> tuple[Tensor, list[int]]:
        """Images (N, 3, S, S), bytes, on ``device``, and their labels.

        Args:
            step: optimiser step.
            device: of the images.
            ranks: whose first to last take the images of a micro-batch in parts.
            micro: which of the step's micro-batches.

        Raises:
            DataError: a file that cannot be decoded.
        """
        size = self._recipe.micro_batch
        first = step * self._recipe.batch_size + micro * size
        begin, end = ranks.part(size)
        places = tuple(range(first + begin, first + end))
        chosen = [self._epochs.image(place) for place in places]
        images = torch.stack(self._loaded(places, chosen, size))
        return images.to(device), [self._data.labels[index] for index in chosen]

    def _loaded(self, places: Sequence[int], chosen: Sequence[int], size: int) -> list[Tensor]:
        if self._pool is None:
            return [self._image(place, index) for place, index in zip(places, chosen, strict=True)]
        if self._ahead[0] != tuple(places):
            self._ahead = (tuple(places), self._begun(places))
        waited = self._ahead[1]
        following = tuple(place + size for place in places)
        self._ahead = (following, self._begun(following))
        return [one.result() for one in waited]

    def _begun(self, places: Sequence[int]) -> list[Future[Tensor]]:
        assert self._pool is not None
        return [self._pool.submit(self._image, place, self._epochs.image(place)) for place in places]

    def _image(self, place: int, index: int) -> Tensor:
        """An image of the set as it is seen at a place of the training's sequence."""
        # By step and place in the batch, so that ranks and threads see what one process sees.
        rng = rng_for(self._seed, "augment", *divmod(place, self._recipe.batch_size))
        pixels = self._data.pixels(index)
        top, left, height, width = random_crop((pixels.shape[-2], pixels.shape[-1]), self._data.recipe, rng)
        side = self._data.recipe.image_size
        found: Tensor = resized_crop(pixels, top, left, height, width, [side, side], antialias=True)
        return found.flip(-1) if self._recipe.flip and rng.random() < 0.5 else found


def random_crop(size: tuple[int, int], recipe: ImageFolderRecipe, rng: Random) -> Crop:
    """A rectangle of uniform area share and log-uniform ratio (Szegedy et al. 2015), drawn as torchvision draws it.

    torchvision's own takes torch's global generator, which threads share.

    Args:
        size: (height, width) of the image.
        recipe: between which areas and ratios.
        rng: of all draws.

    Returns:
        A rectangle inside of the image; where ten draws do not fit, the largest in the middle whose ratio is allowed.
    """
    height, width = size
    low, high = recipe.crop_ratio
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*recipe.crop_area)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            return rng.randint(0, height - down), rng.randint(0, width - across), down, across
    across = max(1, min(width, round(height * high)))
    down = max(1, min(height, round(width / low)))
    return (height - down) // 2, (width - across) // 2, down, across


def middle(pixels: Tensor, recipe: ImageFolderRecipe) -> Tensor:
    """The square in the middle of an image as it is evaluated, bytes (3, S, S)."""
    height, width = pixels.shape[-2:]
    side = max(1, round(min(height, width) * recipe.crop_share))
    out = [recipe.image_size, recipe.image_size]
    found: Tensor = resized_crop(
        pixels, (height - side) // 2, (width - side) // 2, side, side, out, antialias=True
    )
    return found
