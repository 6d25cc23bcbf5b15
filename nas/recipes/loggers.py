"""Which loggers listen to a run."""

from collections.abc import Sequence
from typing import Literal

from search_spaces.recipe import Recipe

LoggerName = Literal["tensorboard", "mlflow", "wandb"]


def require_each_once(recipe: Recipe, loggers: Sequence[LoggerName]) -> None:
    """Raise where a logger is named twice.

    Raises:
        FieldError: one is.
    """
    recipe.require("loggers", len(set(loggers)) == len(loggers), "each of tensorboard, mlflow and wandb once")
