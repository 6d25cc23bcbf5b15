"""A proxy of a person's own file, by target."""

from pathlib import Path
from typing import cast

from nas.proxies.base import Proxy
from nas.recipes.any_space import AnyProxyRecipe
from search_spaces.errors import ConfigError
from search_spaces.space import SearchSpace
from search_spaces.targets import checked_options, load_with, make
from trainers.data.detection_set import DetectionSet
from trainers.recipes import DetectorRecipe

GIVEN = ("space", "train_set", "held_out", "detector", "seed", "directory", "device")
"""What a constructor may name, by keyword; further arguments are its options."""


def require_own_proxy(recipe: AnyProxyRecipe) -> None:
    """Look at the class and its options without making one; nothing to do for a short training.

    Raises:
        ConfigError: no such class, one that cannot be called with a candidate, or options that it does not take.
    """
    if recipe.target is None:
        return
    kind = _loaded(recipe.target)
    if problems := checked_options(kind, recipe.options, name=kind.__name__, given=GIVEN)[1]:
        raise ConfigError("\n".join(problems))


def make_own_proxy(
    recipe: AnyProxyRecipe,
    *,
    space: SearchSpace,
    train_set: DetectionSet,
    held_out: DetectionSet,
    detector: DetectorRecipe,
    seed: int,
    directory: Path,
    device: str,
) -> Proxy:
    """The proxy, given whatever of these its constructor names.

    Args:
        recipe: names the class.
        space: whose candidates are scored.
        train_set: images to learn from.
        held_out: images of scoring; disjoint from ``train_set``.
        detector: built around a candidate that is trained.
        seed: the same for all candidates.
        directory: of the phase, for checkpoints.
        device: name, as recipes have it.

    Raises:
        ConfigError: see :func:`require_own_proxy`.
    """
    assert recipe.target is not None, "asked for a proxy of a person's own"
    kind = _loaded(recipe.target)
    given = (space, train_set, held_out, detector, seed, directory, device)
    return cast(
        Proxy,
        make(kind, recipe.options, name=kind.__name__, given=dict(zip(GIVEN, given, strict=True))),
    )


def _loaded(target: str) -> type:
    try:
        return load_with(target, {"__call__": "__call__(candidate)"}, "proxy")
    except ConfigError as error:
        raise ConfigError(f"target: {error}") from error
