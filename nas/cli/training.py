"""One network trained to completion: ``pretrain``, ``train``, ``evaluate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.door import Json, Sets, door, follows, limit_threads, print_json, print_table
from nas.saying import tell

_COCO = "COCO metrics on val, from 0 to 1"
_ACCURACY = "On val: shares of images, and the cross-entropy"


def train(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, run or architecture name.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A training recipe.")],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Where checkpoints and results go.")
    ] = None,
    set_: Sets = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print schedule, batches and time; train and write nothing.")
    ] = False,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", help="Dry run: of so many images, none are read.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", metavar="N", help="Dry run: their categories; 80.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", help="Dry run: shared by so many GPUs.")
    ] = None,
    per_gpu: Annotated[
        int | None, typer.Option("--per-gpu", metavar="M", help="Dry run: images that fit a GPU at a time.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", metavar="X", help="Dry run: of one GPU, in that of this machine."),
    ] = None,
    measure: Annotated[
        float | None,
        typer.Option("--measure", metavar="SECONDS", min=0, help="Dry run: to spend on trying steps; 20."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a bundle's backbone in a detector to completion; continues where it was stopped."""
    words = " ".join(f"--set {text}" for text in set_ or [])
    # Of a dry run nothing is kept that could go on.
    with door(None if dry else f"nas train {bundle} {recipe} --run {run} {words}".rstrip()):
        from nas.config import check
        from nas.recipes.train_job import TrainJobRecipe
        from nas.targets import read_recipe
        from search_spaces.errors import ConfigError

        checked = check(TrainJobRecipe, read_recipe(recipe, set_ or []), source=str(recipe))
        limit_threads(checked.threads)
        asked = {"images": images, "classes": classes, "gpus": gpus, "per_gpu": per_gpu, "speed": speed}
        given = {name: value for name, value in {**asked, "measure": measure}.items() if value is not None}
        if dry:
            from nas.cli.dry_running import print_dry_run

            print_dry_run(bundle, checked, given, str(recipe), as_json)
            return
        if given:
            name = next(iter(given)).replace("_", "-")
            raise ConfigError(f"--{name}: goes with --dry-run, and a training goes without")
        if run is None:
            raise ConfigError("--run: is missing; name a directory for checkpoints and results, or --dry-run")
        from nas.progress import ConsoleProgress, Silent
        from nas.training import train_bundle

        if follows():
            train_bundle(bundle, checked, run, Silent())
            return
        with ConsoleProgress(stderr=as_json) as progress:
            result = train_bundle(bundle, checked, run, progress)
        _print_metrics(result, as_json)


def pretrain(
    bundle: Annotated[str, typer.Argument(metavar="ARCH", help="A bundle, run or architecture name.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe of pre-training.")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Where checkpoints and results go.")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Teach a backbone to tell the classes of an image folder apart; continues where it was stopped."""
    words = " ".join(f"--set {text}" for text in set_ or [])
    with door(f"nas pretrain {bundle} {recipe} --run {run} {words}".rstrip()):
        from nas.config import check
        from nas.recipes.pretrain_job import PretrainRecipe
        from nas.targets import read_recipe

        checked = check(PretrainRecipe, read_recipe(recipe, set_ or []), source=str(recipe))
        limit_threads(checked.threads)
        from nas.pretraining import PretrainingJob
        from nas.progress import ConsoleProgress, Silent
        from nas.training import train_bundle

        if follows():
            train_bundle(bundle, checked, run, Silent(), PretrainingJob)
            return
        with ConsoleProgress(stderr=as_json) as progress:
            result = train_bundle(bundle, checked, run, progress, PretrainingJob)
        _print_metrics(result, as_json, _ACCURACY)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of `nas train`, or a search run.")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """COCO AP of trained weights on the folder's val split; of a classifier its accuracy."""
    with door():
        from nas.training_files import CLASSIFIER

        if (run / CLASSIFIER).exists():
            from nas.pretraining import evaluate_pretraining

            _print_metrics(evaluate_pretraining(run, set_ or []), as_json, _ACCURACY)
            return
        from nas.methods.retraining import trained_directory
        from nas.training import evaluate_training

        _print_metrics(evaluate_training(trained_directory(run), set_ or [], say=tell), as_json)


def _print_metrics(metrics: Mapping[str, Any], as_json: bool, title: str = _COCO) -> None:
    if as_json:
        print_json(metrics)
        return
    per_class = [
        (f"{prefix}AP {name}", f"{ap:.4f}")
        for prefix in ("", "mask_")
        for name, ap in metrics.get(f"{prefix}per_class", {}).items()
    ]
    scalars = [(name, f"{value:.4f}") for name, value in metrics.items() if isinstance(value, float)]
    print_table(title, [*scalars, *per_class])
