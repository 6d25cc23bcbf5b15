"""From the ``space`` section of a SpineNet recipe to the space and the narrow networks. Torch-free."""

from dataclasses import replace

from nas.recipes.one_search import ShortTrainingRecipe
from nas.recipes.search import SearchRecipe
from nas.recipes.spinenet import SpineNetRecipe, SpineNetSpaceRecipe
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.spinenet.space import SpineNetSpace
from search_spaces.spinenet.zoo import with_settings

_SETTINGS = ("filter_size_scale", "alpha", "repeats", "endpoint", "activation")


def spinenet_recipe(recipe: SearchRecipe) -> SpineNetRecipe:
    """The recipe as that of SpineNet, which it is wherever this is asked."""
    assert isinstance(recipe, SpineNetRecipe)
    return recipe


def baseline_network(recipe: SpineNetSpaceRecipe) -> Architecture:
    """The published network with the recipe's widths.

    Raises:
        ConfigError: not a scale-permuted network, or settings that it refuses.
    """
    try:
        named = get_architecture(recipe.baseline)
        if named.family not in ("spinenet", "spinenet.mobile"):
            raise ConfigError(
                f"space.baseline: found {recipe.baseline!r} of the family {named.family}; allowed are the networks "
                "of the families spinenet and spinenet.mobile, for example r0_sp53 or spinenet49_mobile"
            )
        changes = {name: value for name in _SETTINGS if (value := getattr(recipe, name)) is not None}
        for name, value in changes.items():
            if name not in named.settings:
                raise ConfigError(
                    f"space.{name}: found {value!r}, but {recipe.baseline} has no such setting; leave it out"
                )
        architecture = with_settings(named, changes)
        family_of(architecture).validate(architecture)
    except InvalidArchitecture as error:
        raise ConfigError(f"space: {error}") from error
    return architecture


def spinenet_space(recipe: SpineNetSpaceRecipe) -> SpineNetSpace:
    """The space of a recipe.

    Raises:
        ConfigError: settings that give no space.
    """
    try:
        return SpineNetSpace(
            f"spinenet.{recipe.baseline}",
            baseline_network(recipe),
            window=recipe.window,
            dead=recipe.dead,
            permutation="permutation" in recipe.free,
            connections="connections" in recipe.free,
            levels="levels" in recipe.free,
            types="types" in recipe.free,
        )
    except InvalidArchitecture as error:
        raise ConfigError(f"space: {error}") from error


def narrowed(architecture: Architecture, recipe: ShortTrainingRecipe) -> Architecture:
    """The network that is trained in a candidate's place: fewer channels, the same graph.

    Raises:
        ConfigError: an ``alpha`` for a network without that setting.
    """
    settings = dict(architecture.settings)
    scale = settings["filter_size_scale"]
    assert isinstance(scale, float)
    settings["filter_size_scale"] = scale * recipe.width
    if recipe.alpha is not None:
        if "alpha" not in settings:
            raise ConfigError(
                f"alpha: found {recipe.alpha!r}, but networks of the family {architecture.family} have no such "
                "setting; leave it out"
            )
        settings["alpha"] = recipe.alpha
    return replace(architecture, settings=Genes(settings))


def require_narrow(baseline: Architecture, recipe: ShortTrainingRecipe) -> None:
    """Look at the narrow relative of the baseline.

    Raises:
        ConfigError: so narrow that a map has no channel left.
    """
    network = narrowed(baseline, recipe)
    try:
        family_of(network).validate(network)
    except InvalidArchitecture as error:
        raise ConfigError(str(error)) from error
