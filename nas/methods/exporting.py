"""``nas export``: the winner of a run, or a named architecture, as a bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nas.export.bundle import export_bundle
from nas.export.card import Card
from nas.methods.catalog import baseline_of
from nas.methods.costs import cost_line, ledger
from nas.methods.retraining import results_of, training_directory
from nas.report.verdict import judge
from nas.resolve import read_architecture
from nas.run import Run, environment
from nas.show import histories, spending
from nas.training import WEIGHTS
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.cost import cost
from search_spaces.errors import ConfigError, RunError

BACKBONE = "backbone.body."


def export(source: str, to: Path | None = None) -> Path:
    """Write a bundle of a run's winner, with trained weights, or of a named architecture, without.

    Raises:
        RunError: a run without a winner yet.
        InvalidArchitecture: an unknown name.
    """
    directory = Path(source)
    if not (directory / "recipe.yaml").exists():
        architecture = read_architecture(source)
        if to is None:
            raise ConfigError(f"{source} is no run, so --to DIR must say where its bundle goes")
        return export_bundle(
            architecture, None, to, Card(title=source, facts=_facts(architecture, (224, 224)))
        )
    run = Run.open(directory)
    winner = run.read_winner()
    if winner is None:
        raise RunError(f"{directory} has no winner yet; finish the search with: nas resume {directory}")
    return export_winner(run, winner, to)


def export_winner(run: Run, winner: Architecture, to: Path | None = None) -> Path:
    """Write the winner's bundle with the weights of its first retraining."""
    results = results_of(run, winner)
    state = None
    note = "none: no retraining of the winner is finished in this run"
    if results:
        first = results[0]
        state = backbone_weights(load_file(training_directory(run, winner, first["seed"]) / WEIGHTS))
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
        facts=_facts(winner, tuple((run.read_json("data.json") or {"image_size": (224, 224)})["image_size"])),
        levels={
            name: (level.channels, level.stride) for name, level in family_of(winner).levels(winner).items()
        },
        data={"folder": Path(run.recipe.data.root or run.recipe.data.source).name}
        | (results[0]["data"] if results else {}),
        command=f"nas search recipe.yaml --run DIR   # the recipe.yaml of this run, digest {run.digest}",
        versions=environment()["versions"],
        weights_note=note,
    )
    return export_bundle(winner, state, to or run.directory / "bundle", card)


def backbone_weights(detector_state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A detector's backbone weights under the names of the stand-alone network."""
    return {
        name.removeprefix(BACKBONE): tensor
        for name, tensor in detector_state.items()
        if name.startswith(BACKBONE)
    }


def _by_seed(results: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    return {result["seed"]: result["metrics"]["AP"] for result in results}


def _facts(architecture: Architecture, size: tuple[int, int]) -> dict[str, str]:
    found = cost(architecture, size)
    return {"parameters": f"{found.params:,}", f"multiply-adds at {size[0]}x{size[1]}": f"{found.macs:,}"}
