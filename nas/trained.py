"""A finished training read back without its images: network, recipe, result and weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.config import check, read_yaml
from nas.export.detector import TrainedDetector, expected_forms
from nas.recipes.train_job import TrainJobRecipe
from nas.targets import anchor, require_unchanged
from nas.training import read_result
from nas.training_files import RESULT, TRAINING, WEIGHTS
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import RunError
from search_spaces.targets import home_of
from trainers.data.detection_set import Category
from trainers.detectors.catalog import build_detector
from trainers.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class FinishedTraining:
    """What a training has left.

    Attributes:
        architecture: as it was trained, with the recipe's activation.
        recipe: of the training.
        result: content of ``result.json``.
        state: all weights of the detector.
    """

    architecture: Architecture
    recipe: TrainJobRecipe
    result: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @property
    def detector(self) -> TrainedDetector | None:
        """For a bundle; None of a training from before results stated what that needs."""
        if "category_ids" not in self.result:
            return None
        names = zip(self.result["category_ids"], self.result["categories"], strict=True)
        height, width = self.result["image_size"]
        return TrainedDetector(
            recipe=self.recipe.detector,
            categories=tuple(Category(id=number, name=name) for number, name in names),
            image_size=(height, width),
            fit=self.recipe.data.fit,
            state=self.state,
        )


def read_trained(directory: Path) -> FinishedTraining:
    """Read a finished training.

    Raises:
        RunError: none there, or weights that are damaged, were changed or belong to another network.
    """
    path, result = directory / WEIGHTS, read_result(directory)
    if result is None or not path.exists():
        raise RunError(
            f"{directory} holds no finished training ({RESULT if result is None else WEIGHTS} is missing); finish it "
            "with nas train"
        )
    home = home_of(directory)
    require_unchanged(home.parent)
    data = anchor(read_yaml(directory / TRAINING)["recipe"], home.parent)
    recipe = check(TrainJobRecipe, data, source=str(directory / TRAINING))
    architecture = Architecture.from_dict(result["architecture"]).at(home)
    size = tuple(result.get("image_size", (_ANY, _ANY)))

    def build() -> Any:
        backbone = family_of(architecture).build(architecture)
        return build_detector(recipe.detector, backbone, len(result["categories"]), size, seed=0)

    own = any(":" in one for one in (architecture.family, recipe.detector.target or ""))
    state = read_weights(
        path, expected_forms(build, path, own=own), sha256=result.get("weights", {}).get("sha256")
    )
    return FinishedTraining(architecture=architecture, recipe=recipe, result=result, state=state.tensors)


# Px that every stride divides.
_ANY = 2**12
