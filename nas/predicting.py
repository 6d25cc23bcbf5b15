"""``nas predict``: what a bundle's detector finds on pictures, drawn on copies and written in COCO's form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nas.drawing import drawn
from nas.export.detector import LoadedDetector, load_detector
from nas.pictures import OnBad, find_pictures, open_upright
from nas.progress import RunProgress, Silent
from search_spaces.errors import ConfigError, RunError
from search_spaces.files import write_atomic
from trainers.data.annotations import ImageEntry
from trainers.data.assembling import assemble
from trainers.data.coco import resized
from trainers.data.sizing import canvas_of
from trainers.evaluate import detect
from trainers.loop import resolve_device

PREDICTIONS = "predictions.json"
"""A list in COCO's result form: what ``COCO.loadRes`` of pycocotools reads."""
IMAGES = "images.json"
"""``images`` and ``categories``: the names of the ids in :data:`PREDICTIONS`."""
DRAWN = "drawn"
_JPEG = (".jpg", ".jpeg")
_QUALITY = 92
# Batches whose pictures are in memory at most.
_WAITING = 4


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was looked at, found and written.

    Attributes:
        out: folder of everything.
        images: pictures.
        detections: on all of them.
        skipped: pictures left out, one sentence each.
        others: files of the folders that are no pictures by their names.
    """

    out: Path
    images: int
    detections: int
    skipped: tuple[str, ...]
    others: int


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A picture of a batch to come."""

    entry: ImageEntry
    picture: Image.Image
    pixels: Any
    target: Path


def predict(
    bundle: Path,
    sources: Sequence[Path],
    out: Path,
    *,
    batch: int = 8,
    threshold: float = 0.3,
    device: str = "auto",
    on_bad: OnBad = "error",
    trust_code: bool = False,
    progress: RunProgress | None = None,
) -> Predicted:
    """Look for objects on pictures.

    Every picture is fitted as those of the training were and padded to their size, or to a larger one where it needs
    that; so what is found on it does not depend on the pictures beside it.

    Args:
        bundle: with a trained detector.
        sources: pictures, and folders of pictures.
        out: a new or an empty folder for ``predictions.json``, ``images.json`` and the copies in ``drawn/``.
        batch: pictures at a time, of equal padded size.
        threshold: detections of a lower score are left out; the detector leaves out those below its own threshold
            anyhow.
        device: ``auto`` takes a GPU where there is one.
        on_bad: ``error`` stops before anything is spent where a picture cannot be used, ``skip`` leaves it out.
        trust_code: see :func:`nas.export.detector.load_detector`.
        progress: listens.

    Raises:
        ConfigError: an option out of its range.
        RunError: no bundle of a detector, one that was changed, or ``out`` holds something.
        DataError: what is wrong with the pictures, all of it.
    """
    if batch < 1:
        raise ConfigError(f"--batch: found {batch}; allowed is at least 1")
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"--threshold: found {threshold:g}; allowed is a score from 0 to 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"--out: {out} is there already and not empty; name a new or an empty folder")
    progress = progress or Silent()
    torch_device = resolve_device(device)
    loaded = load_detector(bundle, trust_code=trust_code)
    found = find_pictures(sources, on_bad)
    loaded.detector.to(torch_device)
    (out / DRAWN).mkdir(parents=True, exist_ok=True)
    progress.phase(f"looking at {len(found.pictures)} pictures", len(found.pictures))
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    waiting: dict[tuple[int, int], list[_Waiting]] = {}
    done = 0

    def look(canvas: tuple[int, int]) -> None:
        nonlocal done
        some = waiting.pop(canvas)
        results.extend(_found(loaded, some, canvas, threshold, torch_device))
        done += len(some)
        progress.advance(done, f"{len(results)} objects")

    for number, path in enumerate(found.pictures, start=1):
        picture = open_upright(path)
        pixels = resized(picture, loaded.fit)
        size = (picture.height, picture.width)
        target = out / DRAWN / f"{number:05d}_{path.stem}{'.jpg' if path.suffix.lower() in _JPEG else '.png'}"
        entry = ImageEntry(id=number, file_name=str(path), size=size)
        images.append(
            {
                "id": number,
                "file_name": str(path),
                "height": size[0],
                "width": size[1],
                "drawn": target.relative_to(out).as_posix(),
            }
        )
        canvas = _canvas((pixels.shape[0], pixels.shape[1]), loaded)
        group = waiting.setdefault(canvas, [])
        group.append(_Waiting(entry=entry, picture=picture, pixels=pixels, target=target))
        if len(group) == batch:
            look(canvas)
        elif sum(map(len, waiting.values())) >= _WAITING * batch:
            # Of as many sizes as pictures all would wait for others of theirs.
            look(max(waiting, key=lambda one: len(waiting[one])))
    for canvas in list(waiting):
        look(canvas)
    results.sort(key=lambda one: (one["image_id"], -one["score"]))
    categories = [{"id": one.id, "name": one.name} for one in loaded.categories]
    write_atomic(out / PREDICTIONS, _json(results))
    write_atomic(out / IMAGES, _json({"images": images, "categories": categories}))
    return Predicted(
        out=out,
        images=len(images),
        detections=len(results),
        skipped=found.skipped,
        others=found.others,
    )


def _found(
    loaded: LoadedDetector,
    some: Sequence[_Waiting],
    canvas: tuple[int, int],
    threshold: float,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Results of a batch, after they are drawn."""
    data = assemble(
        pictures=[(one.entry, one.pixels, (one.picture.height, one.picture.width)) for one in some],
        boxes=(),
        categories=loaded.categories,
        canvas=canvas,
        digest="",
    )
    every = detect(loaded.detector, data, batch_size=len(some), device=device)
    kept = [one for one in every if one["score"] >= threshold]
    names = {one.id: one.name for one in loaded.categories}
    for one in some:
        copy = drawn(one.picture, [result for result in kept if result["image_id"] == one.entry.id], names)
        copy.save(one.target, quality=_QUALITY)
    return kept


def _canvas(size: tuple[int, int], loaded: LoadedDetector) -> tuple[int, int]:
    """The (height, width) of the training's images, each larger where a picture needs it.

    Where the training's were of either orientation, the one of the picture.
    """
    usual = loaded.image_size
    if loaded.fit.sides is not None:
        usual = canvas_of(loaded.fit.sides, [size[0] > size[1]])
    height, width = (
        max(least, -(-side // loaded.multiple) * loaded.multiple)
        for least, side in zip(usual, size, strict=True)
    )
    return height, width


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
