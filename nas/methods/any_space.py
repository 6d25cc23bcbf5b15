"""From the ``space`` section of a ``search`` recipe to a space, the catalog's or a person's own. Torch-free."""

from nas.recipes.any_space import AnySpaceRecipe, OnePhaseRecipe
from nas.recipes.search import SearchRecipe
from search_spaces.catalog import get_space
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
