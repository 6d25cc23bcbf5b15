"""Which controller proposes candidates."""

from dataclasses import dataclass, field

from search_spaces.recipe import FieldError, Recipe

Option = int | float | str | bool | None


def one_of(recipe: Recipe, *names: str) -> None:
    """Raise unless exactly one of these fields is given.

    Raises:
        FieldError: none, or more than one.
    """
    found = [name for name in names if getattr(recipe, name) is not None]
    if len(found) != 1:
        field = (found or names)[-1]
        remedy = f"give exactly one of {', '.join(names)}"
        raise FieldError(field, getattr(recipe, field), f"{remedy}")


@dataclass(frozen=True, kw_only=True)
class ControllerRecipe(Recipe):
    """Who proposes candidates; exactly one of ``name`` and ``target`` is given.

    Args:
        name: a name of ``nas.controllers.catalog``, for example ``exhaustive``, ``greedy``, ``random``,
            ``aging_evolution``, ``detnas_evolution``, ``local_search``, ``policy_gradient``, ``predictor_guided``, or
            an Optuna sampler (``tpe``, ``nsga2``, ...).
        target: your own controller, ``my_file.py:MyController``, the file relative to the recipe.
        budget: evaluations in all; left out where the controller knows its own end.
        options: the controller's own settings, by their argument names; those of an Optuna sampler are
            a mapping under ``options`` again.
    """

    name: str | None = None
    target: str | None = None
    budget: int | None = None
    options: dict[str, Option | dict[str, Option]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "name", "target")
