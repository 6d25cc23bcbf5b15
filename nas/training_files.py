"""What a training to completion leaves in its directory, and a backbone's weights taken from there or from a bundle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from nas.export.bundle import load_bundle
from nas.resolve import read_architecture
from search_spaces.architecture import Architecture
from search_spaces.errors import RunError
from trainers.weights import forms_of, read_weights

TRAINING = "training.yaml"
RESULT = "result.json"
WEIGHTS = "detector.safetensors"
CLASSIFIER = "classifier.safetensors"
BACKBONE = "backbone.body."
"""Before the names of a backbone's tensors, in a detector and in a classifier."""


def backbone_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The backbone's weights of a detector or classifier, under the names of the stand-alone network."""
    return {
        name.removeprefix(BACKBONE): tensor for name, tensor in state.items() if name.startswith(BACKBONE)
    }


def stored_backbone(directory: Path) -> tuple[Architecture, dict[str, torch.Tensor] | None]:
    """The backbone of a bundle, or of a finished ``nas train`` or ``nas pretrain``; None where it has no weights.

    Raises:
        RunError: neither of them, or a file that is damaged or was changed since.
    """
    if not (directory / TRAINING).is_file():
        return load_bundle(directory, trust_code=True)
    architecture = read_architecture(str(directory))
    for path in (directory / WEIGHTS, directory / CLASSIFIER):
        if path.is_file() and (directory / RESULT).is_file():
            return architecture, backbone_weights(_as_written(path))
    return architecture, None


def load_finished(path: Path, network: torch.nn.Module) -> None:
    """Load what a finished training has written into the network of its recipe, and set that to evaluation.

    Raises:
        RunError: weights that are damaged, were changed, or are of another network.
    """
    try:
        weights = read_weights(path, forms_of(network), sha256=_known(path))
    except RunError as error:
        raise RunError(
            f"{error}. If another version or recipe wrote it, delete {path.parent} and train again"
        ) from error
    network.load_state_dict(weights.tensors)
    network.eval()


def _known(path: Path) -> str | None:
    """The digest that the result beside a file of weights states, None of one from before results stated it."""
    result = path.parent / RESULT
    content = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    found = content.get("weights", {}).get("sha256")
    return None if found is None else str(found)


def _as_written(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a finished training, if their file is the one that its result names."""
    known = _known(path)
    try:
        content = path.read_bytes()
        if known not in (None, hashlib.sha256(content).hexdigest()):
            raise RunError(
                f"{path} is not the file that was written; it was changed or damaged, train again into a new directory"
            )
        return load(content)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}); train again into a new directory") from error
