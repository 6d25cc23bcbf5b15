"""What the training loop trains: a network around a backbone that turns images and targets into losses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.errors import ConfigError
from trainers.detectors.norm import BatchNorm
from trainers.ranks import ALONE, Ranks
from trainers.recipes import TrainRecipe

MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's red, green and blue from 0 to 1, as torchvision's weights expect them; :data:`STD` likewise."""
STD = (0.229, 0.224, 0.225)
# Floats in a vector register of AVX-512; with AVX2 it would be 8.
_NARROW = 16


class TrainingSet(Protocol):
    """What the loop itself asks of a data set."""

    @property
    def digest(self) -> str:
        """Of everything that is learned from."""

    def __len__(self) -> int: ...


class StepBatches(Protocol):
    """The images of every step of a training."""

    def at(
        self, step: int, device: torch.device, ranks: Ranks = ALONE, micro: int = 0
    ) -> tuple[Tensor, Sequence[Any]]:
        """Images (N, 3, H, W), bytes, and their targets: a rank's part of one of the step's micro-batches.

        They are a function of the training's seed, the step and the place in its batch.
        """
        ...


class Learner(nn.Module, ABC):
    """Base of detectors and classifiers: one loop trains them all.

    Args:
        backbone: a module whose ``body`` is the searched network itself.

    Attributes:
        ranks: those that compute losses together; the mean over them is what is minimised, so a sum that is divided by
            a number of positives is divided by the mean of that number.
    """

    ranks: Ranks = ALONE

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @cached_property
    def layout(self) -> torch.memory_format:
        """How images and weights lie in memory: channels last is a fifth faster on a CPU.

        Not for strided 1x1 convolutions of fewer than 16 channels, whose backward pass in that layout writes
        outside of its memory and ends the process (torch 2.14.1 on x86; with AVX2 it takes fewer than 8).
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

        Returns:
            What only the backbone may be given: where it goes on from what it remembers, pixels are not looked at and
            may be of any images of that size.
        """
        if getattr(self.backbone.body, "remembers", False):
            # A supernet that goes on from where another candidate was looks at their number and size only.
            return images
        # Maps keep the layout of the images.
        images = images.contiguous(memory_format=self.layout)
        return _normalised(images, self.get_buffer("mean"), self.get_buffer("std"))

    def require_values(self, recipe: TrainRecipe, size: tuple[int, int]) -> None:
        """The backbone's batch normalisation has more than one value a channel, which torch refuses in training.

        Args:
            recipe: of the training.
            size: (height, width) px of its smallest images.

        Raises:
            ConfigError: a micro-batch of one image, whose coarsest map has one cell.
        """
        body = self.backbone.body
        stride = max(stride for _, stride in body.levels.values())
        fragile = any(
            isinstance(one, _BatchNorm) and not isinstance(one, BatchNorm) for one in body.modules()
        )
        if recipe.micro_batch > 1 or recipe.frozen_bn or not fragile or max(size) > stride:
            return
        name = "sizes" if recipe.sizes else "batch_size"
        raise ConfigError(
            f"train.{name}: one image of {size[1]}x{size[0]} px at a time leaves one value a channel on the backbone's "
            f"coarsest map (stride {stride}), and batch normalisation needs two; take larger images, or a "
            "train.batch_size of at least twice train.accumulate"
        )

    @abstractmethod
    def losses(self, images: Tensor, targets: Sequence[Any]) -> dict[str, Tensor]:
        """The terms of the training loss, scalars; images as for :meth:`normalise`, targets as of the batches."""

    @abstractmethod
    def batches(self, data: Any, recipe: TrainRecipe, seed: int) -> StepBatches:
        """The steps' images and targets from a data set of its kind, augmented as the recipe says."""


def normalised(images: Tensor) -> Tensor:
    """What a backbone is given in a learner of float32: images (N, 3, H, W), bytes or floats from 0 to 1."""
    return _normalised(images, torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1))


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        # In place: three maps of the size of the images would be written and read otherwise.
        return images.to(mean.dtype).sub_(255.0 * mean).div_(255.0 * std)
    return (images - mean) / std
