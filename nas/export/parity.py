"""How far what was exported is from the network it was made of, and how far it may be."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.errors import RunError

MAPS = 1e-5
"""Largest difference of a feature map, over its largest value."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison with the network in PyTorch.

    Attributes:
        of: what was compared: a level, ``boxes`` and so on.
        difference: the largest found.
        limit: the largest allowed.
        unit: of both.
        values: PyTorch's and the file's, where each is one number.
    """

    of: str
    difference: float
    limit: float
    unit: str
    values: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One exported file that has been compared and found equal.

    Attributes:
        format: that it is in.
        file: relative to the export's folder.
        holds: backbone or detector.
        bytes: of the file.
        accepts: what may be put in, as a sentence.
        checks: how it was compared; empty where it is no network but says how to build one.
        on: what it was compared on.
    """

    format: str
    file: str
    holds: str
    bytes: int
    accepts: str
    checks: tuple[Check, ...]
    on: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def compare_maps(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, name: str, of: str
) -> tuple[Check, ...]:
    """Compare feature maps level by level.

    Args:
        wanted: of the network in PyTorch.
        found: of what was exported.
        name: of the format.
        of: file that was run.

    Raises:
        RunError: names format, level and difference.
    """
    checks = []
    for level, one in wanted.items():
        other = found[level].to(one.dtype)
        if other.shape != one.shape:
            raise RunError(
                f"{name}: {of} gives {level} as {tuple(other.shape)}, not {tuple(one.shape)}; nothing was exported"
            )
        largest = float(one.abs().max())
        off = float((other - one).abs().max())
        difference = off / largest if largest else off
        # Written so that NaN fails.
        if not difference <= MAPS:
            raise RunError(
                f"{name}: {of} is {difference:.2g} of its largest value off at level {level}, allowed is {MAPS:g}; "
                "nothing was exported"
            )
        checks.append(Check(of=level, difference=difference, limit=MAPS, unit="of the largest value"))
    return tuple(checks)


def worst(checks: Iterator[tuple[Check, ...]]) -> tuple[Check, ...]:
    """Of several comparisons of the same things the worst of each."""
    found: dict[str, Check] = {}
    for some in checks:
        for one in some:
            if one.of not in found or one.difference > found[one.of].difference:
                found[one.of] = one
    return tuple(found.values())


@contextmanager
def kept_if_equal(path: Path) -> Iterator[Path]:
    """A file that goes again where its check, or anything before it, fails."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def taller_and_wider(images: Tensor, step: int) -> Tensor:
    """The images with ``step`` px of zeros below and twice as many at the right: another size to be run at."""
    return torch.nn.functional.pad(images, (0, 2 * step, 0, step))
