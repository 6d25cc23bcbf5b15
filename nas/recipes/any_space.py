"""The recipe for any space, controller and proxy, each of the house or a person's own."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nas.recipes.controller import one_of
from nas.recipes.one_search import OneSearchRecipe
from nas.recipes.search import SearchRecipe, refuse_free_rungs, refuse_stages
from search_spaces.recipe import Recipe
from trainers.recipes import TrainRecipe, refuse_auto


@dataclass(frozen=True, kw_only=True)
class AnySpaceRecipe(Recipe):
    """Any space; exactly one of ``name`` and ``target`` is given.

    Args:
        name: a name of ``search_spaces.catalog.SPACES``, as ``nas spaces`` lists them.
        target: your own, ``my_file.py:MySpace``, the file relative to the recipe.
        options: of your own, by the argument names of its constructor.
    """

    name: str | None = None
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "name", "target")
        self.require("options", self.target is not None or not self.options, "{} without a target")


@dataclass(frozen=True, kw_only=True)
class AnyProxyRecipe(Recipe):
    """What a score is; exactly one of ``train`` and ``target`` is given.

    Args:
        train: every candidate is trained alone for so long, and scored on the held-out images.
        recalibration_batches: with ``train``: see :class:`ShortTrainingRecipe`.
        target: your own proxy, ``my_file.py:MyProxy``, the file relative to the recipe.
        options: of your own, by the argument names of its constructor.
    """

    train: TrainRecipe | None = None
    recalibration_batches: int = 8
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, "train", "target")
        if self.train is not None:
            refuse_auto(self.train)
        self.require("options", self.target is not None or not self.options, "{} without a target")
        self.require("recalibration_batches", self.recalibration_batches >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class AnySearchRecipe(OneSearchRecipe):
    """One search with short trainings or a proxy of your own.

    Args:
        proxy: how a candidate is scored.
    """

    proxy: AnyProxyRecipe

    def __post_init__(self) -> None:
        super().__post_init__()
        trained = self.proxy.train is not None
        self.require(
            "rungs", trained or self.rungs is None, "null with a proxy of your own, which has no steps"
        )


@dataclass(frozen=True, kw_only=True)
class OnePhaseRecipe(SearchRecipe):
    """No paper's: one phase with any space, any controller and any proxy, each of the house or your own.

    Args:
        space: which networks.
        search: proxy, controller, limits.
    """

    method: Literal["search"] = "search"
    space: AnySpaceRecipe
    search: AnySearchRecipe

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_stages(self)
        refuse_free_rungs(self, self.search.rungs)
