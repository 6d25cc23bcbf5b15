"""The shortest training, for the bundles of the tests here."""

from dataclasses import replace
from pathlib import Path

from nas.config import check, read_yaml
from nas.recipes.train_job import TrainJobRecipe
from nas.training import TrainingJob, train_to_completion
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture

RECIPE = check(
    TrainJobRecipe, read_yaml(Path(__file__).parents[1] / "recipes/train.yaml"), source="train.yaml"
)


def narrow() -> Architecture:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    return replace(named, settings=settings, genes=Genes({"blocks": (1, 1, 1, 1), "dilations": (1, 1, 1, 1)}))


def trained(directory: Path, recipe: TrainJobRecipe) -> Path:
    """A finished training."""
    train_to_completion(TrainingJob(architecture=narrow(), recipe=recipe, directory=directory))
    return directory
