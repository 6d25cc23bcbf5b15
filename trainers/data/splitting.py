"""Which image belongs to which split: as its source says, or by chance, seeded and with every class on both sides."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from search_spaces.errors import DataError
from search_spaces.randomness import rng_for
from trainers.data.annotations import Problems
from trainers.data.found import SPLIT_NAMES, FoundImage

_POOLED = "trainval"


def split_images(
    images: Sequence[FoundImage],
    *,
    train: Sequence[str],
    val: Sequence[str],
    val_share: float,
    seed: int,
    problems: Problems,
) -> dict[str, list[FoundImage]]:
    """Images by the house's names of splits, ``train`` and ``val`` always among them.

    Args:
        images: all that can be used, at least two.
        train: the source's splits to train on; where empty, the one that is called so.
        val: those for ``val``; where empty, the one that is called so, else a share of the others by chance.
        val_share: that share.
        seed: of that choice.
        problems: gets images that belong to both.

    Raises:
        DataError: a split that the source does not have, or one that stays empty.
    """
    known = sorted({split for image in images for split in image.splits})
    unknown = [name for name in (*train, *val) if name not in known]
    if unknown:
        raise DataError(
            f"no split {', '.join(unknown)}; the source has {', '.join(known) or 'none; leave --train and --val out'}"
        )
    wanted: dict[str, set[str]] = {name: set() for name in ("train", "val", "test")}
    for name in known:
        if name in SPLIT_NAMES and not (train or val):
            wanted[SPLIT_NAMES[name]].add(name)
    if train or val:
        wanted["train"] = set(train) or set(known) - set(val)
        wanted["val"] = set(val)
    elif not wanted["train"]:
        wanted["train"] = set(known) & {_POOLED}
    found: dict[str, list[FoundImage]] = {name: [] for name in wanted}
    for image in images:
        homes = [name for name, splits in wanted.items() if splits & image.splits]
        if not known:
            homes = ["train"]
        if len(homes) > 1:
            problems.droppable.append(
                f"{image.where}: belongs to {' and '.join(homes)}; an image may be in one split only"
            )
        for name in homes[:1]:
            found[name].append(image)
    if not found["test"]:
        del found["test"]
    if found["train"] and not found["val"] and not val:
        found["train"], found["val"] = by_chance(found["train"], share=val_share, seed=seed)
    empty = [name for name, inside in found.items() if not inside]
    if empty:
        raise DataError(
            f"no image for {', '.join(empty)}; the source's splits are {', '.join(known) or 'none'}. "
            "Say which to take with --train and --val"
        )
    return found


def by_chance(
    images: Sequence[FoundImage], *, share: float, seed: int
) -> tuple[list[FoundImage], list[FoundImage]]:
    """(The rest, a share), each in the order given.

    Images are grouped by the rarest class that they show, and of every group the share is drawn, so that a class is
    on both sides where it can be. Files of the same bytes stay together.

    Raises:
        DataError: fewer than two different images.
    """
    units: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        units.setdefault(hashlib.sha256(image.path.read_bytes()).hexdigest(), []).append(index)
    if len(units) < 2:
        raise DataError(f"cannot split {len(units)} image(s) into train and val; at least 2 are needed")
    shown = [{one.category for one in image.objects} for image in images]
    counts = Counter(category for inside in shown for category in inside)
    rarity = sorted(counts, key=lambda category: (counts[category], category))
    groups: dict[int, list[str]] = {}
    for digest, members in units.items():
        inside = set().union(*(shown[index] for index in members))
        rarest = next((rank for rank, category in enumerate(rarity) if category in inside), len(rarity))
        groups.setdefault(rarest, []).append(digest)
    chosen: set[int] = set()
    owed = 0.0
    for rank in sorted(groups):
        group = groups[rank]
        # What rounding leaves over is carried on, so that the whole has the share too.
        owed += share * len(group)
        count = min(max(round(owed), 0), len(group))
        if not chosen and count == 0 and rank == max(groups):
            count = 1
        owed -= count
        for digest in rng_for(seed, "val", rank).sample(group, count):
            chosen.update(units[digest])
    if len(chosen) == len(images):
        chosen -= set(units[next(iter(units))])
    rest = [image for index, image in enumerate(images) if index not in chosen]
    return rest, [image for index, image in enumerate(images) if index in chosen]
