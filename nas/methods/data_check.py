"""``nas data check``: a folder's problems, counts, pictures, and its objects against a detector's levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.config import apply_overrides, check
from nas.methods.catalog import baseline_of, check_search
from nas.methods.level_fields import Resized, pyramid_of
from nas.report.data import Box
from nas.report.data_facts import DataFacts, Picture, Pyramid, SplitCounts
from nas.report.data_page import render_data
from nas.report.pictures import jpeg
from nas.resolve import read_architecture
from nas.targets import read_recipe
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.files import write_atomic
from search_spaces.randomness import rng_for
from trainers.data.checking import SIZES, FolderCheck, SplitFacts, check_folder
from trainers.data.coco import decoded
from trainers.data.sizing import Fit, canvas_of
from trainers.data.stored import Say
from trainers.recipes import DataRecipe, DetectorRecipe

PICTURES = 12
BACKBONE = "resnet50"
"""Looked at where neither a person nor the recipe of a search names one."""

_PICTURE_SIDE = 480


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What a folder is looked at for.

    Args:
        fit: how images are resized.
        masks: segmentations have to be usable.
        detector: None: nothing is said about levels.
        backbone: what a person calls it.
        architecture: of it.
    """

    fit: Fit
    masks: bool
    detector: DetectorRecipe | None
    backbone: str
    architecture: Architecture | None


def read_settings(
    recipe: Path | None = None,
    *,
    detector: str | None = None,
    levels: Sequence[str] = (),
    backbone: str | None = None,
    sets: Sequence[str] = (),
) -> CheckSettings:
    """Data and detector of a recipe, or of the words on the command line, which win over a recipe's.

    Args:
        recipe: of a search or a training.
        detector: a name of the catalog.
        levels: of the backbone, fine to coarse.
        backbone: a name, a bundle or a run; else the baseline of a search's recipe, else resnet50.
        sets: as of ``--set``.

    Raises:
        ConfigError: one line a problem.
    """
    data: Mapping[str, Any] = apply_overrides({}, sets) if recipe is None else dict(read_recipe(recipe, sets))
    words = [f"detector.name={detector}"] if detector is not None else []
    words += [f"detector.levels=[{', '.join(levels)}]"] if levels else []
    data = apply_overrides(data, words)
    source = "nas data check" if recipe is None else str(recipe)
    images = check(DataRecipe, data.get("data") or {}, source=f"{source}: data")
    wanted = recipe is not None or data.get("detector") is not None
    found = (
        check(DetectorRecipe, data.get("detector") or {}, source=f"{source}: detector") if wanted else None
    )
    architecture = None
    name = backbone or BACKBONE
    if wanted and backbone is None and "space" in data:
        architecture, name = baseline_of(check_search(data, source=source)), "the search's baseline"
    elif wanted:
        architecture = read_architecture(name)
    return CheckSettings(
        fit=images.fit,
        masks=images.masks,
        detector=found,
        backbone=name,
        architecture=architecture,
    )


def check_data(
    root: Path,
    settings: CheckSettings,
    *,
    effective: bool = False,
    pictures: int = PICTURES,
    seed: int = 0,
    say: Say | None = None,
) -> DataFacts:
    """Everything there is to say about a folder.

    Args:
        root: in COCO form.
        settings: see :func:`read_settings`.
        effective: measure the levels' effective fields too.
        pictures: to draw.
        seed: of their choice.
        say: see :func:`trainers.data.checking.check_folder`.

    Raises:
        DataError: there is no such folder.
    """
    found = check_folder(root, masks=settings.masks, say=say)
    boxes, canvas = _resized(found, settings.fit)
    pyramid: Pyramid | None = None
    fault: str | None = None
    if settings.detector is not None and settings.architecture is not None and boxes:
        try:
            pyramid = pyramid_of(
                boxes,
                recipe=settings.detector,
                architecture=settings.architecture,
                backbone=settings.backbone,
                canvas=canvas,
                num_classes=max(len(split.by_class) for split in found.splits),
                effective=effective,
                seed=seed,
            )
        except ConfigError as error:
            fault = str(error)
    return DataFacts(
        root=str(root),
        splits=tuple(_counts(split) for split in found.splits),
        problems=found.problems,
        warnings=found.warnings,
        resized=str(settings.fit),
        lengths=tuple(sorted(box.length for box in boxes)),
        pyramid=pyramid,
        pyramid_fault=fault,
        pictures=_pictures(root, found, pictures, seed),
        seed=seed,
    )


def write_page(facts: DataFacts, path: Path) -> Path:
    """Write the check as one self-contained page."""
    write_atomic(path, render_data(facts).encode())
    return path


def _counts(split: SplitFacts) -> SplitCounts:
    return SplitCounts(
        name=split.name,
        images=len(split.sizes),
        empty=split.empty,
        objects=len(split.objects),
        crowds=split.crowds,
        by_size=dict(zip(SIZES, split.by_size, strict=True)),
        by_class=split.by_class,
    )


def _resized(found: FolderCheck, fit: Fit) -> tuple[list[Resized], tuple[int, int]]:
    """Objects of all splits in resized px, inside their images, and the (height, width) that images are padded to."""
    boxes: list[Resized] = []
    tallest = widest = 1.0
    for split in found.splits:
        for height, width in split.sizes.values():
            factor = fit.factor((height, width))
            tallest, widest = max(tallest, height * factor), max(widest, width * factor)
        for box in split.objects:
            height, width = split.sizes[box.image_id]
            factor = fit.factor((height, width))
            x, y, across, down = box.box
            boxes.append(
                Resized(
                    factor * max(x, 0.0),
                    factor * max(y, 0.0),
                    factor * min(x + across, width),
                    factor * min(y + down, height),
                )
            )
    if fit.canvas is not None:
        tallest, widest = fit.canvas
    if fit.sides is not None:
        sizes = (size for split in found.splits for size in split.sizes.values())
        tallest, widest = canvas_of(fit.sides, (height > width for height, width in sizes))
    return boxes, (-(-round(tallest) // 32) * 32, -(-round(widest) // 32) * 32)


def _pictures(root: Path, found: FolderCheck, count: int, seed: int) -> tuple[Picture, ...]:
    """Images of all splits with their boxes, chosen by the seed among those that show something."""
    choices = []
    for split in found.splits:
        shown = {box.image_id for box in split.objects}
        choices += [(split, entry) for entry in split.annotations.images if entry.id in shown]
    chosen = rng_for(seed, "pictures").sample(choices, min(count, len(choices)))
    pictures = []
    for split, entry in chosen:
        size = split.sizes[entry.id]
        side = min(_PICTURE_SIDE, max(size))
        pixels, _ = decoded(root / "images" / entry.file_name, entry.size, Fit(side))
        names = {category.id: category.name for category in split.annotations.categories}
        across, down = pixels.shape[1] / size[1], pixels.shape[0] / size[0]
        boxes = tuple(
            Box(
                x=box.box[0] * across,
                y=box.box[1] * down,
                width=box.box[2] * across,
                height=box.box[3] * down,
                label=names[box.category_id],
            )
            for box in split.objects
            if box.image_id == entry.id
        )
        pictures.append(
            Picture(
                split=split.name,
                file_name=entry.file_name,
                width=pixels.shape[1],
                height=pixels.shape[0],
                jpeg=jpeg(torch.from_numpy(pixels).permute(2, 0, 1)),
                boxes=boxes,
            )
        )
    return tuple(pictures)
