"""Seeds and generators that depend on their path alone, in every process and on every machine."""

import hashlib
import json
import random


def seed_for(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one purpose, for example ``seed_for(7, "completion", level, batch)``.

    Args:
        seed: of the run.
        path: what the randomness is for; two different paths give unrelated seeds, and ``1`` is not ``"1"``.
    """
    text = json.dumps([seed, *path], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(seed: int, *path: int | str) -> random.Random:
    """A fresh generator seeded by :func:`seed_for`."""
    return random.Random(seed_for(seed, *path))
