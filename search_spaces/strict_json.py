"""JSON of a file that somebody else may have written: read within bounds, or refused with a sentence.

Python's reader takes a key twice, ``NaN`` and any depth; a file that describes a network needs none of them.
"""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from search_spaces.errors import RunError

DEPTH = 32
"""Lists and objects within each other, at most; those of a bundle have fewer than ten."""
_DIGITS = 19
_HALF = re.compile("[\ud800-\udfff]")


def parse_json(content: bytes, source: Path | str, *, limit: int) -> Any:
    """Plain data of a JSON text.

    Args:
        content: UTF-8.
        source: named in the message, usually the file.
        limit: bytes that it may have at most.

    Raises:
        RunError: longer, deeper than :data:`DEPTH`, no JSON, a key twice, half a character, or a number that is not
            finite or has more digits than 64 bits hold.
    """
    if len(content) > limit:
        raise RunError(f"{source}: is {len(content):,} bytes of JSON; allowed are {limit:,}")
    try:
        data = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise RunError(f"{source}: {_TOO_DEEP}") from None
    except ValueError as error:
        raise RunError(f"{source}: cannot be read as JSON: {error}") from error
    _check_depth(data, source)
    # Half a character (``\ud800``) is a string to Python that nothing can write or print.
    if b"\\u" in content and _HALF.search(json.dumps(data, ensure_ascii=False)):
        raise RunError(
            f"{source}: cannot be read as JSON: a string holds half a character (a lone surrogate)"
        )
    return data


_TOO_DEEP = f"lists and objects lie in each other more than {DEPTH} deep"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # In one pass: a file of megabytes may hold one pair of them at its end.
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} stands in one object twice")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is not finite")
    return number


def _whole(text: str) -> int:
    if len(text.removeprefix("-")) > _DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _check_depth(data: Any, source: Path | str) -> None:
    level = [data]
    for _ in range(DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise RunError(f"{source}: {_TOO_DEEP}")
