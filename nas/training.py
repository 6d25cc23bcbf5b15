"""One training to completion: what ``nas train`` does once and the final table many times.

The run of a network is a function of its recipe and seed; ``val`` gives its result and curve only, nothing
is chosen by it.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from nas.config import apply_overrides, check, dump_yaml, read_yaml, to_data
from nas.export.manifest import MANIFEST
from nas.initial_weights import InitialWeights, initial_weights
from nas.launching import Launch, on_ranks
from nas.loggers.base import About
from nas.loggers.catalog import require_packages
from nas.loggers.listening import listening
from nas.progress import RunProgress, Silent
from nas.recipes.train_job import JobRecipe, TrainJobRecipe
from nas.resolve import read_architecture
from nas.run import environment
from nas.targets import anchor, family_files, files_of, gather, portable, require_unchanged
from nas.training_files import RESULT, TRAINING, WEIGHTS, load_finished
from search_spaces.architecture import Architecture, Genes, digest_of
from search_spaces.catalog import family_of
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError
from search_spaces.files import write_atomic
from search_spaces.recipe import FieldError
from search_spaces.targets import FOLDER, home_of
from trainers.curves import rise_over_last_quarter
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet, hold_out, require_same_categories
from trainers.data.stored import Say
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.evaluate import Metrics, coco_metrics, detect
from trainers.loop import StepRecord, Trainer, resolve_device
from trainers.precision import fastest, settled
from trainers.process import prepare_process
from trainers.ranks import ALONE, Ranks, joined, ranks_here, require_share
from trainers.recipes import Amp
from trainers.weights import write_weights

R = TypeVar("R", bound=JobRecipe)
J = TypeVar("J", bound="Job")

HOW = ("ranks", "launcher", "address", "threads")
"""Fields of a recipe that say how it is carried out, and not what is trained."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One network trained to completion under one seed; plain data, so that a process can take it.

    Args:
        architecture: the backbone.
        recipe: everything else.
        directory: of checkpoint, metrics, weights and result.
        weights: that the backbone begins with; freshly drawn ones where None.
    """

    architecture: Architecture
    recipe: JobRecipe
    directory: Path
    weights: InitialWeights | None = None

    @abstractmethod
    def carry_out(self, ranks: Ranks, progress: RunProgress) -> dict[str, Any]:
        """Train, evaluate and write, as one of the ranks; the content of ``result.json``."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job):
    """The same in a detector.

    Args:
        held_out_seed: None trains on the whole training split and reads ``val``. A seed splits the training
            split as the search of that seed does, and ``val`` is left alone.
    """

    recipe: TrainJobRecipe
    held_out_seed: int | None = None

    def carry_out(self, ranks: Ranks, progress: RunProgress) -> dict[str, Any]:
        """See :class:`Job`."""
        return _trained(self, ranks, progress)


def train_to_completion(job: Job, progress: RunProgress | None = None) -> dict[str, Any]:
    """Train, evaluate, write weights and ``result.json``; continues where it was stopped.

    Returns:
        The content of ``result.json``: ``metrics``, ``curve``, ``seconds``, ``environment`` and more.

    Raises:
        RunError: the directory holds a training of another backbone or recipe.
    """
    progress = progress or Silent()
    with joined(job.recipe.device) as ranks:
        job = _settled(job, ranks, progress)
        done = ranks.of_first(_begun(job) if ranks.first else None)
        if done is not None:
            return done
        if job.recipe.ranks == ranks.count:
            return job.carry_out(ranks, progress if ranks.first else Silent())
    recipe = job.recipe
    # Of a running cluster this machine may be the one without a GPU.
    device = recipe.device if recipe.address else resolve_device(recipe.device).type
    launch = Launch(
        count=recipe.ranks,
        launcher=recipe.launcher,
        threads=recipe.threads,
        gpu=device == "cuda",
        address=recipe.address,
    )
    job.directory.mkdir(parents=True, exist_ok=True)
    on_ranks(train_to_completion, job, launch, progress)
    done = read_result(job.directory)
    if done is None:
        raise RunError(
            f"{job.directory}: the ranks came to their end and wrote no {RESULT} that this machine sees; the directory "
            "has to lie where all of them see it"
        )
    return done


def _begun(job: Job) -> dict[str, Any] | None:
    """The result of a training that is done, None where there is something to do.

    Raises:
        RunError: the directory holds a training of another backbone or recipe.
    """
    path = job.directory / TRAINING
    if path.exists():
        stored = read_yaml(path)
        try:
            written = _with_defaults(stored, type(job.recipe), source=str(path))
        except ConfigError:
            # For instance of a classifier, where this one is of a detector.
            written = {"recipe": {}}
        if _essence(written) != _essence(record_of(job)):
            raise RunError(
                f"{job.directory} holds a training of another backbone or recipe; take a new directory"
            )
    return read_result(job.directory)


def record_of(job: Job) -> dict[str, Any]:
    """What ``training.yaml`` says."""
    # Who listens changes nothing.
    recipe = replace(job.recipe, loggers=())
    record = {"architecture": job.architecture.to_dict(), "recipe": portable(to_data(recipe))}
    if job.weights is not None:
        record["initial_weights"] = job.weights.digest
    return record


def _essence(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what may be another when a training goes on."""
    recipe = {name: value for name, value in record["recipe"].items() if name not in HOW}
    if "data" in recipe:
        recipe["data"] = {name: value for name, value in recipe["data"].items() if name != "cache"}
    return {**record, "recipe": recipe}


def _by_all(recipe: R, ranks: Ranks) -> R:
    """The recipe as the ranks that torchrun has started carry it out.

    Raises:
        ConfigError: it asks for another number of them, or they cannot share its batch.
    """
    if ranks.count in (1, recipe.ranks):
        return recipe
    if recipe.ranks != 1:
        raise ConfigError(
            f"ranks: found {recipe.ranks}, but torchrun has started {ranks.count}; leave the field out, or torchrun"
        )
    require_share(recipe.train.batch_size, ranks.count, recipe.train.accumulate)
    try:
        return replace(recipe, ranks=ranks.count)
    except FieldError as error:
        raise ConfigError(str(error)) from error


def _settled(job: J, ranks: Ranks, progress: RunProgress) -> J:
    """The training as these ranks carry it out, and in which precision: its record's, or the fastest for all of them.

    Where the ranks are still to be started on other machines, a precision that nobody has chosen yet stays ``auto``.

    Raises:
        ConfigError: see :func:`_by_all`.
    """
    recipe = _by_all(job.recipe, ranks)
    if recipe.train.amp == "auto":
        found = ranks.of_first(_recorded(job.directory) if ranks.first else None)
        if found is None and (recipe.ranks == ranks.count or recipe.address is None):
            device = ranks.device if ranks.count > 1 else resolve_device(recipe.device)
            found = "bf16" if all(one == "bf16" for one in ranks.all_of(fastest(device))) else "off"
        if found is not None:
            recipe = replace(recipe, train=replace(recipe.train, amp=found))
            if ranks.first:
                progress.say(f"train.amp: auto is {found} for this training")
    return replace(job, recipe=recipe)


def _recorded(directory: Path) -> Amp | None:
    """The precision of a training that has begun in a directory."""
    path = directory / TRAINING
    found = read_yaml(path).get("recipe", {}).get("train", {}).get("amp", "off") if path.exists() else None
    return cast(Amp | None, found)


def _trained(job: TrainingJob, ranks: Ranks, progress: RunProgress) -> dict[str, Any]:
    recipe = job.recipe
    prepare_process(recipe.threads)
    train_set, val = _splits(job, ranks_here(ranks), progress.say)
    detector = detector_for(job.architecture, recipe, train_set)
    if job.weights is not None:
        job.weights.load(detector.backbone.body)
        progress.say(job.weights.sentence())
    device = ranks.device if ranks.count > 1 else resolve_device(recipe.device)

    def measure(model: Detector) -> dict[str, float]:
        return evaluate_detector(model, val, recipe, device, ranks).scalars()

    def report(step: StepRecord) -> None:
        progress.advance(step.step + 1, f"loss {step.loss:.3f}")

    trainer = Trainer(
        detector=detector,
        data=train_set,
        recipe=recipe.train,
        seed=recipe.seed,
        directory=job.directory,
        device=device,
        evaluate=measure,
        on_step=report,
        ranks=ranks,
        say=progress.say,
    )
    if ranks.first:
        # Only now: a recipe that cannot be used must not claim the directory.
        write_atomic(job.directory / TRAINING, dump_yaml(record_of(job)).encode())
    network = trained_architecture(job.architecture, recipe)
    progress.phase(f"training {family_of(network).text(network)}, seed {recipe.seed}", trainer.total_steps)
    trained = trainer.run()
    metrics = evaluate_detector(detector, val, recipe, device, ranks)
    curve = [(point.epoch, point.metrics["AP"]) for point in trained.history]
    result = {
        "architecture": network.to_dict(),
        "digest": network.digest,
        "seed": recipe.seed,
        "metrics": metrics.to_dict(),
        "curve": [{"epoch": epoch, "AP": ap} for epoch, ap in curve],
        "rise_over_last_quarter": rise_over_last_quarter(curve),
        "images": trainer.total_steps * recipe.train.batch_size,
        "seconds": round(trained.seconds, 1),
        "warnings": list(trained.warnings),
        "categories": [category.name for category in val.categories],
        "category_ids": [category.id for category in val.categories],
        "image_size": list(train_set.usual_size),
        "licence": train_set.licence,
        "data": {"train": train_set.digest, "val": val.digest},
        **provenance(job, ranks),
    }
    if ranks.first:
        result["weights"] = write_weights(
            job.directory / WEIGHTS, detector.state_dict(), {"architecture": network.digest}
        )
        write_atomic(job.directory / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    # None of them ends before there is a result.
    ranks.wait()
    return result


def provenance(job: Job, ranks: Ranks) -> dict[str, Any]:
    """What every result says of how it came about."""
    recipe = job.recipe
    return {
        "initial_weights": None if job.weights is None else job.weights.to_dict(),
        "recipe": digest_of(_essence(record_of(job))["recipe"]),
        "train": to_data(recipe.train),
        "environment": environment() | {"threads": recipe.threads, "seed": recipe.seed, "ranks": ranks.count},
    }


def detector_for(architecture: Architecture, recipe: TrainJobRecipe, data: DetectionSet) -> Detector:
    """The recipe's detector around a freshly initialised backbone; the weights depend on the seed alone.

    Raises:
        ConfigError: the detector does not fit the backbone or the images; see :func:`trained_architecture`.
    """
    network = trained_architecture(architecture, recipe)
    backbone = family_of(network).build(network, seed=recipe.seed)
    return build_detector(recipe.detector, backbone, data.num_classes, data.usual_size, seed=recipe.seed)


def trained_architecture(architecture: Architecture, recipe: JobRecipe) -> Architecture:
    """What a recipe trains of a network: the network, or its copy with the recipe's activation.

    Raises:
        ConfigError: a family whose networks have no choice of activation, or not this one.
    """
    if recipe.activation is None:
        return architecture
    if "activation" not in architecture.settings:
        raise ConfigError(
            f"activation: found {recipe.activation!r}, but networks of {architecture.family} have no such setting; "
            "leave it out"
        )
    changed = replace(
        architecture, settings=Genes({**architecture.settings, "activation": recipe.activation})
    )
    try:
        family_of(changed).validate(changed)
    except InvalidArchitecture as error:
        raise ConfigError(f"activation: {error}") from error
    return changed


def trained_detector(
    architecture: Architecture, recipe: TrainJobRecipe, data: DetectionSet, directory: Path
) -> Detector:
    """The detector of a finished training, in evaluation mode.

    Raises:
        RunError: weights of another network, for instance of another version of the toolkit.
    """
    detector = detector_for(architecture, recipe, data)
    load_finished(directory / WEIGHTS, detector)
    return detector


def evaluate_detector(
    detector: Detector,
    data: DetectionSet,
    recipe: TrainJobRecipe,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Metrics:
    """COCO metrics of a detector on a split, at a rank's batch size and the recipe's precision.

    Each of the ranks looks at its part of the batches, which are the same for any number that looks.
    """
    size = recipe.train.micro_batch // recipe.ranks
    begin, end = ranks.part(math.ceil(len(data) / size))
    found = []
    # With fewer batches than ranks some have nothing to look at.
    if begin < end:
        part = data if ranks.count == 1 else data.subset(range(begin * size, min(end * size, len(data))))
        found = detect(detector, part, batch_size=size, device=device, amp=recipe.train.precision)
    results = [one for some in ranks.all_of(found) for one in some]
    return ranks.of_first(coco_metrics(data, results) if ranks.first else cast(Metrics, None))


def train_bundle(
    bundle: str,
    recipe: JobRecipe,
    directory: Path,
    progress: RunProgress,
    kind: Callable[..., Job] = TrainingJob,
) -> dict[str, Any]:
    """``nas train``: a bundle's, run's or named backbone to completion in a new detector.

    Args:
        bundle: what :func:`nas.resolve.read_architecture` takes; with weights in it where ``recipe.init`` is
            ``bundle``.
        recipe: of the training.
        directory: of its files.
        progress: listens.
        kind: what is learned, by default to detect.

    Returns:
        Metrics on ``val`` as fractions: COCO's, of a detector.

    Raises:
        RunError: the directory holds a training of something else.
        VertebraError: see :func:`nas.initial_weights.initial_weights`.
        LostRank: see :func:`nas.launching.on_ranks`.
        ConfigError: the package of a logger is not installed.
    """
    require_packages(recipe.loggers)
    with joined(recipe.device) as ranks:
        # The first one alone writes where others may look already.
        if ranks.first:
            job = _job(bundle, recipe, directory, kind)
        ranks.wait()
        if not ranks.first:
            job = _job(bundle, recipe, directory, kind)
        job = _settled(job, ranks, progress)
        settings = portable(to_data(replace(recipe, train=job.recipe.train)))
        about = About(name=recipe.name, directory=directory, settings=settings)
        with listening(recipe.loggers if ranks.first else (), progress, about) as progress:
            progress.training(directory)
            return dict(train_to_completion(job, progress)["metrics"])


def _job(bundle: str, recipe: JobRecipe, directory: Path, kind: Callable[..., Job]) -> Job:
    """The training of a bundle, with copies of its own files in the directory."""
    architecture = read_architecture(bundle)
    weights = initial_weights(
        recipe.init,
        remap=recipe.remap,
        bundle=bundle,
        architecture=trained_architecture(architecture, recipe),
    )
    files = (*files_of(to_data(recipe)), *family_files(architecture))
    gather(files, directory, begun=(directory / TRAINING).exists())
    home = anchor(portable(to_data(recipe)), directory)
    return kind(
        architecture=architecture.at(directory / FOLDER),
        recipe=check(type(recipe), home, source=str(directory)),
        directory=directory,
        weights=weights,
    )


def read_result(directory: Path) -> dict[str, Any] | None:
    """The result of a finished training, else None."""
    path = directory / RESULT
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def evaluate_training(
    directory: Path, overrides: Sequence[str] = (), *, say: Say | None = None
) -> dict[str, Any]:
    """Trained weights on ``val``, computed anew.

    Args:
        directory: of a finished training.
        overrides: ``key=value`` for its recipe, for instance another ``data.root``.
        say: see :func:`trainers.data.catalog.open_split`.

    Returns:
        COCO metrics as fractions.

    Raises:
        RunError: no finished training there.
    """
    missing = [name for name in (TRAINING, WEIGHTS) if not (directory / name).exists()]
    if missing:
        advice = "train it with nas train"
        if (directory / MANIFEST).exists():
            advice = "it is a bundle; name the training or the search that it was made of"
        raise RunError(f"{directory} holds no finished training ({missing[0]} is missing); {advice}")
    record, home = read_yaml(directory / TRAINING), home_of(directory)
    require_unchanged(home.parent)
    data = anchor(apply_overrides(record["recipe"], overrides), home.parent)
    recipe = check(TrainJobRecipe, data, source=str(directory / TRAINING))
    prepare_process(recipe.threads)
    val = open_split(recipe.data, "val", say=say)
    learned = (read_result(directory) or {}).get("categories")
    found = [category.name for category in val.categories]
    if learned is not None and learned != found:
        raise RunError(
            f"{directory} learned the categories {', '.join(learned)}, in this order; the val split to be "
            f"evaluated has {', '.join(found)}. Evaluate on a folder with the same list"
        )
    architecture = Architecture.from_dict(record["architecture"]).at(home)
    detector = trained_detector(architecture, recipe, val, directory)
    device = resolve_device(recipe.device)
    recipe = replace(recipe, train=settled(recipe.train, device))
    return evaluate_detector(detector.to(device), val, recipe, device).to_dict()


def _with_defaults(record: dict[str, Any], kind: type[JobRecipe], *, source: str) -> dict[str, Any]:
    """A record of a training as this version would write it: fields added since have their defaults."""
    recipe = check(kind, record.get("recipe", {}), source=source)
    return {**record, "recipe": to_data(recipe)}


def _splits(job: TrainingJob, copies: int, say: Say) -> tuple[DetectionSet, DetectionSet]:
    data = job.recipe.data
    train_set = open_split(data, "train", copies=copies, say=say)
    if job.held_out_seed is not None:
        return hold_out(train_set, data.hold_out, job.held_out_seed)
    val = open_split(data, "val", copies=copies, say=say)
    require_same_categories(train_set, val)
    return train_set, val
