"""Images with boxes and perhaps masks, decoded, resized and kept as bytes, in memory or in a file."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from search_spaces.errors import DataError
from trainers.data.masks import Rle, decode_masks
from trainers.data.sizing import canvas_of
from trainers.data.stored import StoredImages

NOT_STATED = "not stated"


class Target(TypedDict):
    """What an image holds: ``boxes`` float32 (n, 4) as x1 y1 x2 y2 in resized px, ``labels`` int64 (n,).

    In the batches of a set with masks also ``masks``, uint8 (n, H, W) of zeros and ones, padded as the image is.
    """

    boxes: Tensor
    labels: Tensor
    image_id: int
    masks: NotRequired[Tensor]


@dataclass(frozen=True)
class Category:
    """A category of the annotation file; a label is its position among them, sorted by id."""

    id: int
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionSet:
    """A split. Every image is resized with its aspect ratio kept and padded at right and bottom.

    Args:
        images: uint8 (N, 3, H, W); H and W are multiples of 32, padding is zero. A tensor, or pictures in a file that
            give one for an index, a slice or a list of indices.
        targets: one an image; crowd regions are left out, boxes are clipped to the image.
        categories: position = label.
        ground_truth: COCO dictionary in original px, crowds included, for evaluation.
        scales: float64 (N, 2), resized px per original px, x and y.
        sizes: (height, width) of each original image.
        file_names: one an image.
        digest: of annotations, file names, pixels and, after :meth:`subset`, the choice.
        sides: shorter and longer side px of a batch of pictures of one orientation, which batches are as far as that
            goes; None: every batch has the padded size of the images.
        skipped: what ``on_bad=skip`` dropped, one sentence each.
        masks: of every image's objects, as run lengths in padded pixels; None where masks were not asked for.
        licence: of the images, as the annotation file or the recipe states it.
    """

    images: Tensor | StoredImages
    targets: tuple[Target, ...]
    categories: tuple[Category, ...]
    ground_truth: Mapping[str, Any]
    scales: Tensor
    sizes: tuple[tuple[int, int], ...]
    file_names: tuple[str, ...]
    digest: str
    sides: tuple[int, int] | None = None
    skipped: tuple[str, ...] = ()
    masks: tuple[tuple[Rle, ...], ...] | None = None
    licence: str = NOT_STATED

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_classes(self) -> int:
        """Number of categories; labels are 0 to ``num_classes - 1``."""
        return len(self.categories)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every padded image."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    def content(self, index: int) -> tuple[int, int]:
        """(height, width) in px of the picture in a padded image; it begins at the top left."""
        height, width = self.sizes[index]
        x, y = self.scales[index].tolist()
        return round(height * y), round(width * x)

    @property
    def image_bytes(self) -> int:
        """Of all pixels, in memory or in a file."""
        return self.images.nbytes

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The ids of the annotation file, in order."""
        return tuple(target["image_id"] for target in self.targets)

    @property
    def num_objects(self) -> int:
        """Boxes to learn from, crowds not counted."""
        return sum(len(target["labels"]) for target in self.targets)

    def target(self, index: int, size: tuple[int, int] | None = None) -> Target:
        """What an image holds, its masks decoded where the set has them, in an image of (height, width) px."""
        target = self.targets[index]
        if self.masks is None:
            return target
        masks = decode_masks(self.masks[index], self.image_size)
        return Target(**target, masks=masks if size is None else masks[:, : size[0], : size[1]])

    def padded_size(self, chosen: Iterable[int]) -> tuple[int, int]:
        """(height, width) px of a batch of these images; where a set has sides it depends on orientations alone."""
        if self.sides is None:
            return self.image_size
        return canvas_of(self.sides, map(self.standing, chosen))

    def batches(self, size: int) -> Iterator[Sequence[int]]:
        """All images once, at most so many at a time; of a set with sides first those of the more frequent orientation.

        What is found in a picture then does not depend on the others of its batch, nor on how many there are.
        """
        every: Sequence[int] = range(len(self))
        groups = [every]
        if self.sides is not None:
            groups = [[one for one in every if self.standing(one) is way] for way in (False, True)]
            groups.sort(key=len, reverse=True)
        for group in groups:
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def padded(self, chosen: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Images (n, 3, H, W), bytes, of (height, width) px as :meth:`padded_size` says it, or larger."""
        if isinstance(self.images, StoredImages):
            return self.images.padded(chosen, size)
        # A view where they are neighbours, as in scoring.
        found = self.images[_place(chosen)]
        if size == self.image_size:
            return found
        height, width = (now - room for now, room in zip(size, self.image_size, strict=True))
        # Of what is negative there is less, and that is padding too.
        return nn.functional.pad(found, (0, width, 0, height))

    def standing(self, index: int) -> bool:
        """Whether a picture, as it was resized, is taller than wide."""
        height, width = self.content(index)
        return height > width

    @property
    def usual_size(self) -> tuple[int, int]:
        """(height, width) px of a batch of most images: what a training costs goes by it."""
        return self.padded_size(next(self.batches(len(self))))

    def subset(self, indices: Iterable[int]) -> "DetectionSet":
        """The chosen images with their targets and ground truth, in the order given."""
        chosen = list(indices)
        if not chosen:
            raise DataError("a subset needs at least one image; found none")
        targets = tuple(self.targets[index] for index in chosen)
        # A view where they are neighbours: scoring cuts a set into mini-batches for every candidate.
        part: Any = _place(chosen)
        return replace(
            self,
            images=self.images.subset(chosen) if isinstance(self.images, StoredImages) else self.images[part],
            targets=targets,
            ground_truth=self.truth_of({target["image_id"] for target in targets}),
            scales=self.scales[part],
            sizes=tuple(self.sizes[index] for index in chosen),
            file_names=tuple(self.file_names[index] for index in chosen),
            digest=hashlib.sha256(f"{self.digest} {chosen}".encode()).hexdigest(),
            masks=None if self.masks is None else tuple(self.masks[index] for index in chosen),
        )

    def and_then(self, other: "DetectionSet") -> "DetectionSet":
        """These images and then those of another part of the same split."""
        if isinstance(self.images, StoredImages) and isinstance(other.images, StoredImages):
            images: Tensor | StoredImages = self.images.and_then(other.images)
        else:
            images = torch.cat((self.images[:], other.images[:]))
        names = ("images", "annotations")
        truth = {name: [*self.ground_truth[name], *other.ground_truth[name]] for name in names}
        none = self.masks is None or other.masks is None
        return replace(
            self,
            images=images,
            targets=self.targets + other.targets,
            ground_truth={**self.ground_truth, **truth},
            scales=torch.cat((self.scales, other.scales)),
            sizes=self.sizes + other.sizes,
            file_names=self.file_names + other.file_names,
            digest=hashlib.sha256(f"{self.digest} {other.digest}".encode()).hexdigest(),
            masks=None if none else (self.masks or ()) + (other.masks or ()),
        )

    def truth_of(self, images: Container[int]) -> dict[str, Any]:
        """The COCO dictionary of the images with these ids."""
        return {
            **self.ground_truth,
            "images": [image for image in self.ground_truth["images"] if image["id"] in images],
            "annotations": [one for one in self.ground_truth["annotations"] if one["image_id"] in images],
        }


def _place(chosen: Sequence[int]) -> slice | Tensor:
    """Images by index, as a slice where they are neighbours in order."""
    if len(chosen) and all(index == chosen[0] + place for place, index in enumerate(chosen)):
        return slice(chosen[0], chosen[0] + len(chosen))
    return torch.tensor(chosen)


def hold_out(data: DetectionSet, share: float, seed: int) -> tuple[DetectionSet, DetectionSet]:
    """Split by chance, fixed by ``seed``: (the rest, the held-out images), each in the set's order.

    Raises:
        DataError: fewer than two images.
    """
    if len(data) < 2:
        raise DataError(f"cannot hold out a share of {len(data)} image(s); at least 2 are needed")
    count = min(max(round(share * len(data)), 1), len(data) - 1)
    held = set(Random(seed).sample(range(len(data)), count))
    rest = [index for index in range(len(data)) if index not in held]
    return data.subset(rest), data.subset(sorted(held))


def require_objects(sets: Mapping[str, DetectionSet]) -> None:
    """Nothing can be learned from, or measured on, images without a single box.

    Raises:
        DataError: naming the sets that have none.
    """
    empty = [name for name, data in sets.items() if data.num_objects == 0]
    if empty:
        raise DataError(
            f"no object in: {', '.join(empty)}; AP is not defined there. Annotate objects, or hold out a larger share"
        )


def require_same_categories(first: DetectionSet, second: DetectionSet) -> None:
    """Two splits are comparable only when a label means the same in both.

    Raises:
        DataError: naming the categories that differ.
    """
    if first.categories != second.categories:
        odd = sorted({f"{one.id}:{one.name}" for one in set(first.categories) ^ set(second.categories)})
        raise DataError(
            f"the two splits have different categories ({', '.join(odd[:10])}); "
            "give both annotation files the same list under 'categories'"
        )
