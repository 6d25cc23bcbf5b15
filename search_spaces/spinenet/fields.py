"""Theoretical receptive fields of scale-permuted networks, without torch: followed backwards cell by cell."""

from collections.abc import Sequence

from search_spaces.spinenet.costs import Shape, Window
from search_spaces.spinenet.graph import HIGHEST, Kind


def level_fields(shape: Shape) -> dict[str, int]:
    """Level name -> side in pixels of the largest receptive field of one of its cells, borders left out.

    Cells behind an up-sampling differ with their position in the coarser cell: all positions are tried.
    """
    levels = shape.levels
    fields = {}
    for place in range(len(levels) - 5, len(levels)):
        positions = range(2 ** (HIGHEST - levels[place]))
        fields[levels[place]] = max(_field(shape, levels, place, cell) for cell in positions)
    return {f"p{level}": fields[level] for level in sorted(fields)}


def _field(shape: Shape, levels: Sequence[int], place: int, cell: int) -> int:
    """Pixels from the first to the last that one cell of an output block sees."""
    stem = len(shape.stem)
    needed: dict[int, tuple[int, int]] = {place: (cell, cell)}
    for here in range(place, -1, -1):
        if here not in needed:
            continue
        kind: Kind = shape.blocks[here - stem].kind if here >= stem else "bottleneck"
        span = _before(needed[here], [*shape.inside(kind)] * (shape.repeats - 1))
        if here < stem:
            halves = here > 0 and levels[here] > levels[here - 1]
            windows = [Window(3, 2)] if halves else list(shape.inside("bottleneck"))
            span = _before(span, windows)
            if here:
                _widen(needed, here - 1, span)
                continue
            first, last = _before(span, shape.entrance())
            return last - first + 1
        span = _before(span, shape.inside(kind))
        for parent in shape.blocks[here - stem].parents:
            change = levels[here] - levels[parent]
            reached = (
                _before(span, shape.down(change)) if change > 0 else (span[0] >> -change, span[1] >> -change)
            )
            _widen(needed, parent, reached)
        for earlier in shape.blocks[here - stem].merged:
            _widen(needed, earlier, span)
    raise AssertionError("a graph's outputs read its stem")


def _before(span: tuple[int, int], windows: Sequence[Window]) -> tuple[int, int]:
    """The cells that a run of cells is computed from, layer by layer backwards."""
    first, last = span
    for window in reversed(windows):
        first = first * window.stride - window.kernel // 2
        last = last * window.stride + window.kernel // 2
    return first, last


def _widen(needed: dict[int, tuple[int, int]], place: int, span: tuple[int, int]) -> None:
    first, last = needed.get(place, span)
    needed[place] = (min(first, span[0]), max(last, span[1]))
