"""Folders in COCO form: ``images/`` and ``annotations/{train,val}.json``."""

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL import __version__ as PILLOW

from search_spaces.errors import DataError
from trainers.data.annotations import (
    Annotations,
    BoxEntry,
    ImageEntry,
    Problems,
    outside_fault,
    read_annotations,
)
from trainers.data.assembling import Pictures, assembled, pictures_in_memory
from trainers.data.detection_set import DetectionSet
from trainers.data.masks import read_mask
from trainers.data.sizing import AS_STORED, Fit, canvas_of
from trainers.data.stored import Decoded, Say, stored_split
from trainers.recipes import DataRecipe

# Threads that decode at once; more of them wait for the disk.
_MOST_THREADS = 16

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


def open_coco(recipe: DataRecipe, split: str, copies: int, say: Say) -> DetectionSet:
    """Read, check and decode one split; see :func:`trainers.data.catalog.open_split`.

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
    if recipe.cache is None:
        _check_memory(annotations.images, recipe.fit, source, copies)
        pictures = _in_memory(root / "images", annotations, recipe, problems, content)
    else:
        pictures = _in_file(root / "images", annotations, recipe, problems, content, say)
    boxes = _inside(annotations, pictures, problems)
    if recipe.masks:
        boxes = _with_masks(boxes, pictures, problems)
    skipped = problems.settle()
    if not pictures.entries:
        raise DataError(f"{source}: no usable image; {_FOLDER}")
    return assembled(
        pictures,
        boxes=boxes,
        categories=annotations.categories,
        canvas=recipe.fit.canvas,
        sides=recipe.fit.sides,
        skipped=skipped,
        masks=recipe.masks,
        licence=recipe.licence or annotations.licence,
    )


def resized(image: Image.Image, fit: Fit) -> npt.NDArray[np.uint8]:
    """RGB pixels (h, w, 3) at the recipe's size, aspect ratio kept, antialiased bilinear."""
    width, height = image.size
    size = fit.resized((height, width))[::-1]
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


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


def _in_memory(
    folder: Path, annotations: Annotations, recipe: DataRecipe, problems: Problems, content: bytes
) -> Pictures:
    entries, pixels, sizes = [], [], []
    digest = hashlib.sha256(content)
    for entry, found in zip(annotations.images, _decoded(folder, annotations, recipe.fit), strict=True):
        if isinstance(found, str):
            problems.droppable.append(found)
            continue
        entries.append(entry)
        pixels.append(found[0])
        sizes.append(found[1])
        digest.update(f"{entry.file_name} ".encode())
        digest.update(found[0].tobytes())
    return pictures_in_memory(entries, pixels, sizes, digest=digest.hexdigest())


def _in_file(
    folder: Path, annotations: Annotations, recipe: DataRecipe, problems: Problems, content: bytes, say: Say
) -> Pictures:
    """The same from a file that is written once, and read by all processes of a machine."""
    assert recipe.cache is not None
    names = [entry.file_name for entry in annotations.images]
    files = [_file_facts(folder / name) for name in names]
    written = hashlib.sha256(content).hexdigest()
    size = [recipe.image_size, recipe.orientation] if recipe.fit.either_way else recipe.image_size
    facts = [1, PILLOW, written, size, list(zip(names, files, strict=True))]
    found = stored_split(
        Path(recipe.cache).expanduser(),
        key=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32],
        names=names,
        decode=partial(_decoded, folder, annotations, recipe.fit, threads=_threads(), lasting=True),
        most=_bytes_at_most(annotations.images, recipe.fit),
        digest=hashlib.sha256(content),
        say=say,
    )
    problems.droppable.extend(found.faults)
    return Pictures(
        entries=tuple(annotations.images[place] for place in found.places),
        contents=found.contents,
        sizes=found.sizes,
        padded=found.images,
        digest=found.digest,
    )


def _decoded(
    folder: Path,
    annotations: Annotations,
    fit: Fit,
    *,
    threads: int = 1,
    lasting: bool = False,
) -> Iterator[Decoded]:
    """Every picture in order, or what is wrong with it.

    Args:
        folder: of the files.
        annotations: name them.
        fit: how they are resized.
        threads: that decode.
        lasting: what is found will be taken for true later on, so that a picture which cannot be read now is an error.
    """

    def one(entry: ImageEntry) -> Decoded:
        path = folder / entry.file_name
        try:
            return decoded(path, entry.size, fit)
        except ValueError as error:
            cause = error.__cause__
            # Pillow's own have no number; those of the system (too many open files, a disk that is gone) pass.
            if lasting and isinstance(cause, OSError) and cause.errno is not None:
                raise DataError(f"{path} {error}; correct that and start again, nothing was kept") from error
            return f"image id {entry.id}: {path} {error}"

    if threads == 1:
        yield from map(one, annotations.images)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        # A part at a time, for what is decoded waits in memory.
        for start in range(0, len(annotations.images), 8 * threads):
            yield from pool.map(one, annotations.images[start : start + 8 * threads])


def _threads() -> int:
    # Not every system tells a process its own.
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, here)


def _file_facts(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _bytes_at_most(entries: Sequence[ImageEntry], fit: Fit) -> int | None:
    """Of the decoded pictures; None where neither they nor the recipe say how large they are."""
    total = 0
    for entry in entries:
        pixels = fit.most_pixels if entry.size is None else math.prod(fit.resized(entry.size))
        if pixels is None:
            return None
        total += 3 * pixels
    return total


def decoded(
    path: Path, stated: tuple[int, int] | None, fit: Fit = AS_STORED
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Pixels (h, w, 3) of an image file as ``fit`` has them, and its (height, width) as its annotations mean it.

    Annotations are of the pixels as stored, as whatever is built on pycocotools reads them, unless they state a size
    that the picture has only when it is turned as its EXIF orientation says.

    Args:
        path: of the file.
        stated: (height, width) that its annotations are meant for; None where they do not say.
        fit: how it is resized.

    Raises:
        ValueError: what is wrong with it, as the rest of a sentence.
    """
    try:
        with Image.open(path) as image:
            meant = _as_meant(image, stated)
            pixels = resized(to_rgb(meant), fit)
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


def _check_memory(entries: Sequence[ImageEntry], fit: Fit, source: Path, copies: int) -> None:
    room, count = fit.room, len(entries)
    if room is None:
        return
    sizes = [entry.size for entry in entries if entry.size is not None]
    if fit.sides is not None and len(sizes) == count:
        room = canvas_of(fit.sides, (height > width for height, width in sizes))
    height, width = room
    needed = copies * count * 3 * height * width
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.5 * present:
        each = "" if copies == 1 else f" in {copies} processes, each with a copy of its own"
        raise DataError(
            f"{source}: {count} images at {width}x{height} px need {needed / 2**30:.1f} GiB{each}, "
            f"and images are kept in memory; this machine has {present / 2**30:.1f} GiB. "
            f"Lower data.image_size, name fewer images, or let all processes read one file: --set data.cache=DIR"
        )


def _inside(annotations: Annotations, pictures: Pictures, problems: Problems) -> tuple[BoxEntry, ...]:
    """Boxes of decoded pictures; one without area inside its image is a problem."""
    places = pictures.places()
    kept: list[BoxEntry] = []
    for box in annotations.boxes:
        if box.image_id not in places:
            continue
        place = places[box.image_id]
        if (fault := outside_fault(box.box, pictures.sizes[place])) is not None:
            where = f"annotation id {box.id} (image id {box.image_id}, {pictures.entries[place].file_name})"
            problems.droppable.append(f"{where}: {fault}")
        else:
            kept.append(box)
    return tuple(kept)


def _with_masks(boxes: tuple[BoxEntry, ...], pictures: Pictures, problems: Problems) -> tuple[BoxEntry, ...]:
    """Boxes with their masks; one whose segmentation cannot be used is a problem."""
    places = pictures.places()
    kept: list[BoxEntry] = []
    for box in boxes:
        place = places[box.image_id]
        try:
            mask = read_mask(box.segmentation, pictures.sizes[place])
        except ValueError as error:
            where = f"annotation id {box.id} (image id {box.image_id}, {pictures.entries[place].file_name})"
            problems.droppable.append(f"{where}: its segmentation {error}")
        else:
            kept.append(replace(box, segmentation=None, mask=mask))
    return tuple(kept)
