"""Every method by name: what its recipe may say, its phases, its baseline, and who carries it out.

Importing this does not import torch; :func:`procedure` does.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from nas.config import check
from nas.methods.any_space import any_space
from nas.methods.spaces import baseline_architecture
from nas.methods.spinenet_space import spinenet_space
from nas.recipes.any_space import OnePhaseRecipe
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.search import SearchRecipe
from nas.recipes.spinenet import SpineNetRecipe
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError

DEFAULT = "crnas"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One procedure, a paper's or the plain one that searches any space.

    Args:
        title: shown in reports.
        recipe: what a recipe of this method may say.
        phases: names of its studies, in the order in which they are carried out.
        baseline: recipe -> the hand-made network that the winner has to beat.
        costs: how its phases' costs are counted, a name of ``nas.methods.costs.COUNTS``.
        module: with ``check_recipe(recipe, source=..., say=...)``, ``carry_out(run, progress)``,
            ``scorer(run, data, phase)``, which makes the proxy of a phase ready in a worker,
            ``worker_files(run, phase)``, the files that it reads beside recipe and images,
            ``searched(run, data, study)``, the phases begun so far, for ``nas replay``, and for
            ``nas plan`` ``foreseen(run, data)``, its spaces and works, and
            ``rehearse(run, data, work, seconds, rng)``, which carries out units of a work for about so long and gives
            the seconds of each.
    """

    title: str
    recipe: type[SearchRecipe]
    phases: tuple[str, ...]
    baseline: Callable[[Any], Architecture]
    costs: str
    module: str


METHODS: dict[str, Method] = {
    "crnas": Method(
        title="CR-NAS",
        recipe=CRNASRecipe,
        phases=("stages", "dilations", "random"),
        baseline=lambda recipe: baseline_architecture(recipe.space),
        costs="supernet",
        module="nas.methods.crnas",
    ),
    "spinenet": Method(
        title="SpineNet",
        recipe=SpineNetRecipe,
        phases=("search", "random", "hourglass", "fish"),
        baseline=lambda recipe: spinenet_space(recipe.space).baseline,
        costs="short trainings",
        module="nas.methods.spinenet",
    ),
    "search": Method(
        title="Search",
        recipe=OnePhaseRecipe,
        phases=("search", "random"),
        baseline=lambda recipe: any_space(recipe.space).baseline,
        costs="own",
        module="nas.methods.one_phase",
    ),
}


def check_search(data: Mapping[str, Any], *, source: str) -> SearchRecipe:
    """Turn plain data into the recipe of its ``method``, or say everything that is wrong with it.

    Raises:
        ConfigError: one line a problem.
    """
    name = data.get("method", DEFAULT)
    if not isinstance(name, str) or name not in METHODS:
        near = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{source}: method: found {name!r}; {hint}allowed are {', '.join(METHODS)}")
    return check(METHODS[name].recipe, data, source=source)


def method_of(recipe: SearchRecipe) -> Method:
    """The method of a checked recipe."""
    return METHODS[recipe.method]


def baseline_of(recipe: SearchRecipe) -> Architecture:
    """The hand-made network that the winner has to beat."""
    return method_of(recipe).baseline(recipe)


def procedure(recipe: SearchRecipe) -> ModuleType:
    """The module that checks and carries out recipes of this method."""
    return importlib.import_module(method_of(recipe).module)
