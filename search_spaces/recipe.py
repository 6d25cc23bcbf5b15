"""What every configuration class inherits: unknown keys are errors and nothing is cast in silence."""

from typing import Any, ClassVar


class Recipe:
    """Base of the frozen, keyword-only dataclasses that a recipe file fills.

    pydantic reads ``__pydantic_config__`` when ``nas.config`` checks a file at the door; the classes
    themselves stay plain dataclasses. ``__post_init__`` raises :class:`ValueError` for what types cannot say.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
    }
