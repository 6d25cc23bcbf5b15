"""From the ``space`` section of a ``search`` recipe to a space, the catalog's or a person's own. Torch-free."""

from nas.recipe import AnySpaceRecipe, LimitsRecipe, OnePhaseRecipe, SearchRecipe
from search_spaces.architecture import Architecture
from search_spaces.catalog import get_space
from search_spaces.cost import Cost, cost
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.space import SearchSpace
from search_spaces.targets import load_subclass, make


def one_phase_recipe(recipe: SearchRecipe) -> OnePhaseRecipe:
    """The recipe as that of the method ``search``, which it is wherever this is asked."""
    assert isinstance(recipe, OnePhaseRecipe)
    return recipe


def any_space(recipe: AnySpaceRecipe) -> SearchSpace:
    """The space of a recipe.

    Raises:
        ConfigError: an unknown name, a target that is no space, or options that it does not take.
    """
    if recipe.target is None:
        assert recipe.name is not None, "a recipe has a name or a target"
        try:
            return get_space(recipe.name)
        except InvalidArchitecture as error:
            raise ConfigError(f"space.name: {error}") from error
    try:
        kind = load_subclass(recipe.target, SearchSpace, "space")
    except ConfigError as error:
        raise ConfigError(f"space.target: {error}") from error
    try:
        return make(kind, recipe.options, name=kind.__name__, given={})
    except ConfigError as error:
        raise ConfigError("\n".join(f"space.{line}" for line in str(error).splitlines())) from error


class CostLimits:
    """Candidate -> the sentence that rejects it, or None.

    Args:
        space: gives the baseline.
        recipe: limits in the baseline's cost.
        image_size: (height, width) px at which multiply-adds are counted.
    """

    def __init__(self, space: SearchSpace, recipe: LimitsRecipe, image_size: tuple[int, int]) -> None:
        self._size = image_size
        self._base: Cost = cost(space.baseline, image_size)
        self._allowed = {
            name: value for name in ("params", "macs") if (value := getattr(recipe, name)) is not None
        }

    @property
    def any(self) -> bool:
        """Whether anything can be rejected at all."""
        return bool(self._allowed)

    def __call__(self, architecture: Architecture) -> str | None:
        if not self._allowed:
            return None
        found = cost(architecture, self._size)
        for name, allowed in self._allowed.items():
            spent, base = getattr(found, name), getattr(self._base, name)
            if spent > allowed * base:
                return f"{name}: {spent:,} are {spent / base:.2f} of the baseline's, the limit is {allowed:g}"
        return None

    def __str__(self) -> str:
        return ", ".join(f"{name} up to {value:g} of the baseline's" for name, value in self._allowed.items())
