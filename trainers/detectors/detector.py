"""What every detector is: images to losses when it learns, images to boxes, and perhaps masks, when it is asked."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from torch import Tensor

from trainers.batches import Batches
from trainers.data.detection_set import DetectionSet, Target
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.learner import Learner
from trainers.recipes import TrainRecipe

_BODY = "backbone.body."


class Detections(TypedDict):
    """Of one image: ``boxes`` float32 (n, 4) as x1 y1 x2 y2 in px of the input, ``scores`` (n,) falling,
    ``labels`` int64 (n,) from 0.

    A detector of masks adds ``masks``, float32 (n, M, M): the probability in each cell of a box cut into M x M.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


class Detector(Learner):
    """Base of the detectors. Labels are 0 to ``num_classes - 1`` for all of them.

    Args:
        backbone: with its pyramid.
        num_classes: categories, background not counted.
    """

    backbone: BackboneWithPyramid

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int) -> None:
        super().__init__(backbone)
        self.num_classes = num_classes

    def batches(self, data: DetectionSet, recipe: TrainRecipe, seed: int) -> Batches:
        """One permutation of the images an epoch; see :class:`trainers.batches.Batches`.

        Raises:
            ConfigError: see :meth:`trainers.learner.Learner.require_values`.
        """
        found = Batches(data, recipe, seed, self.backbone.multiple)
        self.require_values(recipe, found.smallest)
        return found

    @abstractmethod
    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The terms of the training loss, scalars; images as for :meth:`normalise`."""

    def objects_by_level(self, targets: Sequence[Target], image_size: tuple[int, int]) -> dict[str, int]:
        """Objects that each level answers for, where the detector assigns objects to levels; else empty."""
        del targets, image_size
        return {}

    @abstractmethod
    def detections(self, images: Tensor) -> list[Detections]:
        """What is found in each image; images as for :meth:`normalise`."""

    def load_around_body(self, other: "Detector") -> None:
        """Take over pyramid and head of a detector built from the same recipe; the backbone's body stays."""
        state = {name: value for name, value in other.state_dict().items() if not name.startswith(_BODY)}
        missing, unexpected = self.load_state_dict(state, strict=False)
        assert not unexpected and all(name.startswith(_BODY) for name in missing), "of another recipe"

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """As torchvision's: :meth:`losses` in training mode, :meth:`detections` in evaluation mode."""
        if not self.training:
            return self.detections(images)
        assert targets is not None, "a detector in training mode needs targets"
        return self.losses(images, targets)
