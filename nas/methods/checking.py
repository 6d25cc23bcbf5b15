"""What would stop a search later, found before anything is spent: settings, data and detector, all at once."""

from collections.abc import Callable, Sequence
from functools import partial

from nas.loggers.catalog import require_packages
from nas.methods.hand_made import rival
from nas.recipes.search import HandMadeRecipe, SearchRecipe
from nas.run import split_seed
from nas.study import open_database
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError, DataError
from search_spaces.families import family_of
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out, require_objects, require_same_categories
from trainers.data.stored import Say
from trainers.detectors.catalog import build_detector
from trainers.loop import require_trainable, resolve_device
from trainers.ranks import rank_device
from trainers.recipes import TrainRecipe

_DIVISIBLE = (1024, 1024)
"""Image size that the stride of any level divides, for a look at a detector while the images are not known."""


def refused(place: str, attempt: Callable[[], object]) -> list[str]:
    """The lines of the error that an attempt raises, ``place`` before each; none where it succeeds."""
    try:
        attempt()
    except ConfigError as error:
        return [f"{place}{line}" for line in str(error).splitlines()]
    return []


def require_all(
    recipe: SearchRecipe,
    *,
    source: str,
    problems: Sequence[str],
    baseline: Architecture | None,
    say: Say | None = None,
) -> None:
    """Raise everything that is wrong with a recipe, what the method itself found included.

    Nothing is trained, and nothing written but the tables of a database named as ``storage``.

    Args:
        recipe: of any method.
        source: named in every message.
        problems: what the method found, whole lines.
        baseline: around which a detector is tried; None where the space gives none.
        say: see :func:`trainers.data.catalog.open_split`.

    Raises:
        ConfigError: device, loggers, storage, detector or what the method found; data too where there is more than
            that.
        DataError: nothing but data that cannot be used.
    """
    place = f"{source}: "
    no_device = refused(place, lambda: resolve_device(recipe.device))
    found = [*no_device, *refused(place, lambda: require_packages(recipe.loggers))]
    if (url := recipe.storage) is not None:
        found += refused(place, lambda: open_database(url))
    found += problems
    classes, size = 1, _DIVISIBLE
    failure: DataError | None = None
    try:
        train_set = _usable(recipe, say)
        classes, size = train_set.num_classes, train_set.image_size
    except DataError as error:
        failure = error
    if baseline is not None:
        backbone = family_of(baseline).build(baseline, seed=0)
        found += refused(place, lambda: build_detector(recipe.detector, backbone, classes, size, seed=0))
        if (retrain := recipe.retrain) is not None and not no_device:
            device = resolve_device(recipe.device)
            found += refused(f"{place}retrain.", lambda: require_trainable(backbone, retrain.train, device))
            if retrain.ranks > 1:
                last = retrain.ranks - 1
                found += refused(f"{place}retrain.ranks: ", lambda: rank_device(recipe.device, last))
        if not found and failure is None and recipe.retrain is not None:
            detector = build_detector(recipe.detector, backbone, classes, size, seed=0)
            train = recipe.retrain.train
            found += refused(f"{place}retrain.", lambda: detector.batches(train_set, train, 0))
            for index, one in enumerate(recipe.retrain.hand_made):
                found += refused(
                    f"{place}retrain.hand_made.{index}.",
                    partial(_trainable_rival, one, recipe, train, classes, size),
                )
    if found:
        raise ConfigError("\n".join([*found, *([f"{place}{failure}"] if failure is not None else [])]))
    if failure is not None:
        raise failure


def _trainable_rival(
    one: HandMadeRecipe, recipe: SearchRecipe, train: TrainRecipe, classes: int, size: tuple[int, int]
) -> None:
    made = rival(one, recipe, classes, size)
    backbone = family_of(made.architecture).build(made.architecture, seed=0)
    made.weights()
    require_trainable(backbone, train, resolve_device(recipe.device))


def _usable(recipe: SearchRecipe, say: Say | None) -> DetectionSet:
    train_set, val = (open_split(recipe.data, split, say=say) for split in ("train", "val"))
    require_same_categories(train_set, val)
    rest, held_out = hold_out(train_set, recipe.data.hold_out, split_seed(recipe))
    require_objects({"val": val, "train without the held-out images": rest, "held out of train": held_out})
    return train_set
