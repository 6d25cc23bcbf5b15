"""From the ``space`` section of a SpineNet recipe to the space, its limits and the narrow networks. Torch-free."""

from dataclasses import replace

from nas.recipe import LimitsRecipe, SearchRecipe, ShortTrainingRecipe, SpineNetRecipe, SpineNetSpaceRecipe
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.cost import Cost, cost
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
        ConfigError: not a network of the family ``spinenet``, or settings that it refuses.
    """
    try:
        named = get_architecture(recipe.baseline)
        if named.family != "spinenet":
            raise ConfigError(
                f"space.baseline: found {recipe.baseline!r} of the family {named.family}; allowed are the networks "
                "of the family spinenet, for example r0_sp53 or spinenet49"
            )
        changes = {name: value for name in _SETTINGS if (value := getattr(recipe, name)) is not None}
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
    """The network that is trained in a candidate's place: fewer channels, the same graph."""
    settings = dict(architecture.settings)
    scale = settings["filter_size_scale"]
    assert isinstance(scale, float)
    settings["filter_size_scale"] = scale * recipe.width
    if recipe.alpha is not None:
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


class Limits:
    """Candidate -> the sentence that rejects it, or None: the limits that need no clock.

    Args:
        space: gives the baseline, and what a dead block means.
        recipe: limits in the baseline's cost.
        image_size: (height, width) px at which multiply-adds are counted.
    """

    def __init__(self, space: SpineNetSpace, recipe: LimitsRecipe, image_size: tuple[int, int]) -> None:
        self._space, self._recipe, self._size = space, recipe, image_size
        self._base: Cost = cost(space.baseline, image_size)

    @property
    def any(self) -> bool:
        """Whether anything can be rejected at all."""
        limited = (self._recipe.params, self._recipe.macs, self._recipe.latency) != (None, None, None)
        return limited or self._space.dead == "limit"

    def __call__(self, architecture: Architecture) -> str | None:
        if (dead := self._space.limit(architecture)) is not None:
            return dead
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
        return ", ".join([*parts, *(["no dead block"] if self._space.dead == "limit" else [])])
