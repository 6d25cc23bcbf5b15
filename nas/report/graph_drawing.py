"""A scale-permuted network as a graph: blocks by their order and their level, wires from parents to children.

The picture of Du et al. 2020 (arXiv 1912.05027, figures 3 and 4): order from left to right, one row a level,
coarse levels above. Shown is the network as it is built, so what the rule for unread blocks adds is there too
(``search_spaces.spinenet.wiring``). Lengths are in user units of the SVG, of which a page shows about one a pixel.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

from nas.report.data import Contender
from nas.report.formatting import escape, large, several
from search_spaces.architecture import Architecture
from search_spaces.spinenet.family import MOBILE_SPINENET, SPINENET, GraphFamily
from search_spaces.spinenet.graph import Kind, Node

LEAD = (
    "Blocks stand in their order from left to right, each on the level of its feature map, and wires lead from what "
    "a block reads to the block. Dashed wires were added for blocks that nothing read."
)
"""How to read the drawing, for the section's head."""

_FAMILIES: dict[str, GraphFamily] = {family.name: family for family in (SPINENET, MOBILE_SPINENET)}
_KINDS: dict[Kind, str] = {
    "bottleneck": "bottleneck",
    "residual": "residual",
    "mbconv": "inverted bottleneck",
}
_LABEL, _RIGHT, _TOP = 60, 24, 4
_NARROW = 400
"""Below this width rows are lower, so that a phone shows the whole graph."""
_LETTER = 6.1
"""Mean advance of a letter at 12 units, on the safe side."""

Point = tuple[float, float]


@dataclass(frozen=True)
class _Wire:
    """From the place ``parent`` to ``child``; ``how`` says why the rule for unread blocks added it, else empty."""

    parent: int
    child: int
    how: str = ""


@dataclass(frozen=True)
class _Network:
    """What is drawn: places with stem blocks first, the wires between them, places that lead to no output."""

    nodes: tuple[Node, ...]
    stem: int
    wires: tuple[_Wire, ...]
    dead: frozenset[int]

    def look(self, place: int) -> str:
        """``"dead"``, ``"stem"``, ``"output"`` or ``"inner"``."""
        if place in self.dead:
            return "dead"
        return "stem" if place < self.stem else "output" if self.nodes[place].output else "inner"

    def title(self, place: int) -> str:
        """What hovering shows and a screen reader says."""
        node = self.nodes[place]
        kind = f"{_KINDS[node.kind]} in the stem" if place < self.stem else _KINDS[node.kind]
        read = [wire.parent for wire in self.wires if wire.child == place]
        parts = [f"block {place}: {kind}, level {node.level}, stride {2**node.level}"]
        parts += [f"reads {' and '.join(map(str, read))}"] if read else []
        parts += [f"output P{node.level}"] if node.output else []
        if place in self.dead:
            is_read = any(wire.parent == place for wire in self.wires)
            parts.append(f"dead, {'only dead blocks read' if is_read else 'nothing reads'} it")
        return ", ".join(parts)


@dataclass(frozen=True)
class _Layout:
    """Where things stand; ``side`` is that of a bottleneck's box, ``highest`` and ``lowest`` are levels."""

    width: int
    columns: int
    lowest: int
    highest: int

    @property
    def pitch(self) -> float:
        return (self.width - _LABEL - _RIGHT) / self.columns

    @property
    def side(self) -> float:
        return min(24.0, 0.7 * self.pitch)

    @property
    def row(self) -> int:
        return 38 if self.width < _NARROW else 46

    @property
    def bottom(self) -> float:
        """Lower end of the rows."""
        return _TOP + self.row * (self.highest - self.lowest + 1)

    def x(self, place: int) -> float:
        return _LABEL + (place + 0.5) * self.pitch

    def y(self, level: int) -> float:
        return _TOP + (self.highest - level + 0.5) * self.row


def network(contender: Contender, *, role: str, other: Contender | None, width: int) -> str:
    """The drawing of one network as SVG.

    Args:
        contender: the network, of the family ``spinenet`` or ``spinenet.mobile``.
        role: ``"winner"`` or ``"baseline"``, its colour.
        other: a network of these families drawn beside it; both get the same rows and columns.
        width: in user units.
    """
    drawn = _read(contender.architecture)
    beside = [drawn] if other is None else [drawn, _read(other.architecture)]
    levels = [node.level for one in beside for node in one.nodes]
    layout = _Layout(width, max(len(one.nodes) for one in beside), min(levels), max(levels))
    places = range(len(drawn.nodes))
    key, height = _key(drawn, role, width=width, top=layout.bottom + 32)
    parts = [
        *_axes(drawn, layout),
        *(_drawn_wire(drawn, layout, wire, role) for wire in drawn.wires),
        *(
            _exit(layout, place, drawn.nodes[place].level, role)
            for place in places
            if drawn.nodes[place].output
        ),
        *(_block(drawn, layout, place, role) for place in places),
        *key,
    ]
    described = "; ".join(drawn.title(place) for place in places)
    label = escape(f"{contender.name}: {described}")
    return f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def caption(contender: Contender) -> str:
    """Blocks by type, dead ones, added wires, parameters and MACs in one line of HTML."""
    drawn = _read(contender.architecture)
    kinds = [node.kind for node in drawn.nodes[drawn.stem :]]
    by_kind = ", ".join(f"{kinds.count(kind)} {name}" for kind, name in _KINDS.items() if kind in kinds)
    added = sum(bool(wire.how) for wire in drawn.wires)
    height, width = contender.input_size
    parts = [
        f"{several(drawn.stem, 'stem block')} and {len(kinds)} permuted: {by_kind}",
        *([several(len(drawn.dead), "dead block")] if drawn.dead else []),
        *([several(added, "added wire")] if added else []),
        f"{large(contender.params)} parameters",
        f"{large(contender.macs)} MACs at {height} × {width}",
    ]
    return escape(" · ".join(parts))


@cache
def _read(architecture: Architecture) -> _Network:
    family = _FAMILIES[architecture.family]
    graph = family.graph(architecture)
    wires = [_Wire(before, after) for before, after in pairwise(range(graph.stem))]
    for place, block in zip(graph.permuted, family.shape(architecture).blocks, strict=True):
        own = graph.nodes[place].parents
        wires += [
            _Wire(parent, place, "" if parent in own else "resampled, because nothing read it")
            for parent in block.parents
        ]
        wires += [_Wire(parent, place, "as it is, because nothing had read it") for parent in block.merged]
    return _Network(graph.nodes, graph.stem, tuple(wires), frozenset(family.dead(architecture)))


def _axes(drawn: _Network, layout: _Layout) -> Iterator[str]:
    """A line and a name for each level, a number for each place."""
    for level in range(layout.lowest, layout.highest + 1):
        y = layout.y(level)
        yield f'<line class="gridline" x1="{_LABEL}" x2="{layout.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="strong" x="0" y="{y - 2:.1f}">level {level}</text>'
        yield f'<text class="small" x="0" y="{y + 12:.1f}">stride {2**level}</text>'
    yield f'<text class="small" x="0" y="{layout.bottom + 11:.1f}">block</text>'
    # Two figures need about 13 units; where the pitch is narrower every second place is named.
    for place in range(0, len(drawn.nodes), 1 if layout.pitch >= 16 else 2):
        yield (
            f'<text class="small" x="{layout.x(place):.1f}" y="{layout.bottom + 11:.1f}" '
            f'text-anchor="middle">{place}</text>'
        )


def _exit(layout: _Layout, place: int, level: int, role: str) -> str:
    """The line from an output block to its name at the right edge; no later block stands on that row."""
    x, y, end = layout.x(place), layout.y(level), layout.width - _RIGHT + 4
    return (
        f'<line class="s-{role}" x1="{x:.1f}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="f-{role} halo" x="{end + 3}" y="{y + 4:.1f}">P{level}</text>'
    )


def _block(drawn: _Network, layout: _Layout, place: int, role: str) -> str:
    node, look = drawn.nodes[place], drawn.look(place)
    shape = _shape(node.kind, look, layout.x(place), layout.y(node.level), layout.side, role)
    return f'<g class="block {look}"><title>{escape(drawn.title(place))}</title>{shape}</g>'


def _shape(kind: Kind, look: str, x: float, y: float, side: float, role: str) -> str:
    """A square for a bottleneck, a diamond for a residual block, a disc for an inverted bottleneck."""
    style = {
        "stem": 'class="f-soft"',
        "inner": f'class="w-{role} s-{role}" stroke-width="1.2"',
        "output": f'class="f-{role}"',
        "dead": 'class="w-card s-soft" stroke-width="1.2"',
    }[look]
    half = side / 2
    if kind == "bottleneck":
        drawn = f'<rect {style} x="{x - half:.1f}" y="{y - half:.1f}" width="{side:.1f}" height="{side:.1f}" rx="2"/>'
    elif kind == "residual":
        r = 0.68 * side
        drawn = f'<path {style} d="M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}-{r:.1f} {r:.1f}-{r:.1f}-{r:.1f}z"/>'
    else:
        drawn = f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{0.56 * side:.1f}"/>'
    if look != "dead":
        return drawn
    arm, full = 0.28 * side, 0.56 * side
    cross = f"M{x - arm:.1f} {y - arm:.1f}l{full:.1f} {full:.1f}m0 -{full:.1f}l-{full:.1f} {full:.1f}"
    return f'{drawn}<path class="n s-soft" stroke-width="1.5" d="{cross}"/>'


def _drawn_wire(drawn: _Network, layout: _Layout, wire: _Wire, role: str) -> str:
    start, end = (layout.x(wire.parent), layout.y(drawn.nodes[wire.parent].level)), _port(drawn, layout, wire)
    # Curves run from edge to edge; the straight ends under the blocks hide what shape the blocks have.
    first, last = (start[0] + layout.side / 2, start[1]), (end[0] - layout.side / 2, end[1])
    between = [
        (layout.x(place), layout.y(drawn.nodes[place].level)) for place in range(wire.parent + 1, wire.child)
    ]
    one, two = _clear_of(between, first, last, layout)
    path = (
        f"M{start[0]:.1f} {start[1]:.1f}H{first[0]:.1f}"
        f"C{one[0]:.1f} {one[1]:.1f} {two[0]:.1f} {two[1]:.1f} {last[0]:.1f} {last[1]:.1f}H{end[0]:.1f}"
    )
    title = f"block {wire.parent} → block {wire.child}" + (f", added {wire.how}" if wire.how else "")
    if wire.how:
        style = f'class="n s-{role} wire added" stroke-width="1.6" stroke-dasharray="4 3"'
    else:
        opacity = 0.35 if wire.child in drawn.dead else 0.75
        style = f'class="n s-soft wire" stroke-width="1.2" stroke-opacity="{opacity}"'
    return f'<path {style} d="{path}"><title>{escape(title)}</title></path>'


def _port(drawn: _Network, layout: _Layout, wire: _Wire) -> Point:
    """Where a wire enters: those from above enter above, so that they do not cross at the block."""
    entering = sorted(
        (one for one in drawn.wires if one.child == wire.child),
        key=lambda one: (-drawn.nodes[one.parent].level, one.parent),
    )
    step = min(5.0, 0.7 * layout.side / len(entering))
    offset = (entering.index(wire) - (len(entering) - 1) / 2) * step
    return layout.x(wire.child), layout.y(drawn.nodes[wire.child].level) + offset


_BENDS = sorted(
    product((0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5), (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5), (0.5, 0.25, 0.8)),
    key=lambda bend: abs(bend[0]) + abs(bend[1]) + 0.5 * abs(bend[0] - bend[1]) + abs(bend[2] - 0.5),
)
"""Shapes of a wire, straightest first: rows by which its control points leave the rows of its ends, and the share
of its length at which they stand."""


def _clear_of(between: Sequence[Point], first: Point, last: Point, layout: _Layout) -> tuple[Point, Point]:
    """Control points of the straightest curve that keeps clear of the blocks between its ends.

    Where none does, the one that touches fewest.
    """
    best, fewest = ((0.0, 0.0), (0.0, 0.0)), len(between) + 1
    # A wire that only just misses a block reads as if it ended there.
    reach = 0.68 * layout.side + 1.5
    length = last[0] - first[0]
    for rise, fall, share in _BENDS:
        one = (first[0] + share * length, first[1] + rise * layout.row)
        two = (last[0] - share * length, last[1] + fall * layout.row)
        spots = list(_along(first, one, two, last))
        if not all(_TOP <= y <= layout.bottom for _, y in spots):
            continue
        touched = sum(
            any(abs(x - bx) < reach and abs(y - by) < reach for x, y in spots) for bx, by in between
        )
        if touched < fewest:
            best, fewest = (one, two), touched
        if not touched:
            break
    return best


def _along(first: Point, one: Point, two: Point, last: Point) -> Iterator[Point]:
    """Points of a cubic Bézier curve, close enough together that no block fits between two."""
    steps = 4 + int((abs(last[0] - first[0]) + abs(last[1] - first[1])) / 5)
    for step in range(steps + 1):
        t = step / steps
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        yield (
            a * first[0] + b * one[0] + c * two[0] + d * last[0],
            a * first[1] + b * one[1] + c * two[1] + d * last[1],
        )


def _key(drawn: _Network, role: str, *, width: int, top: float) -> tuple[list[str], float]:
    """What the shapes in use mean, in as many lines as needed, and where the last line ends."""
    parts: list[str] = []
    x, y = 0.0, top
    for sign, text in _signs(drawn, role):
        room = 24 + _LETTER * len(text)
        if x and x + room > width:
            x, y = 0.0, y + 19
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{sign}<text x="22" y="4">{text}</text></g>')
        x += room + 12
    return parts, y + 10


def _signs(drawn: _Network, role: str) -> Iterable[tuple[str, str]]:
    permuted = [node.kind for node in drawn.nodes[drawn.stem :]]
    for kind, name in _KINDS.items():
        if kind in permuted:
            yield _shape(kind, "inner", 10, 0, 12, role), name
    yield _shape(drawn.nodes[0].kind, "stem", 10, 0, 12, role), "stem"
    yield _shape(permuted[0], "output", 10, 0, 12, role), "output"
    if drawn.dead:
        kind = drawn.nodes[min(drawn.dead)].kind
        yield _shape(kind, "dead", 10, 0, 12, role), "dead: leads to no output"
    if any(wire.how for wire in drawn.wires):
        dashes = f'class="n s-{role}" stroke-width="1.6" stroke-dasharray="4 3"'
        yield f'<path {dashes} d="M1 0h17"/>', "added from an unread block"
