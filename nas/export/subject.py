"""What is exported, and the images on which every file of it is compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nas.export.bundle import load_bundle, load_detector
from nas.export.capture import LEAST_CELLS
from nas.export.manifest import read_manifest
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import DataError
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.data.sizing import AS_STORED, Fit
from trainers.data.stored import Say, StoredImages
from trainers.detectors.detector import Detector
from trainers.recipes import DataRecipe

RANDOM_IMAGES = 4
REAL_IMAGES = 16
"""Of a validation split at most, unless a person says how many."""
_SIZE = (224, 224)

HowMany = int | Literal["all"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A network to be exported.

    Args:
        architecture: of the backbone.
        backbone: in evaluation mode, on the CPU, with the weights that are exported.
        image_size: (height, width) px; of a training of either orientation that of most, or a larger one.
        images: uint8 (N, 3, H, W), on which every file is compared; those of a whole split may lie in a file, so a few
            are asked for at a time.
        on: what these images are, as a sentence.
        detector: around the same backbone, in evaluation mode; None where none was trained.
        categories: names, position = label.
        data: the images' objects, for AP; None where there are none.
        fit: how the detector's pictures are resized.
        levels: of the backbone, name -> (channels, stride).
    """

    architecture: Architecture
    backbone: nn.Module
    image_size: tuple[int, int]
    images: Tensor | StoredImages
    on: str
    detector: Detector | None = None
    categories: tuple[str, ...] = ()
    data: DetectionSet | None = None
    fit: Fit = AS_STORED
    levels: Mapping[str, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        declared = self.backbone.levels
        assert isinstance(declared, Mapping)
        object.__setattr__(self, "levels", {name: tuple(level) for name, level in declared.items()})

    @property
    def few(self) -> Tensor:
        """Images for backbones, whose maps take a lot of memory."""
        return next(self.batches(REAL_IMAGES))

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, so many at a time, those of one orientation together, padded as in the training.

        A graph of any size needs a few cells of its coarsest map; smaller images are padded further.
        """
        if self.data is None:
            for start in range(0, len(self.images), size):
                yield self.images[start : start + size]
            return
        for chosen in self.data.batches(size):
            height, width = self.data.padded_size(chosen)
            if self.data.sides is not None:
                height, width = max(height, self.least_side), max(width, self.least_side)
            yield self.data.padded(chosen, (height, width))

    @property
    def least_side(self) -> int:
        """px that a side has at least in a graph that holds for any size."""
        return _least_side(self.backbone, self.detector)

    @property
    def on_few(self) -> str:
        """What those are."""
        few = REAL_IMAGES if self.data is None else len(next(self.data.batches(REAL_IMAGES)))
        return self.on if len(self.images) <= few else f"{few} images of val"

    @property
    def step(self) -> int:
        """Largest stride of the backbone, px."""
        return max(stride for _, stride in self.levels.values())


def random_images(image_size: tuple[int, int], *, seed: int = 0, count: int = RANDOM_IMAGES) -> Tensor:
    """Noise, uint8 (count, 3, H, W), for networks that have seen no images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *image_size), dtype=torch.uint8, generator=generator)


def _least_side(backbone: nn.Module, detector: Detector | None) -> int:
    levels = backbone.levels
    assert isinstance(levels, Mapping)
    step = max(int(stride) for _, stride in levels.values())
    coarsest = 0 if detector is None else max(detector.backbone.strides)
    return step * max(LEAST_CELLS, coarsest // step + 1)


def bundled(
    folder: Path, data: DataRecipe | None, *, images: HowMany | None = None, say: Say | None = None
) -> Subject:
    """What a bundle holds, and images of its validation split.

    Args:
        folder: of a bundle of ours, whose code is trusted.
        data: where the images are; noise where it is None or they are no longer there.
        images: how many of them at most; :data:`REAL_IMAGES` where nobody says it.
        say: see :func:`trainers.data.catalog.open_split`.

    Raises:
        DataError: somebody says how many, and they are not there.
    """
    detector: Detector | None = None
    categories: tuple[str, ...] = ()
    fit = AS_STORED
    if read_manifest(folder).kind == "detector":
        loaded = load_detector(folder, trust_code=True)
        detector, architecture = loaded.detector, loaded.architecture
        categories = tuple(one.name for one in loaded.categories)
        backbone, size, fit = detector.backbone.body, loaded.image_size, loaded.fit
        if fit.either_way:
            # Of no one size anyway, so as large as a graph of any size needs it.
            least = _least_side(backbone, detector)
            size = (max(size[0], least), max(size[1], least))
    else:
        architecture, weights = load_bundle(folder, trust_code=True)
        backbone = family_of(architecture).build(architecture, seed=0)
        if weights is not None:
            backbone.load_state_dict(weights)
        # As wide as its coarsest map needs it.
        step = max(one.stride for one in family_of(architecture).levels(architecture).values())
        size = (step * -(-_SIZE[0] // step), step * -(-_SIZE[1] // step))
    found, missing = _split(data, say)
    if found is not None and detector is None:
        size = found.image_size
    # Those of a set with sides have two sizes, and a detector takes both.
    if found is not None and found.sides is None and found.image_size != size:
        missing = f"those of val are padded to {found.image_size}"
        found = None
    if found is None and images is not None:
        raise DataError(f"--images: {images} of val cannot be taken: {missing or 'there is no data set'}")
    if found is None:
        pixels: Tensor | StoredImages = random_images(size)
        on = f"{RANDOM_IMAGES} images of noise, seed 0 ({missing})"
    else:
        whole, most = len(found), REAL_IMAGES if images is None else images
        chosen = range(whole if most == "all" else min(most, whole))
        # In the order in which they are looked at.
        found = found.subset([one for some in found.subset(chosen).batches(whole) for one in some])
        pixels = found.images
        on = (
            f"{len(found)} images of val" if len(found) == whole else f"{len(found)} of {whole} images of val"
        )
    return Subject(
        architecture=architecture,
        backbone=backbone.eval(),
        image_size=size,
        images=pixels,
        on=on,
        detector=detector,
        categories=categories,
        data=found if detector is not None else None,
        fit=fit,
    )


def _split(data: DataRecipe | None, say: Say | None) -> tuple[DetectionSet | None, str]:
    """The validation split, or why there is none."""
    if data is None:
        return None, "there is no data set"
    try:
        return open_split(data, "val", say=say), ""
    except (DataError, OSError) as error:
        return None, f"val cannot be read: {error}"
