"""``nas pretrain``: a backbone learns to tell classes apart, the papers' step before detection."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, check, dump_yaml, read_yaml
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.progress import RunProgress
from nas.recipes.pretrain_job import PretrainRecipe
from nas.run import environment
from nas.targets import anchor, require_unchanged
from nas.training import Job, provenance, read_result, record_of, trained_architecture
from nas.training_files import CLASSIFIER, RESULT, TRAINING, load_finished, stored_backbone
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.cost import cost
from search_spaces.errors import RunError
from search_spaces.files import write_atomic
from search_spaces.targets import home_of
from trainers.classifier import Classifier, accuracy, build_classifier
from trainers.curves import rise_over_last_quarter
from trainers.data.image_folder import ImageFolder, open_image_folder, require_same_classes
from trainers.loop import StepRecord, Trainer, resolve_device
from trainers.precision import settled
from trainers.process import prepare_process
from trainers.ranks import Ranks
from trainers.weights import write_weights


@dataclass(frozen=True, kw_only=True)
class PretrainingJob(Job):
    """One network trained to completion as a classifier."""

    recipe: PretrainRecipe

    def carry_out(self, ranks: Ranks, progress: RunProgress) -> dict[str, Any]:
        """See :class:`nas.training.Job`."""
        return _pretrained(self, ranks, progress)


def _pretrained(job: PretrainingJob, ranks: Ranks, progress: RunProgress) -> dict[str, Any]:
    recipe = job.recipe
    prepare_process(recipe.threads)
    train_set, val = (open_image_folder(recipe.data, split) for split in ("train", "val"))
    require_same_classes(train_set, val)
    classifier = classifier_for(job.architecture, recipe, train_set)
    if job.weights is not None:
        job.weights.load(classifier.backbone.body)
        progress.say(job.weights.sentence())
    device = ranks.device if ranks.count > 1 else resolve_device(recipe.device)

    def measure(model: Classifier) -> dict[str, float]:
        size = recipe.train.micro_batch // recipe.ranks
        found = accuracy(model, val, batch_size=size, device=device, amp=recipe.train.precision, ranks=ranks)
        return asdict(found)

    def report(step: StepRecord) -> None:
        progress.advance(step.step + 1, f"loss {step.loss:.3f}")

    trainer = Trainer(
        detector=classifier,
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
        for sentence in (*train_set.skipped, *val.skipped):
            progress.say(f"left out: {sentence}")
    network = trained_architecture(job.architecture, recipe)
    progress.phase(
        f"pre-training {family_of(network).text(network)}, seed {recipe.seed}", trainer.total_steps
    )
    trained = trainer.run()
    curve = [(point.epoch, point.metrics["top1"]) for point in trained.history]
    result = {
        "architecture": network.to_dict(),
        "digest": network.digest,
        "seed": recipe.seed,
        "metrics": measure(classifier),
        "curve": [{"epoch": epoch, "top1": top1} for epoch, top1 in curve],
        "rise_over_last_quarter": rise_over_last_quarter(curve),
        "images": trainer.total_steps * recipe.train.batch_size,
        "seconds": round(trained.seconds, 1),
        "warnings": list(trained.warnings),
        "classes": list(val.classes),
        "data": {"train": train_set.digest, "val": val.digest},
        **provenance(job, ranks),
    }
    if ranks.first:
        result["weights"] = write_weights(
            job.directory / CLASSIFIER, classifier.state_dict(), {"architecture": network.digest}
        )
        write_atomic(job.directory / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    # None of them ends before there is a result.
    ranks.wait()
    return result


def classifier_for(architecture: Architecture, recipe: PretrainRecipe, data: ImageFolder) -> Classifier:
    """A classifier around a freshly initialised backbone; the weights depend on the seed alone.

    Raises:
        ConfigError: see :func:`nas.training.trained_architecture`.
    """
    network = trained_architecture(architecture, recipe)
    return build_classifier(
        network.family,
        family_of(network).build(network, seed=recipe.seed),
        data.num_classes,
        label_smoothing=recipe.label_smoothing,
        seed=recipe.seed,
    )


def evaluate_pretraining(directory: Path, overrides: list[str]) -> dict[str, float]:
    """Trained weights on ``val``, computed anew: ``top1``, ``top5`` and ``loss``.

    Args:
        directory: of a finished ``nas pretrain``.
        overrides: ``key=value`` for its recipe, for instance another ``data.root``.

    Raises:
        RunError: images of other classes, or weights that do not fit the recipe.
    """
    record, home = read_yaml(directory / TRAINING), home_of(directory)
    require_unchanged(home.parent)
    data = anchor(apply_overrides(record["recipe"], overrides), home.parent)
    recipe = check(PretrainRecipe, data, source=str(directory / TRAINING))
    prepare_process(recipe.threads)
    val = open_image_folder(recipe.data, "val")
    learned = (read_result(directory) or {}).get("classes", list(val.classes))
    if learned != list(val.classes):
        raise RunError(
            f"{directory} learned the classes {', '.join(learned)}; the val split to be evaluated has "
            f"{', '.join(val.classes)}. Evaluate on a folder with the same classes"
        )
    classifier = classifier_for(Architecture.from_dict(record["architecture"]).at(home), recipe, val)
    load_finished(directory / CLASSIFIER, classifier)
    device = resolve_device(recipe.device)
    train = settled(recipe.train, device)
    found = accuracy(
        classifier.to(device), val, batch_size=train.micro_batch, device=device, amp=train.precision
    )
    return asdict(found)


def export_pretraining(
    directory: Path, to: Path | None = None, more: Callable[[Path], None] | None = None
) -> Path:
    """Write the bundle of a finished ``nas pretrain``: its network with the weights that it has learned; ``more`` as
    for :func:`nas.export.bundle.export_bundle`.

    Raises:
        RunError: it is not finished.
    """
    result = read_result(directory)
    _, weights = stored_backbone(directory)
    if result is None or weights is None:
        raise RunError(
            f"{directory} holds no finished pre-training; go on with the same nas pretrain command"
        )
    network = Architecture.from_dict(result["architecture"]).at(home_of(directory))
    size = (_image_side(directory),) * 2
    spent = cost(network, size)
    card = Card(
        title=f"{family_of(network).text(network)}, pre-trained on {len(result['classes'])} classes",
        scores={
            f"{name} on val, seed {result['seed']}": f"{100 * result['metrics'][name]:.2f} %"
            for name in ("top1", "top5")
        },
        cost={"training": f"{result['images']:,} images, {result['seconds']:,} s"},
        facts={
            "parameters": f"{spent.params:,}",
            f"multiply-adds at {size[0]}x{size[1]}": f"{spent.macs:,}",
        },
        levels={
            name: (level.channels, level.stride) for name, level in family_of(network).levels(network).items()
        },
        data=result["data"],
        command=f"nas pretrain ARCH training.yaml --run DIR   # the recipe in training.yaml, digest {result['recipe']}",
        versions=environment()["versions"],
        weights_note=f"of a classifier, seed {result['seed']}; the classifier itself is left out",
    )
    return export_bundle(network, weights, to or directory / "bundle", card, more=more)


def _image_side(directory: Path) -> int:
    """Side in px of the images of a pre-training."""
    record = read_yaml(directory / TRAINING)
    return check(PretrainRecipe, record["recipe"], source=str(directory / TRAINING)).data.image_size
