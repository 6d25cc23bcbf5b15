"""What a training recipe comes to on so many images: the learning rate at every event, and a batch over many GPUs."""

import math
from dataclasses import dataclass

from search_spaces.errors import ConfigError
from trainers.loop import learning_rate, total_steps
from trainers.recipes import TrainRecipe
from trainers.sharing import most_micro_batches

_COSINE_PARTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A step at which something happens to the learning rate.

    Args:
        name: what happens.
        step: from which on, counted from 0.
        epoch: passes over the images before it.
        images: learned from before it.
        lr: of this step.
    """

    name: str
    step: int
    epoch: float
    images: int
    lr: float


def schedule_events(train: TrainRecipe, images: int) -> tuple[Event, ...]:
    """Start, end of the warm-up, every jump (of a cosine each quarter) and the last step, in their order.

    Args:
        train: length, rate and schedule.
        images: of the training split.
    """
    total = total_steps(train, images)
    places = {0: "start"}
    for step, name in (_curve if train.schedule == "cosine" else _jumps)(train, images, total):
        places[step] = name
    if 0 < train.warmup_steps < total:
        places[train.warmup_steps] = "end of warm-up"
    places.setdefault(total - 1, "last step")
    return tuple(
        Event(
            name=name,
            step=step,
            epoch=step * train.batch_size / images,
            images=step * train.batch_size,
            lr=learning_rate(train, step, images),
        )
        for step, name in sorted(places.items())
        if step < total
    )


def _curve(train: TrainRecipe, images: int, total: int) -> list[tuple[int, str]]:
    del train, images
    return [(round(part * total), f"{part:.0%} of the steps") for part in _COSINE_PARTS]


def _jumps(train: TrainRecipe, images: int, total: int) -> list[tuple[int, str]]:
    if train.schedule == "milestones":
        points = [point * total for point in train.milestones]
    else:
        points = [total - epochs * images / train.batch_size for epochs in train.final_epochs]
    # As the loop compares: the first step that is not before the point.
    return [(max(0, math.ceil(point)), f"times {train.gamma:g}") for point in points]


@dataclass(frozen=True, kw_only=True)
class SharedBatch:
    """A step's images over several GPUs.

    Args:
        gpus: that share each batch.
        accumulate: micro-batches a step is cut into.
        per_gpu: images a GPU sees in a step.
        per_pass: images a GPU has in memory at a time.
        together: images whose statistics batch normalisation sees together, those of one pass on all GPUs.
        lr_per_image: peak learning rate over the images of a step.
        lowered_from: micro-batches of the recipe, where these GPUs cannot cut their share into so many.
    """

    gpus: int
    accumulate: int
    per_gpu: int
    per_pass: int
    together: int
    lr_per_image: float
    lowered_from: int | None = None


def share_batch(train: TrainRecipe, *, gpus: int, per_gpu: int | None = None) -> SharedBatch:
    """How so many GPUs come to the recipe's batch.

    Args:
        train: whose ``batch_size`` is that of all GPUs and micro-batches together.
        gpus: at least 1.
        per_gpu: images that fit a GPU at a time; None leaves the recipe's ``accumulate``, or takes the largest below it
            that cuts a GPU's images into equal passes.

    Raises:
        ConfigError: the batch cannot be shared so.
    """
    size = train.batch_size
    if gpus < 1 or size % gpus:
        raise ConfigError(f"--gpus: found {gpus}; allowed are divisors of train.batch_size, {size}")
    if per_gpu is not None and per_gpu < 1:
        raise ConfigError(f"--per-gpu: found {per_gpu}; allowed is 1 or more")
    share = size // gpus
    accumulate = most_micro_batches(size, gpus, train.accumulate) or 1
    lowered_from = None if accumulate == train.accumulate or per_gpu is not None else train.accumulate
    if per_gpu is not None:
        # The fewest passes of equal size that fit.
        accumulate = next(
            parts for parts in range(1, share + 1) if share % parts == 0 and share <= parts * per_gpu
        )
    per_pass = share // accumulate
    peak = train.lr * (1.0 if train.lr_batch is None else size / train.lr_batch)
    return SharedBatch(
        gpus=gpus,
        accumulate=accumulate,
        per_gpu=share,
        per_pass=per_pass,
        together=gpus * per_pass,
        lr_per_image=peak / size,
        lowered_from=lowered_from,
    )
