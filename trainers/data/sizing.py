"""How large a picture becomes in a set. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass

ImageSize = int | tuple[int, int] | None
"""Longest side in px, (height, width) to fit into, or None for pixels as they are."""


@dataclass(frozen=True)
class Fit:
    """How pictures are resized; the aspect ratio is kept.

    Args:
        size: see :data:`ImageSize`.
        either_way: a (height, width) holds for pictures lying and standing, turned round for those that need it: the
            shorter side becomes at most the smaller number and the longer one at most the larger.
    """

    size: ImageSize = None
    either_way: bool = False

    def factor(self, size: tuple[int, int]) -> float:
        """By which a picture of (height, width) is resized."""
        if self.size is None:
            return 1.0
        if isinstance(self.size, int):
            return self.size / max(size)
        order = sorted if self.either_way else list
        return min(most / side for most, side in zip(order(self.size), order(size), strict=True))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) px of a picture of (height, width) once it is resized."""
        factor = self.factor(size)
        height, width = (max(1, round(side * factor)) for side in size)
        return height, width

    @property
    def canvas(self) -> tuple[int, int] | None:
        """(height, width) that every picture is padded to; None where that is for the largest of them to say."""
        return self.size if isinstance(self.size, tuple) and not self.either_way else None

    @property
    def room(self) -> tuple[int, int] | None:
        """(height, width) of pictures of any shape beside each other; None where pictures stay as they are."""
        if self.size is None:
            return None
        if isinstance(self.size, int):
            return self.size, self.size
        return (max(self.size), max(self.size)) if self.either_way else self.size

    @property
    def sides(self) -> tuple[int, int] | None:
        """Shorter and longer side px that pictures are padded to, multiples of 32; None where that is not by these."""
        if not self.either_way or not isinstance(self.size, tuple):
            return None
        short, long = (-(-side // 32) * 32 for side in sorted(self.size))
        return short, long

    @property
    def most_pixels(self) -> int | None:
        """That a picture may have; None where pictures stay as they are."""
        if self.size is None:
            return None
        return self.size**2 if isinstance(self.size, int) else self.size[0] * self.size[1]

    def __str__(self) -> str:
        if self.size is None:
            return "as stored"
        if isinstance(self.size, int):
            return f"resized to {self.size} px on the longest side"
        if self.either_way:
            return f"resized to {min(self.size)} px on the shorter side, {max(self.size)} on the longer one at most"
        return f"resized to fit into {self.size[1]}x{self.size[0]} px"


def canvas_of(sides: tuple[int, int], standing: Iterable[bool]) -> tuple[int, int]:
    """(height, width) px that holds pictures of a shorter and a longer side, some of which stand."""
    (short, long), ways = sorted(sides), set(standing)
    return long if True in ways else short, long if False in ways else short


AS_STORED = Fit()
"""Pictures keep their pixels."""
