"""The images of a search: the training split in its two parts, and the record of what they are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nas.methods.catalog import baseline_of
from nas.methods.reporting import starved_level
from nas.progress import RunProgress
from nas.recipes.search import SearchRecipe
from nas.run import Run, split_seed
from search_spaces.errors import DataError, RunError
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out
from trainers.data.stored import Say
from trainers.detectors.catalog import build_detector
from trainers.process import prepare_process

if TYPE_CHECKING:
    from nas.engines.ray_cluster import RayWorkers


@dataclass(frozen=True, kw_only=True)
class SearchData:
    """The training split in its two parts; ``val`` is not here, it is for the final table only."""

    train_set: DetectionSet
    held_out: DetectionSet


def shared_out(data: SearchData, member: int, seed: int) -> SearchData:
    """The same images in two parts as one of several supernets has them.

    The first holds out what the search holds out, each further one as many others, so that no image is held out twice
    as long as there are others left.

    Args:
        data: the two parts of the search.
        member: from 0 on.
        seed: of the order in which images are held out, the same for all members.

    """
    if member == 0:
        return data
    held = _held_out_by(data, member, seed)
    whole = data.train_set.and_then(data.held_out)
    return SearchData(
        train_set=whole.subset(place for place in range(len(whole)) if place not in held),
        held_out=whole.subset(sorted(held)),
    )


def require_parts(data: SearchData, member: int, seed: int) -> None:
    """Refuse what :func:`shared_out` would give where one of its parts has no object; arguments as there.

    Raises:
        DataError: names the supernet and the part.
    """
    counts = [len(one["labels"]) for part in (data.train_set, data.held_out) for one in part.targets]
    held = _held_out_by(data, member, seed)
    objects = sum(counts[place] for place in held)
    for part, found in (("holds out", objects), ("learns from", sum(counts) - objects)):
        if not found:
            raise DataError(
                f"supernet {member + 1}: no object in the images that it {part}. AP is not defined there, and nothing "
                "can be learned there: lower supernet.members, set another seed, or annotate objects"
            )


def _held_out_by(data: SearchData, member: int, seed: int) -> set[int]:
    """Places in the training part and then the held-out part."""
    rest, count = len(data.train_set), len(data.held_out)
    order = [*range(rest, rest + count), *rng_for(seed, "held out of members").sample(range(rest), rest)]
    return {order[place % len(order)] for place in range(member * count, (member + 1) * count)}


def open_data(run: Run, progress: RunProgress) -> SearchData:
    """The training split in its two parts, written down in the run.

    Raises:
        RunError: the images are not those that the run began with, or there is no room for a worker on Ray.
    """
    if run.recipe.engine == "ray":
        _require_ray(run.recipe)
    prepare_process(run.recipe.threads)
    if (reason := run.other_bits()) is not None:
        progress.say(f"warning: {reason}")
    run.record_environment()
    data = read_data(run.recipe, say=progress.say)
    record_data(run, data, progress)
    return data


def _require_ray(recipe: SearchRecipe) -> None:
    """Look for the cluster, and for room for a worker, before a supernet is trained for it.

    Raises:
        RunError: there is none.
    """
    # Its import takes a second that other searches need not spend.
    from nas.engines.ray_cluster import connected, require_room

    workers = ray_workers(recipe)
    if recipe.ray.address is not None:
        with connected(workers, address=recipe.ray.address, environment={}):
            require_room(workers)
    elif workers.gpus > (here := torch.cuda.device_count()):
        raise RunError(
            f"ray.gpus: found {workers.gpus:g} for each worker, but this machine has {here} GPUs; lower it, or name a "
            "cluster as ray.address"
        )


def ray_workers(recipe: SearchRecipe) -> "RayWorkers":
    """The workers that a recipe wants of Ray."""
    from nas.engines.ray_cluster import RayWorkers

    cpus = recipe.threads if recipe.ray.cpus is None else recipe.ray.cpus
    return RayWorkers(count=recipe.workers, cpus=cpus, gpus=recipe.ray.gpus)


def read_data(recipe: SearchRecipe, say: Say | None = None) -> SearchData:
    """The training split in its two parts."""
    # Beside the workers this process keeps its own. Those of a cluster share one array a node.
    copies = 1 if recipe.workers == 1 or recipe.engine == "ray" else recipe.workers + 1
    whole = open_split(recipe.data, "train", copies=copies, say=say)
    train_set, held_out = hold_out(whole, recipe.data.hold_out, split_seed(recipe))
    return SearchData(train_set=train_set, held_out=held_out)


def record_data(run: Run, data: SearchData, progress: RunProgress) -> None:
    """List which images were held out and what the levels have to learn, so that anyone can check.

    Raises:
        RunError: the images are not those that the run began with.
    """
    before = run.read_json("data.json")
    digests = {"train": data.train_set.digest, "held_out": data.held_out.digest}
    if before is not None and before["digest"] != digests:
        raise RunError(
            f"{run.directory} began with other images or annotations (digest {before['digest']['train']}, now "
            f"{digests['train']}); restore them, or start a new run with: nas search RECIPE --run NEW_DIR"
        )
    baseline = baseline_of(run.recipe)
    detector = build_detector(
        run.recipe.detector,
        family_of(baseline).build(baseline, seed=0),
        data.train_set.num_classes,
        data.train_set.image_size,
        seed=0,
    )
    by_level = detector.objects_by_level(data.train_set.targets, data.train_set.image_size)
    if by_level:
        progress.say("objects by level: " + ", ".join(f"{name} {count}" for name, count in by_level.items()))
    for name in (name for name, count in by_level.items() if count == 0):
        progress.say(f"warning: {starved_level(name)}")
    run.write_json(
        "data.json",
        {
            "objects_by_level": by_level,
            "digest": digests,
            "image_size": list(data.train_set.image_size),
            "categories": [category.name for category in data.train_set.categories],
            "train": list(data.train_set.file_names),
            "held_out": list(data.held_out.file_names),
            "objects": {"train": data.train_set.num_objects, "held_out": data.held_out.num_objects},
            "skipped": list(data.train_set.skipped),
        },
    )
