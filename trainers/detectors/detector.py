"""What every detector is: images to losses when it learns, images to boxes, and perhaps masks, when it is asked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NotRequired, TypedDict

import torch
from torch import Tensor, nn

from trainers.data.detection_set import Target
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.ranks import ALONE, Ranks

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's red, green and blue from 0 to 1, as torchvision's weights expect them; :data:`STD` likewise."""
STD = (0.229, 0.224, 0.225)
_BODY = "backbone.body."
_NARROW = 8


class Detections(TypedDict):
    """Of one image: ``boxes`` float32 (n, 4) as x1 y1 x2 y2 in px of the input, ``scores`` (n,) falling,
    ``labels`` int64 (n,) from 0.

    A detector of masks adds ``masks``, float32 (n, M, M): the probability in each cell of a box cut into M x M.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


class Detector(nn.Module, ABC):
    """Base of the detectors. Labels are 0 to ``num_classes - 1`` for all of them.

    Args:
        backbone: with its pyramid.
        num_classes: categories, background not counted.

    Attributes:
        ranks: those that compute losses together; the mean over them is what is minimised, so a sum that is divided by
            a number of positives is divided by the mean of that number.
    """

    ranks: Ranks = ALONE

    def __init__(self, backbone: BackboneWithPyramid, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @cached_property
    def layout(self) -> torch.memory_format:
        """How images and weights lie in memory: channels last is a fifth faster on a CPU.

        Not for strided 1x1 convolutions of fewer than 8 channels, whose backward pass in that layout writes
        outside of its memory and ends the process (torch 2.14.1 on x86).
        """
        narrow = any(
            isinstance(one, nn.Conv2d)
            and one.kernel_size == (1, 1)
            and one.stride != (1, 1)
            and one.in_channels < _NARROW
            for one in self.modules()
        )
        return torch.contiguous_format if narrow else torch.channels_last

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the backbone takes them.

        Args:
            images: (N, 3, H, W), bytes or floats from 0 to 1; sides that are multiples of the largest stride.
        """
        # Maps keep the layout of the images.
        images = images.contiguous(memory_format=self.layout)
        return _normalised(images, self.get_buffer("mean"), self.get_buffer("std"))

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


def normalised(images: Tensor) -> Tensor:
    """What a backbone is given in a detector of float32: images (N, 3, H, W), bytes or floats from 0 to 1."""
    return _normalised(images, torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1))


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return (images.to(mean.dtype) - 255.0 * mean) / (255.0 * std)
    return (images - mean) / std
