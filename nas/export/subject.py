"""What is exported, and the images on which every file of it is compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detector

RANDOM_IMAGES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A network to be exported.

    Args:
        architecture: of the backbone.
        backbone: in evaluation mode, on the CPU, with the weights that are exported.
        image_size: (height, width) px.
        images: uint8 (N, 3, H, W), on which every file is compared.
        on: what these images are, as a sentence.
        detector: around the same backbone, in evaluation mode; None where none was trained.
        categories: names, position = label.
        data: the images' objects, for AP; None where there are none.
        levels: of the backbone, name -> (channels, stride).
    """

    architecture: Architecture
    backbone: nn.Module
    image_size: tuple[int, int]
    images: Tensor
    on: str
    detector: Detector | None = None
    categories: tuple[str, ...] = ()
    data: DetectionSet | None = None
    levels: Mapping[str, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        declared = self.backbone.levels
        assert isinstance(declared, Mapping)
        object.__setattr__(self, "levels", {name: tuple(level) for name, level in declared.items()})

    @property
    def step(self) -> int:
        """Largest stride of the backbone, px."""
        return max(stride for _, stride in self.levels.values())


def random_images(image_size: tuple[int, int], *, seed: int = 0, count: int = RANDOM_IMAGES) -> Tensor:
    """Noise, uint8 (count, 3, H, W), for networks that have seen no images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *image_size), dtype=torch.uint8, generator=generator)
