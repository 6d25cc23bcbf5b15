"""``nas train --dry-run``: what a training will be, before anything of it is. Nothing is written and nothing kept.

The detector is built without weights, so that what a training would refuse at its door is refused here; a few steps of
small batches say how long the whole takes on this machine.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nas.methods.rehearsing import WARM, peak_memory, seconds_a_step
from nas.planning import Place
from nas.recipes.train_job import TrainJobRecipe
from nas.resolve import read_architecture
from nas.schedule import Event, SharedBatch, schedule_events, share_batch
from nas.training import detector_for, evaluate_detector, trained_architecture
from search_spaces.architecture import Architecture
from search_spaces.catalog import FAMILIES, family_of
from search_spaces.errors import ConfigError, DataError
from search_spaces.recipe import FieldError
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, require_same_categories
from trainers.data.made_up import made_up_set
from trainers.data.stored import Say
from trainers.detectors.catalog import build_detector
from trainers.detectors.cost import HEADS, count_detector
from trainers.detectors.detector import Detector
from trainers.loop import Trainer, require_trainable, resolve_device, total_steps
from trainers.precision import settled
from trainers.process import prepare_process

MEASURED = 20.0
"""Seconds of measuring, about, when nothing is said."""
CLASSES = 80
"""Categories where there are no data to count them in; COCO's."""
_FIRST = 2
_TINY_LR = 1e-8
_ENOUGH_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast this machine trains.

    Args:
        seconds_an_image: in passes as large as the training's.
        images: of the largest measured step.
        real: whether they were the recipe's; else made up.
        evaluation: seconds an image of ``val``, times all evaluations; None where there is no ``val`` to count.
        measured: seconds that measuring took.
    """

    seconds_an_image: float
    images: int
    real: bool
    evaluation: float | None
    measured: float


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a training will be.

    Args:
        recipe: with the shared batch in it.
        network: that would be trained.
        images: of the training split.
        given: whether a person said how many; else they were counted.
        classes: categories.
        size: (height, width) px of every image as it enters.
        params: of the detector as it is built.
        macs: of the detector for one image; None for one of a person's own.
        steps: of the optimiser.
        events: of the learning rate.
        batch: over the GPUs.
        pace: None where nothing was measured.
        place: what the time is also said for; None without.
        image_bytes: of the pixels of all splits that a training keeps, in every process or in one file for all.
        notes: what a person should know besides, in sentences.
    """

    recipe: TrainJobRecipe
    network: Architecture
    images: int
    given: bool
    classes: int
    size: tuple[int, int]
    params: int
    macs: int | None
    steps: int
    events: tuple[Event, ...]
    batch: SharedBatch
    pace: Pace | None
    place: Place | None
    image_bytes: int
    notes: tuple[str, ...]

    @property
    def learned_from(self) -> int:
        """Images of all steps together."""
        return self.steps * self.recipe.train.batch_size

    @property
    def seconds(self) -> float | None:
        """On this machine, evaluations included where they can be counted."""
        if self.pace is None:
            return None
        return self.learned_from * self.pace.seconds_an_image + (self.pace.evaluation or 0.0)

    @property
    def seconds_there(self) -> float | None:
        """In the described place, whose devices share every step without loss."""
        if self.seconds is None or self.place is None:
            return None
        return self.seconds / (self.place.workers * self.place.speed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        train = self.recipe.train
        return {
            "recipe": self.recipe.name,
            "network": family_of(self.network).text(self.network),
            "digest": self.network.digest,
            "detector": self.recipe.detector.kind,
            "params": self.params,
            "macs": self.macs,
            "input": list(self.size),
            "classes": self.classes,
            "images": self.images,
            "images_given": self.given,
            "batch_size": train.batch_size,
            "amp": train.amp,
            "epochs": self.learned_from / self.images,
            "steps": self.steps,
            "steps_an_epoch": self.images / train.batch_size,
            "images_learned_from": self.learned_from,
            "schedule": [asdict(event) for event in self.events],
            "shared_batch": asdict(self.batch),
            "pace": None if self.pace is None else asdict(self.pace),
            "hours": None if self.seconds is None else self.seconds / 3600,
            "hours_there": None if self.seconds_there is None else self.seconds_there / 3600,
            "image_bytes": self.image_bytes,
            "image_copies": 1 if self.recipe.data.cache else self.batch.gpus,
            "notes": list(self.notes),
        }


def dry_run(
    bundle: str,
    recipe: TrainJobRecipe,
    *,
    images: int | None = None,
    classes: int | None = None,
    gpus: int | None = None,
    per_gpu: int | None = None,
    speed: float = 1.0,
    measure: float = MEASURED,
    say: Say | None = None,
) -> DryRun:
    """Work a training out.

    Args:
        bundle: what :func:`nas.resolve.read_architecture` takes.
        recipe: of the training.
        images: of the training split; None opens it.
        classes: categories, where ``images`` are given; 80 when left out.
        gpus: that shall share every batch; None: the recipe's ``ranks``.
        per_gpu: images that fit one of them at a time.
        speed: of one of them, in that of this machine.
        measure: seconds to be spent on it, about; 0 measures nothing.
        say: takes lines for a person while pictures are decoded into ``data.cache``.

    Raises:
        ConfigError: what the training would refuse before its first step; a batch that cannot be shared so; a number
            that makes no sense.
        DataError: images were not given, and there are none.
    """
    shared = share_batch(recipe.train, gpus=recipe.ranks if gpus is None else gpus, per_gpu=per_gpu)
    described = gpus is not None or speed != 1.0
    place = Place(workers=shared.gpus, speed=speed) if described else None
    recipe, precision = _with_precision(_shared(recipe, shared))
    network = trained_architecture(read_architecture(bundle), recipe)
    if images is None:
        train_set, val = _opened(recipe, classes, say)
        count = len(train_set)
    else:
        train_set, val, count = _made_up(recipe, images, classes), None, images
    height, width = train_set.image_size
    if recipe.data.fit.either_way and recipe.data.cache is None:
        # In memory every picture has room for one of either orientation.
        height = width = max(height, width)
    kept = 3 * height * width * count if val is None else train_set.image_bytes + val.image_bytes
    params = _parameters(network, recipe, train_set)
    macs = None
    if recipe.detector.name in HEADS:
        whole = count_detector(network, recipe.detector, train_set.num_classes, train_set.usual_size)
        macs = whole.total.macs
    pace = _measured(network, recipe, train_set, val, measure) if measure else None
    return DryRun(
        recipe=recipe,
        network=network,
        images=count,
        given=images is not None,
        classes=train_set.num_classes,
        size=train_set.usual_size,
        params=params,
        macs=macs,
        steps=total_steps(recipe.train, count),
        events=schedule_events(recipe.train, count),
        batch=shared,
        pace=pace,
        place=place,
        image_bytes=kept,
        notes=(*precision, *_notes(recipe, shared, pace, place)),
    )


def _shared(recipe: TrainJobRecipe, batch: SharedBatch) -> TrainJobRecipe:
    """The recipe as so many GPUs carry it out."""
    try:
        train = replace(recipe.train, accumulate=batch.accumulate)
        return replace(recipe, ranks=batch.gpus, train=train)
    except FieldError as error:
        raise ConfigError(str(error)) from error


def _opened(
    recipe: TrainJobRecipe, classes: int | None, say: Say | None
) -> tuple[DetectionSet, DetectionSet]:
    if classes is not None:
        raise ConfigError(f"--classes: found {classes}; it goes with --images, the data say it themselves")
    try:
        train_set, val = (open_split(recipe.data, split, say=say) for split in ("train", "val"))
    except DataError as error:
        raise DataError(f"{error}\nor say with --images N how many there are, and none are read") from error
    require_same_categories(train_set, val)
    return train_set, val


def _made_up(recipe: TrainJobRecipe, images: int, classes: int | None) -> DetectionSet:
    for name, found in (("images", images), ("classes", classes)):
        if found is not None and found < 1:
            raise ConfigError(f"--{name}: found {found}; allowed is 1 or more")
    if classes is None:
        classes = len(recipe.data.digits.classes) if recipe.data.source == "digits" else CLASSES
    return made_up_set(recipe.data, images=_FIRST, classes=classes)


def _parameters(network: Architecture, recipe: TrainJobRecipe, data: DetectionSet) -> int:
    """Of the detector, built without weights where it is ours, so that whatever does not fit is refused."""
    ours = recipe.detector.name in HEADS and network.family in FAMILIES
    with torch.device("meta" if ours else "cpu"):
        backbone = family_of(network).build(network, seed=recipe.seed)
        detector = build_detector(
            recipe.detector, backbone, data.num_classes, data.usual_size, seed=recipe.seed
        )
    require_trainable(backbone, replace(recipe.train, compile=False), torch.device("cpu"))
    detector.batches(data, recipe.train, recipe.seed)
    return sum(one.numel() for one in detector.parameters())


def _measured(
    network: Architecture,
    recipe: TrainJobRecipe,
    train_set: DetectionSet,
    val: DetectionSet | None,
    seconds: float,
) -> Pace:
    """Steps of two images, then of twice as many, as long as there is time and memory for it."""
    began = time.perf_counter()
    prepare_process(recipe.threads)
    device = resolve_device(recipe.device)
    detector = detector_for(network, recipe, train_set)
    most = recipe.train.micro_batch // recipe.ranks
    size = min(_FIRST, most)
    tried = [(size, _seconds_a_step(detector, recipe, train_set, size, seconds / 4))]
    while 2 * size <= most and _fits(2 * tried[-1][1], seconds - (time.perf_counter() - began)):
        try:
            each = _seconds_a_step(detector, recipe, train_set, 2 * size, seconds / 4)
        except torch.OutOfMemoryError:
            break
        size *= 2
        tried.append((size, each))
    evaluation = None
    if val is not None:
        trainer = Trainer(
            detector=detector,
            data=train_set,
            recipe=recipe.train,
            seed=recipe.seed,
            directory=None,
            device=device,
            evaluate=lambda _: {},
        )
        looked = val.subset(range(min(size, len(val))))
        start = time.perf_counter()
        evaluate_detector(detector, looked, recipe, device)
        # Once more than in training, for the result.
        looks = len(trainer.evaluation_steps()) + 1
        evaluation = looks * len(val) * (time.perf_counter() - start) / len(looked)
    return Pace(
        seconds_an_image=seconds_a_pass(tried, most) / most,
        images=size,
        real=val is not None,
        evaluation=evaluation,
        measured=time.perf_counter() - began,
    )


def seconds_a_pass(tried: Sequence[tuple[int, float]], images: int) -> float:
    """Seconds of a pass of so many images, by the line through the last two sizes that were tried.

    A part of a step (the optimiser's) does not grow with its images. Two noisy times may say that hardly anything
    grows, so an image more is taken to cost at least half of what it costs on average.

    Args:
        tried: (images, seconds), rising; with one of them seconds are proportional to images.
        images: at least as many as the last.
    """
    size, seconds = tried[-1]
    mean = seconds / size
    slope = mean
    if len(tried) > 1:
        before, less = tried[-2]
        slope = min(mean, max(0.5 * mean, (seconds - less) / (size - before)))
    return seconds + slope * (images - size)


def _seconds_a_step(
    detector: Detector, recipe: TrainJobRecipe, data: DetectionSet, size: int, seconds: float
) -> float:
    """Of one step of so many images; weights hardly move, so that no loss becomes infinite."""
    train = replace(
        recipe.train,
        epochs=None,
        steps=_ENOUGH_STEPS,
        batch_size=size,
        accumulate=1,
        lr=_TINY_LR,
        lr_batch=None,
        warmup_lr=None,
        schedule="cosine",
        checkpoint_every=0,
    )
    trainer = Trainer(
        detector=detector,
        data=data,
        recipe=train,
        seed=recipe.seed,
        directory=None,
        device=resolve_device(recipe.device),
    )
    first = trainer.run(1)
    # Where one step takes all the time there is, a second would only say it again.
    return first.seconds if first.seconds >= seconds else seconds_a_step(trainer, seconds)


def _fits(step: float, left: float) -> bool:
    """Whether steps of so many seconds can be tried in what is left, and memory for them is there."""
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (WARM + 1) * step < left and 4 * peak_memory() < present


def _with_precision(recipe: TrainJobRecipe) -> tuple[TrainJobRecipe, tuple[str, ...]]:
    """The recipe in the precision that ``auto`` is here, and what to say of it."""
    if recipe.train.amp != "auto":
        return recipe, ()
    elsewhere = "it is decided where the training begins"
    try:
        device = resolve_device(recipe.device)
    except ConfigError:
        return recipe, (f"train.amp: auto; this machine has no {recipe.device}, and {elsewhere}",)
    train = settled(recipe.train, device)
    known = "has" if train.amp == "bf16" else "is not known to have"
    note = (
        f"train.amp: auto is {train.amp} on this machine, whose {device.type} {known} bfloat16 arithmetic; "
        f"{elsewhere}"
    )
    return replace(recipe, train=train), (note,)


def _notes(
    recipe: TrainJobRecipe, batch: SharedBatch, pace: Pace | None, place: Place | None
) -> tuple[str, ...]:
    found = []
    if recipe.train.frozen_bn:
        found.append(
            "batch normalisation of the backbone is frozen; what follows holds for that of the heads"
        )
    if batch.lowered_from is not None:
        found.append(
            f"train.accumulate: {batch.accumulate} and not the recipe's {batch.lowered_from}, for each of {batch.gpus} "
            f"GPUs takes {counted_images(batch.per_gpu)} a step"
        )
    if batch.accumulate > 1:
        found.append(
            f"batch normalisation sees {counted_images(batch.together)} at a time and not the "
            f"{recipe.train.batch_size} of a step"
        )
    if recipe.init != "scratch":
        found.append(f"init: {recipe.init}: whether these weights are there is not looked at")
    if pace is not None and pace.evaluation is None:
        found.append("evaluations are not in the time: images of val are not known")
    if pace is not None and place is not None and place.workers > 1:
        found.append("what GPUs tell each other takes time that is not counted")
    return tuple(found)


def counted_images(count: int) -> str:
    """So many images, as a person says it."""
    return f"{count:,} image{'s' if count != 1 else ''}"
