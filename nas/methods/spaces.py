"""From a recipe's ``space`` section to the two spaces of CR-NAS. Torch-free."""

from collections.abc import Sequence
from dataclasses import replace

from nas.recipes.crnas import CRNASRecipe
from nas.recipes.crnas_space import SpaceRecipe
from nas.recipes.search import SearchRecipe
from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.catalog import get_architecture
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.stages import BRANCHES, StageSpace
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.families import family_of


def crnas_recipe(recipe: SearchRecipe) -> CRNASRecipe:
    """The recipe as that of CR-NAS, which it is wherever this is asked."""
    assert isinstance(recipe, CRNASRecipe)
    return recipe


def baseline_architecture(recipe: SpaceRecipe) -> Architecture:
    """The hand-made network with the recipe's widths and stem.

    Raises:
        ConfigError: a width that its family does not know.
        InvalidArchitecture: settings that its family refuses.
    """
    named = get_architecture(recipe.network)
    settings = dict(named.settings)
    for name, value in (
        ("widths", recipe.widths),
        ("stem", recipe.stem),
        ("width_multiplier", recipe.width_multiplier),
    ):
        if value is None:
            continue
        if name not in settings:
            raise ConfigError(
                f"space.{name}: found {value!r}, but {recipe.network} has no such setting; leave it out"
            )
        settings[name] = value
    architecture = replace(named, settings=Genes(settings))
    family_of(architecture).validate(architecture)
    return architecture


def allocation(base: Architecture, blocks: Sequence[Value]) -> Architecture:
    """The base with these block counts and no dilation; any counts, in the space or not."""
    count = sum(number for number in blocks if isinstance(number, int))
    return replace(base, genes=Genes({"blocks": tuple(blocks), "dilations": (1,) * count}))


def stage_space(recipe: SpaceRecipe) -> StageSpace:
    """Allocations of the baseline's blocks to stages.

    Raises:
        ConfigError: settings, branches or a budget that give no space.
    """
    try:
        baseline = baseline_architecture(recipe)
    except InvalidArchitecture as error:
        raise ConfigError(f"space: {error}") from error
    blocks = baseline.genes["blocks"]
    assert isinstance(blocks, tuple)
    budget = recipe.budget
    if budget is None and baseline.family == "crnas.resnet":
        budget = sum(count for count in blocks if isinstance(count, int))
    try:
        return StageSpace(
            f"crnas.{recipe.network}.stages", baseline, recipe.branches or BRANCHES[baseline.family], budget
        )
    except InvalidArchitecture as error:
        raise ConfigError(f"space: {error}") from error


def dilation_space(allocation: Architecture) -> DilationSpace:
    """Dilations of every block of an allocation."""
    return DilationSpace(f"{allocation.family}.dilations", allocation)
