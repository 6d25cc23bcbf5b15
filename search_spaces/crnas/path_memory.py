"""What the beginnings of paths compute, kept for the paths that begin alike.

Candidates of a search are compared on the same images in the same batches, with batch normalisation rebuilt from the
same training images, so blocks that two candidates begin with compute the same numbers for both, to the bit. They are
computed once and taken up where the paths part.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

LIMIT = 2**28
"""Bytes of maps that are kept, unless told otherwise."""

_State = tuple[Tensor, Mapping[str, Tensor]]


class PathMemory:
    """Maps behind the first parts of paths, batch by batch.

    A beginning is taken up only when all batches of a candidate went through it, for the statistics of its
    normalisations are those of all of them. The one used longest ago is forgotten first; of a path whose maps are
    more than the limit the first parts are left out, whose maps are the largest.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.batch: Hashable | None = None
        """Which images the next pass sees; None: those that no other candidate will."""
        self._kept: OrderedDict[Hashable, dict[Hashable, _State]] = OrderedDict()
        self._beginnings: Sequence[Hashable] = ()
        self._known = 0
        self._states: Mapping[Hashable, _State] = {}
        self._new: dict[int, dict[Hashable, _State]] = {}
        self._left_out: set[int] = set()

    @property
    def known(self) -> int:
        """Parts that the candidate being scored need not compute."""
        return self._known

    @property
    def bytes(self) -> int:
        """Of all maps that are kept."""
        return _size(self._kept.values())

    @contextmanager
    def scoring(self, beginnings: Sequence[Hashable]) -> Iterator[None]:
        """Around the passes of one candidate; what it adds is kept when all went well.

        Args:
            beginnings: a key for its first part, its first two parts and so on, as far as they are the same in all of
                its batches; equal keys are equal modules with equal choices inside.
        """
        self._beginnings, self._new, self._left_out = beginnings, {}, set()
        self._known, self._states = 0, {}
        for length in range(len(beginnings), 0, -1):
            if beginnings[length - 1] in self._kept:
                # Held here too, so that forgetting it meanwhile does no harm.
                self._known, self._states = length, self._kept[beginnings[length - 1]]
                break
        for length in range(self._known):
            if beginnings[length] in self._kept:
                self._kept.move_to_end(beginnings[length])
        try:
            yield
            self._kept.update({beginnings[length - 1]: states for length, states in self._new.items()})
            while self._kept and self.bytes > self.limit:
                self._kept.popitem(last=False)
        finally:
            self._beginnings, self._new = (), {}
            self._known, self._states, self.batch = 0, {}, None

    def resume(self) -> tuple[int, Tensor, dict[str, Tensor]] | None:
        """How many parts are behind the batch, their last map, and the levels so far; None: begin with the images."""
        if self.batch is None or not self._known:
            return None
        x, maps = self._states[self.batch]
        return self._known, x, dict(maps)

    def keep(self, length: int, x: Tensor, maps: Mapping[str, Tensor]) -> None:
        """Behind the first ``length`` parts of the batch is ``x``, and ``maps`` are the levels so far."""
        if (
            self.batch is None
            or not self._known < length <= len(self._beginnings)
            or length in self._left_out
        ):
            return
        self._new.setdefault(length, {})[self.batch] = (x, dict(maps))
        while self._new and _size(self._new.values()) > self.limit:
            self._left_out.add(shortest := min(self._new))
            del self._new[shortest]


def _size(entries: Iterable[Mapping[Hashable, _State]]) -> int:
    """Bytes of all maps, each counted once; levels are often the last map of a shorter beginning."""
    every = {
        id(one): one.numel() * one.element_size()
        for states in entries
        for x, maps in states.values()
        for one in (x, *maps.values())
    }
    return sum(every.values())
