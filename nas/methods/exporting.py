"""``nas export``: the winner of a run, a finished training or a named architecture, as a bundle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.export.about import About, spread
from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.export.manifest import ARCHITECTURE, MANIFEST, read_manifest
from nas.methods.catalog import baseline_of
from nas.methods.costs import cost_line, ledger
from nas.methods.retraining import results_of, training_directory
from nas.pretraining import export_pretraining
from nas.report.verdict import judge
from nas.resolve import read_architecture
from nas.run import Run, environment
from nas.show import histories, spending
from nas.trained import FinishedTraining, read_trained
from nas.training_files import CLASSIFIER, TRAINING, backbone_weights
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, RunError
from trainers.data.detection_set import NOT_STATED
from trainers.data.stored import Say
from trainers.recipes import DataRecipe

if TYPE_CHECKING:
    from nas.export.subject import HowMany

More = Callable[[Path], None]
"""Adds files to a bundle that can be loaded already."""


def export(
    source: str,
    to: Path | None = None,
    formats: Sequence[str] | None = None,
    images: "HowMany | None" = None,
    *,
    say: Say | None = None,
) -> Path:
    """Write a bundle of a run's winner or of a finished training, with trained weights, or of a named architecture,
    without.

    Args:
        source: a run's folder, a training's, or the name of an architecture.
        to: where the bundle goes.
        formats: see :data:`nas.export.formats.FORMATS`; each file is run and compared. None writes the bundle alone.
        images: of ``val``, on which whole detectors are compared; a few when left out.
        say: takes lines for a person while they are decoded into a ``data.cache``.

    Raises:
        RunError: a run without a winner yet, a training that is not finished, a bundle that has weights, or a file that
            is not equal.
        InvalidArchitecture: an unknown name.
        ConfigError: no such format, or one whose packages are not installed; images of what has none.
        DataError: images that are no longer there.
    """
    directory = Path(source)
    if images is not None and (images == 0 or not _has_images(directory)):
        found = f"--images: found {images}; allowed are all and numbers from 1"
        raise ConfigError(found if images == 0 else f"{found}, for a run or a training, and {source} is none")
    if formats is not None:
        # Before anything is spent. A search, which writes the bundle alone, needs none of what this imports.
        from nas.export.formats import chosen_formats

        chosen_formats(formats)
    if (directory / CLASSIFIER).exists():
        return export_pretraining(directory, to, _more(formats, None))
    if (directory / TRAINING).exists():
        return export_training(directory, to, formats, images, say=say)
    if not (directory / "recipe.yaml").exists():
        architecture = read_architecture(source)
        if (directory / MANIFEST).exists() and read_manifest(directory).weights:
            raise RunError(
                f"{source} is a bundle, whose trained weights would be lost; export the run or the training that it "
                f"was made of, or, for the network without weights: nas export {directory / ARCHITECTURE} --to DIR"
            )
        if to is None:
            raise ConfigError(f"{source} is no run, so --to DIR must say where its bundle goes")
        card = Card(title=source, facts=_facts(architecture, (224, 224)))
        return export_bundle(architecture, None, to, card, more=_more(formats, None))
    run = Run.open(directory)
    winner = run.read_winner()
    if winner is None:
        raise RunError(f"{directory} has no winner yet; finish the search with: nas resume {directory}")
    return export_winner(run, winner, to, formats, images, say=say)


def _has_images(directory: Path) -> bool:
    """Whether this is a run of a search or a finished training of a detector."""
    if (directory / CLASSIFIER).exists():
        return False
    return (directory / TRAINING).exists() or (directory / "recipe.yaml").exists()


def export_winner(
    run: Run,
    winner: Architecture,
    to: Path | None = None,
    formats: Sequence[str] | None = None,
    images: "HowMany | None" = None,
    *,
    say: Say | None = None,
) -> Path:
    """Write the winner's bundle with the weights, and the whole detector, of its first retraining; ``formats``,
    ``images`` and ``say`` as for :func:`export`."""
    results = results_of(run, winner)
    trained = None
    note = "none: no retraining of the winner is finished in this run"
    if results:
        first = results[0]
        trained = read_trained(training_directory(run, winner, first["seed"]))
        note = f"trained to completion in {run.recipe.detector.kind}, seed {first['seed']}"
    baseline = results_of(run, baseline_of(run.recipe))
    trials = histories(run)
    costs = ledger(run, trials)
    verdict = judge(
        winner=_by_seed(results),
        baseline=_by_seed(baseline),
        same=winner.digest == baseline_of(run.recipe).digest,
        state="complete",
    )
    size = tuple((run.read_json("data.json") or {"image_size": (224, 224)})["image_size"])
    folder = Path(run.recipe.data.root or run.recipe.data.source).name
    card = Card(
        title=f"Winner of {run.recipe.name}",
        verdict=verdict.sentence,
        scores={
            f"AP on val, {role}, seed {result['seed']}": f"{100 * result['metrics']['AP']:.2f}"
            for role, found in (("winner", results), ("baseline", baseline))
            for result in found
        },
        cost=({"all": cost_line(costs)} if costs["starts"] else {})
        | {name: f"{value:,}" for name, value in spending(run, trials).items()},
        facts=_facts(winner, size),
        levels=_levels(winner),
        data={"folder": folder} | (results[0]["data"] | {"licence": _licence(results[0])} if results else {}),
        command=f"nas search recipe.yaml --run DIR   # the recipe.yaml of this run, digest {run.digest}",
        versions=environment()["versions"],
        weights_note=note,
    )
    about = About(
        licence=_licence(results[0]) if results else run.recipe.data.licence or NOT_STATED,
        data={"name": folder} | (results[0]["data"] if results else {}),
        search=spending(run, trials) | {"line": cost_line(costs) if costs["starts"] else None},
        training=_training_cost(results[0]) if results else None,
        scores={
            role: spread(_by_seed(found))
            for role, found in (("winner", results), ("baseline", baseline))
            if found
        },
    )
    more = _more(formats, run.recipe.data, images, say)
    return _write_bundle(winner, trained, to or run.directory / "bundle", card, about, more)


def export_training(
    directory: Path,
    to: Path | None = None,
    formats: Sequence[str] | None = None,
    images: "HowMany | None" = None,
    *,
    say: Say | None = None,
) -> Path:
    """Write the bundle of a finished training of ``nas train``: its network, its weights and the whole detector;
    ``formats``, ``images`` and ``say`` as for :func:`export`.

    Raises:
        RunError: it is not finished, or its weights were changed since.
    """
    trained = read_trained(directory)
    result, recipe, network = trained.result, trained.recipe, trained.architecture
    score = spread({result["seed"]: result["metrics"]["AP"]})
    folder = Path(recipe.data.root or recipe.data.source).name
    card = Card(
        title=f"{family_of(network).text(network)}, trained by {recipe.name}",
        scores={f"AP on val, seed {result['seed']}": f"{100 * result['metrics']['AP']:.2f}"},
        cost={"training": f"{result['seconds']:,} s, {result['images']:,} images"},
        facts=_facts(network, tuple(result.get("image_size", (224, 224)))),
        levels=_levels(network),
        data={"folder": folder} | result["data"] | {"licence": _licence(result)},
        command=f"nas train BUNDLE training.yaml --run DIR   # the recipe in training.yaml, digest {result['recipe']}",
        versions=environment()["versions"],
        weights_note=f"trained to completion in {recipe.detector.kind}, seed {result['seed']}",
    )
    about = About(
        licence=_licence(result),
        data={"name": folder} | result["data"],
        training=_training_cost(result),
        scores={"trained": score},
    )
    more = _more(formats, recipe.data, images, say)
    return _write_bundle(network, trained, to or directory / "bundle", card, about, more)


def _write_bundle(
    network: Architecture,
    trained: FinishedTraining | None,
    to: Path,
    card: Card,
    about: About,
    more: More | None,
) -> Path:
    if trained is None:
        return export_bundle(network, None, to, card, about=about, more=more)
    detector = trained.detector
    if detector is None:
        # Of before trainings wrote down what a bundle of the detector needs.
        card = replace(
            card,
            weights_note=f"{card.weights_note}; the backbone's alone, train anew for a bundle of the detector",
        )
    weights = backbone_weights(trained.state)
    return export_bundle(network, weights, to, card, detector=detector, about=about, more=more)


def _more(
    formats: Sequence[str] | None,
    data: DataRecipe | None,
    images: "HowMany | None" = None,
    say: Say | None = None,
) -> More | None:
    """What adds the files of other formats; ``data`` are the images on which they are compared."""
    return (
        None if formats is None else partial(_add_formats, formats=formats, data=data, images=images, say=say)
    )


def _add_formats(
    folder: Path,
    *,
    formats: Sequence[str],
    data: DataRecipe | None,
    images: "HowMany | None",
    say: Say | None,
) -> None:
    from nas.export.formats import export_formats
    from nas.export.subject import bundled

    export_formats(bundled(folder, data, images=images, say=say), folder, formats)


def _licence(result: Mapping[str, Any]) -> str:
    return str(result.get("licence", NOT_STATED))


def _training_cost(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("seed", "seconds", "images")}


def _levels(network: Architecture) -> dict[str, tuple[int, int]]:
    return {name: (one.channels, one.stride) for name, one in family_of(network).levels(network).items()}


def _by_seed(results: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    return {result["seed"]: result["metrics"]["AP"] for result in results}


def _facts(architecture: Architecture, size: tuple[int, int]) -> dict[str, str]:
    found = cost(architecture, size)
    return {"parameters": f"{found.params:,}", f"multiply-adds at {size[0]}x{size[1]}": f"{found.macs:,}"}
