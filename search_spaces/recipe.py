"""What every configuration class inherits: unknown keys are errors and nothing is cast in silence."""

from typing import Any, ClassVar


class FieldError(ValueError):
    """One field's value makes no sense; ``nas.config`` turns it into a line with file and path.

    Args:
        field: its name.
        found: its value.
        remedy: what it may be, or what to do.
    """

    def __init__(self, field: str, found: object, remedy: str) -> None:
        super().__init__(f"{field}: found {found!r}; {remedy}")
        self.field, self.found, self.remedy = field, found, remedy


class Recipe:
    """Base of the frozen, keyword-only dataclasses that a recipe file fills.

    pydantic reads ``__pydantic_config__`` when ``nas.config`` checks a file at the door; the classes
    themselves stay plain dataclasses. ``__post_init__`` calls :meth:`require` for what types cannot say.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
    }
    __why__: ClassVar[dict[str, str]] = {}
    """Field -> why it allows no more, said after what it allows where another word was found."""

    def require(self, field: str, fits: bool, allowed: str) -> None:
        """Check a field's value.

        Args:
            field: its name.
            fits: whether the value makes sense.
            allowed: what it may be, after "allowed is".

        Raises:
            FieldError: it does not.
        """
        if not fits:
            raise FieldError(field, getattr(self, field), f"allowed is {allowed}")
