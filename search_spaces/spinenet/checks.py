"""The door of a space of scale-permuted networks: its options, and what members share with the baseline."""

from collections.abc import Collection, Sequence
from typing import Literal

from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidArchitecture
from search_spaces.gene import as_integers, is_integer
from search_spaces.spinenet.graph import HIGHEST, LOWEST

Dead = Literal["connect", "allow", "limit"]
DEAD: tuple[Dead, ...] = ("connect", "allow", "limit")
"""What becomes of blocks that lead nowhere; see :class:`~search_spaces.spinenet.space.SpineNetSpace`."""


def check_options(space: str, baseline: Architecture, window: int | None, dead: Dead, *, types: bool) -> None:
    """Check the options that stand alone.

    Raises:
        InvalidArchitecture: names the option, what was found and what is allowed.
    """
    if baseline.family not in ("spinenet", "spinenet.mobile"):
        raise InvalidArchitecture(
            f"{space}: baseline: found family {baseline.family!r}; allowed are 'spinenet' and 'spinenet.mobile'"
        )
    if types and "types" not in baseline.genes:
        raise InvalidArchitecture(
            f"{space}: types: found them free, but all blocks of the family {baseline.family} are of one type; "
            "leave them out"
        )
    if window is not None and (not is_integer(window) or window < 2):
        raise InvalidArchitecture(
            f"{space}: window: found {window!r}; allowed are integers from 2, as a block has two parents, or None "
            "for all earlier blocks"
        )
    if dead not in DEAD:
        raise InvalidArchitecture(f"{space}: dead: found {dead!r}; allowed are {', '.join(DEAD)}")


def checked_base(
    space: str, intermediates: Sequence[int], count: int, deltas: Sequence[int]
) -> tuple[int, ...]:
    """Levels of the base blocks, ascending.

    Args:
        space: its name.
        intermediates: one level a block, in any order.
        count: how many intermediate blocks there are.
        deltas: adjustments of each level, all of which must keep it in 1 to 7.

    Raises:
        InvalidArchitecture: no list of integers, another number of them, or a level that is not allowed.
    """
    where = f"{space}: intermediates"
    try:
        base = tuple(sorted(as_integers(intermediates)))
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{where}: {error}") from error
    if len(base) != count:
        raise InvalidArchitecture(
            f"{where}: found {len(base)} levels {list(base)}; needed is one for each of the {count} intermediate "
            "blocks of the baseline"
        )
    lowest, highest = LOWEST - deltas[0], HIGHEST - deltas[-1]
    if wrong := [level for level in base if not lowest <= level <= highest]:
        reason = f", so that adjustments of {list(deltas)} stay in {LOWEST} to {HIGHEST}"
        raise InvalidArchitecture(
            f"{where}: found level {wrong[0]}; allowed are {lowest} to {highest}"
            f"{reason if len(deltas) > 1 else ''}"
        )
    return base


def check_settings(space: str, architecture: Architecture, baseline: Architecture) -> None:
    """Check that family, version and settings are the baseline's.

    Raises:
        InvalidArchitecture: they are not; names the first difference.
    """
    for what in ("family", "version"):
        found, needed = getattr(architecture, what), getattr(baseline, what)
        if found != needed:
            raise InvalidArchitecture(f"{space}: found {what} {found!r}; this space has {needed!r} only")
    if architecture.settings == baseline.settings:
        return
    for key in sorted({*architecture.settings, *baseline.settings}):
        if key not in baseline.settings:
            raise InvalidArchitecture(f"{space}: settings.{key}: there is no such setting in this space")
        if key not in architecture.settings:
            raise InvalidArchitecture(
                f"{space}: settings.{key} is missing; this space has {baseline.settings[key]!r} only"
            )
        found, needed = architecture.settings[key], baseline.settings[key]
        # 1 and 1.0 are equal in Python and differ in the digest.
        if (type(found), found) != (type(needed), needed):
            raise InvalidArchitecture(
                f"{space}: settings.{key}: found {found!r}; this space has {needed!r} only"
            )


def check_held(
    space: str, architecture: Architecture, baseline: Architecture, places: range, held: Collection[str]
) -> None:
    """Check that there are as many blocks as in the baseline, and that what is held has its values.

    Args:
        space: its name.
        architecture: a valid one with the baseline's settings.
        baseline: of the space.
        places: of the permuted blocks.
        held: genes of the architecture that are not free.

    Raises:
        InvalidArchitecture: names the first block that differs.
    """
    found, needed = architecture.genes, baseline.genes
    levels = found["levels"]
    assert isinstance(levels, tuple)
    if len(levels) != len(places):
        raise InvalidArchitecture(
            f"{space}: levels: found {len(levels)} permuted blocks; this space has {len(places)}"
        )
    for name in held:
        ours, theirs = found[name], needed[name]
        assert isinstance(ours, tuple) and isinstance(theirs, tuple)
        for place, value, other in zip(places, ours, theirs, strict=True):
            if value != other:
                raise InvalidArchitecture(
                    f"{space}: {name}: found {_text(value)} at block {place}; {name} are not free here, allowed is "
                    f"{_text(other)}"
                )


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)
