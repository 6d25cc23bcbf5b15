"""The order of a training's images: one permutation an epoch, strung together."""

from random import Random

from search_spaces.randomness import seed_for


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
