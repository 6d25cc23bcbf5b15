"""A network block by block: one row a stage, one box a block, the kernel's taps spread by its dilation."""

from dataclasses import dataclass

from nas.report.data import Contender
from nas.report.formatting import count, escape, large

LEAD = (
    "One row a stage, one box a block. The nine dots are the taps of its 3 × 3 kernel, spread by the dilation, which "
    "is the number below."
)
"""How to read the drawing, for the section's head."""

_GAP, _LABEL = 6, 112


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Side of a block's box and how many boxes stand in one line."""

    box: int
    per_line: int

    @property
    def pitch(self) -> int:
        return self.box + _GAP

    @property
    def line_height(self) -> int:
        return self.box + 20


def stages_of(contender: Contender) -> tuple[tuple[int, ...], ...]:
    """The dilations of each stage's blocks; empty for a family without ``blocks`` and ``dilations``."""
    genes = contender.architecture.genes
    blocks, dilations = genes.get("blocks"), genes.get("dilations")
    if not isinstance(blocks, tuple) or not isinstance(dilations, tuple):
        return ()
    rest, stages = [int(str(dilation)) for dilation in dilations], []
    for blocks_here in blocks:
        stages.append(tuple(rest[: int(str(blocks_here))]))
        rest = rest[int(str(blocks_here)) :]
    return tuple(stages)


def network(contender: Contender, *, role: str, other: Contender | None, width: int) -> str:
    """The drawing of one network as SVG.

    Args:
        contender: the network.
        role: ``"winner"`` or ``"baseline"``, its colour.
        other: a network drawn beside it; rows get the same height, and the winner's counts are marked where
            they differ.
        width: in user units.
    """
    stages = stages_of(contender)
    beside = stages_of(other) if other is not None else stages
    rows = [
        (dilations, len(beside[index]) if index < len(beside) else len(dilations))
        for index, dilations in enumerate(stages)
    ]
    layout = _layout(max(max(len(dilations), others) for dilations, others in rows), width)
    parts, top = [], 2
    for index, (dilations, others) in enumerate(rows):
        parts.append(_label(contender, index, len(dilations), others if role == "winner" else None, top=top))
        parts += [
            _block(
                dilation,
                left=_LABEL + position % layout.per_line * layout.pitch,
                top=top + position // layout.per_line * layout.line_height,
                side=layout.box,
                role=role,
                title=f"stage {index + 1}, block {position + 1}: dilation {dilation}",
            )
            for position, dilation in enumerate(dilations)
        ]
        lines = -(-max(len(dilations), others, 1) // layout.per_line)
        top += lines * layout.line_height + 14
    described = "; ".join(
        f"stage {index + 1}: dilations {', '.join(map(str, dilations))}"
        for index, dilations in enumerate(stages)
    )
    head = f'<svg viewBox="0 0 {width} {top - 12}" role="img" aria-label="{escape(contender.name)}: {described}">'
    return f"{head}{''.join(parts)}</svg>"


def _layout(most: int, width: int) -> _Layout:
    """Boxes as large as lets the longest stage stand in one line, or the smallest in several."""
    room = width - _LABEL + _GAP
    for box in (50, 44, 38):
        if most * (box + _GAP) <= room:
            return _Layout(box=box, per_line=most)
    return _Layout(box=36, per_line=room // (36 + _GAP))


def _label(contender: Contender, index: int, blocks: int, others: int | None, *, top: int) -> str:
    level = contender.levels[index] if index < len(contender.levels) else None
    name = level.name.upper() if level is not None else f"stage {index + 1}"
    sizes = f"stride {level.stride} · {level.channels} ch" if level is not None else ""
    difference = blocks - others if others is not None else 0
    mark = f" ({difference:+d})".replace("-", "−") if difference else ""
    return (
        f'<text class="strong" x="0" y="{top + 13}">{escape(name)}</text>'
        f'<text x="0" y="{top + 29}">{count(blocks)} block{"s" if blocks != 1 else ""}'
        f'<tspan class="f-winner" font-weight="600">{mark}</tspan></text><text x="0" y="{top + 45}">{sizes}</text>'
    )


def _block(dilation: int, *, left: int, top: int, side: int, role: str, title: str) -> str:
    centre_x, centre_y = left + side / 2, top + side / 2
    # Beyond 3 the taps would leave the box; the number below still tells.
    step = min(dilation, 3) * side / 9
    taps = "".join(
        f'<circle class="f-{role}" cx="{centre_x + dx * step:.1f}" cy="{centre_y + dy * step:.1f}" r="2"/>'
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    )
    strong = ' class="strong"' if dilation > 1 else ""
    return (
        f'<g><title>{escape(title)}</title><rect class="w-{role}" x="{left}" y="{top}" width="{side}" '
        f'height="{side}" rx="7"/>{taps}<text{strong} x="{centre_x:.1f}" y="{top + side + 14}" '
        f'text-anchor="middle">{dilation}</text></g>'
    )


def caption(contender: Contender) -> str:
    """Block counts, parameters and MACs in one line of HTML."""
    counts = ", ".join(str(len(dilations)) for dilations in stages_of(contender))
    height, width = contender.input_size
    return escape(
        f"[{counts}] · {large(contender.params)} parameters · {large(contender.macs)} MACs at {height} × {width}"
    )
