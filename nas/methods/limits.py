"""What a candidate may cost at most: the limits that need no clock. Torch-free."""

from nas.recipes.one_search import LimitsRecipe
from search_spaces.architecture import Architecture
from search_spaces.cost import Cost, cost
from search_spaces.space import SearchSpace


class Limits:
    """Candidate -> the sentence that rejects it, or None.

    Args:
        space: gives the baseline, and what it rejects itself.
        recipe: limits in the baseline's cost; that of latency is measured elsewhere and only named here.
        image_size: (height, width) px at which multiply-adds are counted.
    """

    def __init__(self, space: SearchSpace, recipe: LimitsRecipe, image_size: tuple[int, int]) -> None:
        self._space, self._recipe, self._size = space, recipe, image_size
        self._base: Cost = cost(space.baseline, image_size)

    @property
    def any(self) -> bool:
        """Whether anything can be rejected at all."""
        limited = (self._recipe.params, self._recipe.macs, self._recipe.latency) != (None, None, None)
        return limited or self._space.limits is not None

    def __call__(self, architecture: Architecture) -> str | None:
        if (reason := self._space.limit(architecture)) is not None:
            return reason
        if self._recipe.params is None and self._recipe.macs is None:
            return None
        found = cost(architecture, self._size)
        for name in ("params", "macs"):
            allowed = getattr(self._recipe, name)
            spent, base = getattr(found, name), getattr(self._base, name)
            if allowed is not None and spent > allowed * base:
                return f"{name}: {spent:,} are {spent / base:.2f} of the baseline's, the limit is {allowed:g}"
        return None

    def __str__(self) -> str:
        parts = [
            f"{name} up to {value:g} of the baseline's"
            for name in ("params", "macs", "latency")
            if (value := getattr(self._recipe, name)) is not None
        ]
        return ", ".join([*parts, *([self._space.limits] if self._space.limits is not None else [])])
