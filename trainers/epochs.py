"""The order of a training's images: one permutation an epoch, strung together."""

from collections.abc import Hashable, Sequence
from random import Random

from search_spaces.randomness import rng_for, seed_for

# Batches that are sorted at a time; no more than there are in an epoch.
_WINDOW = 64


class Epochs:
    """Which image stands at a place of the endless sequence.

    Args:
        images: how many there are.
        seed: of the order.
    """

    def __init__(self, images: int, seed: int) -> None:
        self._images = images
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def image(self, place: int) -> int:
        """Position in the set of the image at a place, from 0."""
        epoch, index = divmod(place, self._images)
        if epoch != self._epoch:
            order = list(range(self._images))
            Random(seed_for(self._seed, "epoch", epoch)).shuffle(order)
            self._epoch, self._order = epoch, order
        return self._order[index]


class GroupedEpochs:
    """Batches whose images are of one kind each, as far as there are enough of it.

    The sequence of :class:`Epochs` is cut into windows of some batches. In a window images are sorted by their kind,
    those of a kind stay in their order, and the batches cut from that are shuffled: every image comes as often as
    without groups, and of two kinds at most one batch a window is mixed.

    Args:
        kinds: of every image.
        batch_size: images of a batch.
        seed: of the order.
    """

    def __init__(self, kinds: Sequence[Hashable], batch_size: int, seed: int) -> None:
        self._rank = {kind: rank for rank, kind in enumerate(dict.fromkeys(kinds))}
        self._kinds = kinds
        self._size = batch_size
        self._seed = seed
        self._epochs = Epochs(len(kinds), seed)
        self._batches = max(1, min(_WINDOW, len(kinds) // batch_size))
        self._window = -1
        self._found: list[list[int]] = []

    def batch(self, step: int) -> list[int]:
        """Positions in the set of the images of a batch, from 0."""
        window, place = divmod(step, self._batches)
        if window != self._window:
            length = self._batches * self._size
            images = [self._epochs.image(one) for one in range(window * length, (window + 1) * length)]
            images.sort(key=lambda image: self._rank[self._kinds[image]])
            self._found = [images[start : start + self._size] for start in range(0, length, self._size)]
            rng_for(self._seed, "window", window).shuffle(self._found)
            self._window = window
        return self._found[place]
