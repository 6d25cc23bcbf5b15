"""Folders in COCO form: ``images/`` and ``annotations/{train,val}.json``."""

import hashlib
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from search_spaces.errors import DataError
from trainers.data.annotations import (
    Annotations,
    BoxEntry,
    ImageEntry,
    Problems,
    outside_fault,
    read_annotations,
)
from trainers.data.detection_set import NOT_STATED, Category, DetectionSet, Target
from trainers.data.masks import Rle, read_mask, resized_mask
from trainers.recipes import DataRecipe

_FOLDER = """a data folder looks like this:
  DIR/images/...                     the image files that the annotation files name
  DIR/annotations/train.json         COCO detection format: images, annotations, categories
  DIR/annotations/val.json           read for the final table only
name it with: --set data.root=DIR"""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged files."""

ImageSize = int | tuple[int, int] | None


def open_coco(recipe: DataRecipe, split: str) -> DetectionSet:
    """Read, check and decode one split.

    Raises:
        DataError: a missing folder or file, or the list of what is wrong with annotations and images.
    """
    root = _root(recipe)
    source = root / "annotations" / f"{split}.json"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); {_FOLDER}") from error
    problems = Problems(source=source, skip=recipe.on_bad == "skip")
    annotations = read_annotations(content, problems)
    pictures = _decode_all(root / "images", annotations, recipe.image_size, problems)
    boxes = _inside(annotations, pictures, problems)
    if recipe.masks:
        boxes = _with_masks(boxes, pictures, problems)
    skipped = problems.settle()
    if not pictures:
        raise DataError(f"{source}: no usable image; {_FOLDER}")
    digest = hashlib.sha256(content)
    for picture in pictures.values():
        digest.update(f"{picture.entry.file_name} ".encode())
        digest.update(picture.pixels.tobytes())
    return assemble(
        pictures=[(picture.entry, picture.pixels, picture.size) for picture in pictures.values()],
        boxes=boxes,
        categories=annotations.categories,
        canvas=recipe.image_size if isinstance(recipe.image_size, tuple) else None,
        digest=digest.hexdigest(),
        skipped=skipped,
        masks=recipe.masks,
        licence=recipe.licence or annotations.licence,
    )


def assemble(
    *,
    pictures: list[tuple[ImageEntry, npt.NDArray[np.uint8], tuple[int, int]]],
    boxes: tuple[BoxEntry, ...],
    categories: tuple[Category, ...],
    canvas: tuple[int, int] | None,
    digest: str,
    skipped: tuple[str, ...] = (),
    masks: bool = False,
    licence: str = NOT_STATED,
) -> DetectionSet:
    """Pad resized pictures to one size and scale their boxes and masks.

    Args:
        pictures: entry, resized pixels (h, w, 3), original (height, width); at least one.
        boxes: of these pictures, in original px.
        categories: sorted by id.
        canvas: (height, width) to pad to; the largest picture when None. Rounded up to multiples of 32.
        digest: of the source; the pixel size is added.
        skipped: what was dropped.
        masks: every box has a mask, and the set shall have them.
        licence: of the pictures.
    """
    tallest = max(pixels.shape[0] for _, pixels, _ in pictures)
    widest = max(pixels.shape[1] for _, pixels, _ in pictures)
    height, width = (-(-side // 32) * 32 for side in (canvas or (tallest, widest)))
    images = torch.zeros((len(pictures), 3, height, width), dtype=torch.uint8)
    labels = {category.id: label for label, category in enumerate(categories)}
    of_image: dict[int, list[BoxEntry]] = {entry.id: [] for entry, _, _ in pictures}
    for box in boxes:
        if not box.crowd:
            of_image[box.image_id].append(box)
    targets: list[Target] = []
    scales: list[tuple[float, float]] = []
    outlines: list[tuple[Rle, ...]] = []
    for index, (entry, pixels, size) in enumerate(pictures):
        images[index, :, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels).permute(2, 0, 1)
        scale = (pixels.shape[1] / size[1], pixels.shape[0] / size[0])
        scales.append(scale)
        targets.append(_target(entry.id, of_image[entry.id], labels, size, scale))
        if masks:
            outlines.append(
                tuple(
                    resized_mask(box.mask, pixels.shape[:2], (height, width))
                    for box in of_image[entry.id]
                    if box.mask is not None
                )
            )
    return DetectionSet(
        images=images,
        targets=tuple(targets),
        categories=categories,
        ground_truth=_ground_truth(pictures, boxes, categories),
        scales=torch.tensor(scales, dtype=torch.float64),
        sizes=tuple(size for _, _, size in pictures),
        file_names=tuple(entry.file_name for entry, _, _ in pictures),
        digest=hashlib.sha256(f"{digest} {tuple(images.shape)}".encode()).hexdigest(),
        skipped=skipped,
        masks=tuple(outlines) if masks else None,
        licence=licence,
    )


def resized(image: Image.Image, image_size: ImageSize) -> npt.NDArray[np.uint8]:
    """RGB pixels (h, w, 3) at the recipe's size, aspect ratio kept, antialiased bilinear."""
    width, height = image.size
    if image_size is None:
        factor = 1.0
    elif isinstance(image_size, int):
        factor = image_size / max(width, height)
    else:
        factor = min(image_size[0] / height, image_size[1] / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


class _Picture:
    """A decoded image: its entry, resized pixels, original (height, width)."""

    def __init__(self, entry: ImageEntry, pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
        self.entry, self.pixels, self.size = entry, pixels, size


def _root(recipe: DataRecipe) -> Path:
    if recipe.root is None:
        raise DataError(f"data.root: is not set; {_FOLDER}")
    root = Path(recipe.root).expanduser()
    if not root.is_dir():
        raise DataError(f"data.root: no folder {root}; {_FOLDER}")
    for part in ("images", "annotations"):
        if not (root / part).is_dir():
            raise DataError(f"data.root: {root} holds no folder {part}/; {_FOLDER}")
    return root


def _decode_all(
    folder: Path, annotations: Annotations, image_size: ImageSize, problems: Problems
) -> dict[int, _Picture]:
    _check_memory(len(annotations.images), image_size, problems.source)
    pictures: dict[int, _Picture] = {}
    for entry in annotations.images:
        path = folder / entry.file_name
        try:
            pixels, size = decoded(path, entry.size, image_size)
        except ValueError as error:
            problems.droppable.append(f"image id {entry.id}: {path} {error}")
        else:
            pictures[entry.id] = _Picture(entry, pixels, size)
    return pictures


def decoded(
    path: Path, stated: tuple[int, int] | None, image_size: ImageSize = None
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Pixels (h, w, 3) of an image file at ``image_size``, and its (height, width) as its annotations mean it.

    Annotations are of the pixels as stored, as whatever is built on pycocotools reads them, unless they state a size
    that the picture has only when it is turned as its EXIF orientation says.

    Args:
        path: of the file.
        stated: (height, width) that its annotations are meant for; None where they do not say.
        image_size: see :func:`resized`.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    try:
        with Image.open(path) as image:
            meant = _as_meant(image, stated)
            pixels = resized(to_rgb(meant), image_size)
            size = (meant.size[1], meant.size[0])
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except DAMAGED as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    if stated is not None and stated != size:
        raise ValueError(
            f"is {size[1]}x{size[0]} px, the annotation file says {stated[1]}x{stated[0]}, so its boxes would be off"
        )
    return pixels, size


def _as_meant(image: Image.Image, stated: tuple[int, int] | None) -> Image.Image:
    """Turned as its EXIF says where only so it has the stated (height, width); else as it is stored."""
    if stated is None or stated == (image.size[1], image.size[0]):
        return image
    upright = ImageOps.exif_transpose(image)
    return upright if stated == (upright.size[1], upright.size[0]) else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel.

    Raises:
        ValueError: a pixel mode without a fixed range; and see :data:`DAMAGED`.
    """
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit microscopy to white instead of scaling it.
        eight_bit = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(eight_bit).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixel mode {image.mode} has no fixed range; store it with 8 or 16 bits a channel")
    return image.convert("RGB")


def _check_memory(count: int, image_size: ImageSize, source: Path) -> None:
    if image_size is None:
        return
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    needed = count * 3 * height * width
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.5 * present:
        raise DataError(
            f"{source}: {count} images at {width}x{height} px need {needed / 2**30:.1f} GiB, "
            f"and images are kept in memory; this machine has {present / 2**30:.1f} GiB. "
            f"Lower data.image_size or name fewer images"
        )


def _inside(
    annotations: Annotations, pictures: dict[int, _Picture], problems: Problems
) -> tuple[BoxEntry, ...]:
    """Boxes of decoded pictures; one without area inside its image is a problem."""
    kept: list[BoxEntry] = []
    for box in annotations.boxes:
        if box.image_id not in pictures:
            continue
        picture = pictures[box.image_id]
        if (fault := outside_fault(box.box, picture.size)) is not None:
            where = f"annotation id {box.id} (image id {box.image_id}, {picture.entry.file_name})"
            problems.droppable.append(f"{where}: {fault}")
        else:
            kept.append(box)
    return tuple(kept)


def _with_masks(
    boxes: tuple[BoxEntry, ...], pictures: dict[int, _Picture], problems: Problems
) -> tuple[BoxEntry, ...]:
    """Boxes with their masks; one whose segmentation cannot be used is a problem."""
    kept: list[BoxEntry] = []
    for box in boxes:
        picture = pictures[box.image_id]
        try:
            mask = read_mask(box.segmentation, picture.size)
        except ValueError as error:
            where = f"annotation id {box.id} (image id {box.image_id}, {picture.entry.file_name})"
            problems.droppable.append(f"{where}: its segmentation {error}")
        else:
            kept.append(replace(box, segmentation=None, mask=mask))
    return tuple(kept)


def _target(
    image_id: int,
    boxes: list[BoxEntry],
    labels: dict[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
) -> Target:
    corners = torch.tensor([box.box for box in boxes], dtype=torch.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners[:, 0::2] = corners[:, 0::2].clamp(0, size[1]) * scale[0]
    corners[:, 1::2] = corners[:, 1::2].clamp(0, size[0]) * scale[1]
    numbers: Tensor = torch.tensor([labels[box.category_id] for box in boxes], dtype=torch.int64)
    return Target(boxes=corners.float(), labels=numbers, image_id=image_id)


def _ground_truth(
    pictures: list[tuple[ImageEntry, npt.NDArray[np.uint8], tuple[int, int]]],
    boxes: tuple[BoxEntry, ...],
    categories: tuple[Category, ...],
) -> dict[str, list[dict[str, Any]]]:
    return {
        "images": [
            {"id": entry.id, "file_name": entry.file_name, "height": size[0], "width": size[1]}
            for entry, _, size in pictures
        ],
        "annotations": [
            {
                "id": box.id,
                "image_id": box.image_id,
                "category_id": box.category_id,
                "bbox": list(box.box),
                "area": box.area,
                "iscrowd": int(box.crowd),
                **({} if box.mask is None else {"segmentation": box.mask}),
            }
            for box in boxes
        ],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }
