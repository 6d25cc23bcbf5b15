"""The ablations of SpineNet's paper beside the winner (Du et al. 2020, section 5.5).

Damaged graphs are the baseline with wires taken away. Orders that only go down, up and down again have connections of
their own: these are searched as the winner was, in the same space, the order held fixed.
"""

from collections.abc import Iterator

from nas.methods.one_search import OneSearch
from nas.methods.searching import Searched
from nas.methods.spinenet_space import baseline_network, spinenet_recipe
from nas.recipes.spinenet import SpineNetRecipe
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError
from search_spaces.spinenet.ablations import DAMAGES, FISH, HOURGLASS, in_order
from search_spaces.spinenet.space import SpineNetSpace

ORDERS = {"hourglass": HOURGLASS, "fish": FISH}


def ablations(search: OneSearch) -> dict[str, Architecture]:
    """The networks of the recipe's ablations by name; fixed orders are searched, a phase each.

    An order of which no candidate got a score, because limits reject them all, is left out and said.
    """
    recipe = spinenet_recipe(search.run.recipe)
    if recipe.ablations is None:
        return {}
    baseline = search.space.baseline
    found: dict[str, Architecture] = {name: DAMAGES[name](baseline) for name in recipe.ablations.damages}
    for name in recipe.ablations.orders:
        assert recipe.ablations.controller is not None, "checked with the recipe"
        try:
            found[name] = search.phase(name, recipe.ablations.controller, order_space(recipe, name))
        except RunError as error:
            search.progress.say(f"warning: {name} is missing from the ablations: {error}")
    return found


def searched_orders(search: OneSearch) -> Iterator[Searched]:
    """The phases of fixed orders begun so far."""
    recipe = spinenet_recipe(search.run.recipe)
    if recipe.ablations is None or recipe.ablations.controller is None:
        return
    for name in recipe.ablations.orders:
        if name in search.study.phase_names():
            yield search.searched(name, recipe.ablations.controller, order_space(recipe, name))


def order_space(recipe: SpineNetRecipe, name: str) -> SpineNetSpace:
    """The connections of a fixed order, everything else as in the search.

    Raises:
        ConfigError: a baseline with another stem or number of blocks than the order is for.
    """
    try:
        return SpineNetSpace(
            f"spinenet.{name}",
            in_order(baseline_network(recipe.space), ORDERS[name]),
            window=recipe.space.window,
            dead=recipe.space.dead,
            permutation=False,
            levels=False,
            types=False,
        )
    except InvalidArchitecture as error:
        raise ConfigError(f"orders: {error}") from error
