"""The detectors by name."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from search_spaces.errors import ConfigError
from search_spaces.targets import load_subclass, make
from trainers.detectors.cascade_rcnn import CascadeRCNN
from trainers.detectors.detector import Detector
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.detectors.fcos import FCOS
from trainers.detectors.mask_rcnn import MaskRCNN
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.detectors.retinanet import RetinaNet
from trainers.recipes import DetectorRecipe
from trainers.seeding import torch_seed

DETECTORS: dict[str, Callable[[BackboneWithPyramid, int, DetectorRecipe], Detector]] = {
    "fcos": FCOS,
    "faster_rcnn": FasterRCNN,
    "retinanet": RetinaNet,
    "mask_rcnn": MaskRCNN,
    "cascade_rcnn": CascadeRCNN,
}
# How maps coarser than the backbone's are made; proposals need no weights of their own there.
_EXTRA: dict[str, Literal["conv", "pool"]] = {
    "fcos": "conv",
    "faster_rcnn": "pool",
    "retinanet": "conv",
    "mask_rcnn": "pool",
    "cascade_rcnn": "pool",
}


def build_detector(
    recipe: DetectorRecipe, backbone: nn.Module, num_classes: int, image_size: tuple[int, int], *, seed: int
) -> Detector:
    """A detector around ``backbone``, whose weights are left as they are.

    Args:
        recipe: which detector, and its head.
        backbone: declares ``levels`` (name -> (channels, stride)) and returns a map for each.
        num_classes: categories, background not counted.
        image_size: (height, width) px of the images it will see, checked against the strides.
        seed: of the initial weights of pyramid and heads.

    Raises:
        ConfigError: levels that the backbone does not have, images that its strides do not divide, or a target
            that is no detector or has other options.
    """
    if num_classes < 1:
        raise ConfigError(f"a detector needs at least 1 category; found {num_classes}")
    with torch_seed(seed):
        body = BackboneWithPyramid(
            backbone,
            levels=recipe.levels,
            channels=recipe.fpn_channels,
            pyramid=recipe.pyramid,
            extra=recipe.extra_levels,
            extra_by=_EXTRA.get(recipe.name or "", "conv"),
        )
        largest = body.strides[len(recipe.levels) - 1]
        if any(side % largest for side in image_size):
            raise ConfigError(
                f"images of {image_size[1]}x{image_size[0]} px cannot enter this detector: "
                f"both sides must be multiples of its largest stride, {largest}"
            )
        if recipe.target is not None:
            return _own_detector(recipe.target, body, num_classes, recipe)
        assert recipe.name is not None, "a recipe has a name or a target"
        return DETECTORS[recipe.name](body, num_classes, recipe)


def _own_detector(
    target: str, body: BackboneWithPyramid, num_classes: int, recipe: DetectorRecipe
) -> Detector:
    try:
        kind = load_subclass(target, Detector, "detector")
    except ConfigError as error:
        raise ConfigError(f"detector.target: {error}") from error
    given = {"backbone": body, "num_classes": num_classes, "recipe": recipe}
    try:
        return make(kind, recipe.options, name=kind.__name__, given=given)
    except ConfigError as error:
        raise ConfigError("\n".join(f"detector.{line}" for line in str(error).splitlines())) from error
