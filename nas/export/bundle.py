"""A bundle: the winner as a folder that a stranger can run.

``bundle.json`` declares every other file: ``architecture.json``, ``weights.safetensors`` (where there are weights),
``detector.json`` and ``detector.safetensors`` (where a detector was trained), ``README.md`` (the model card) and
``backbone.py``, one source file that imports only torch. A family of a person's own comes along in ``targets/``, so
that the toolkit can read the bundle anywhere; ``backbone.py`` does not need it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from nas.config import to_data
from nas.export.about import About
from nas.export.card import Card, card_text
from nas.export.detector import (
    ARCHITECTURE_FILE,
    DETECTOR_FILE,
    DETECTOR_WEIGHTS,
    LoadedDetector,
    TrainedDetector,
    expected_forms,
    load_detector,
    read_bundled_architecture,
    require_owner,
    require_trust,
    write_detector,
)
from nas.export.manifest import Kind, declare, read_manifest, verify
from nas.export.source import backbone_source
from nas.targets import family_files, files_of, gather
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import RunError
from trainers.learner import MEAN, STD
from trainers.weights import read_weights, write_weights

__all__ = [
    "ARCHITECTURE_FILE",
    "CARD_FILE",
    "DETECTOR_FILE",
    "DETECTOR_WEIGHTS",
    "SOURCE_FILE",
    "WEIGHTS_FILE",
    "LoadedDetector",
    "TrainedDetector",
    "export_bundle",
    "load_bundle",
    "load_detector",
]

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"
SOURCE_FILE = "backbone.py"


def export_bundle(
    architecture: Architecture,
    state_dict: Mapping[str, torch.Tensor] | None,
    directory: Path,
    card: Card,
    *,
    detector: TrainedDetector | None = None,
    about: About | None = None,
    more: Callable[[Path], None] | None = None,
) -> Path:
    """Write a bundle; a reader sees the old one or the new one, never half of one.

    Args:
        architecture: the network; its family says which file defines it.
        state_dict: the backbone's weights, loading strictly into the built network; ``None`` leaves them out.
        directory: where the bundle goes; an earlier bundle there is replaced.
        card: what the model card says.
        detector: that was trained around the backbone; ``None`` where none was.
        about: what ``bundle.json`` says beside files and input.
        more: called with the folder before it takes its place, when it can be loaded already; whatever it adds there
            is declared too.

    Returns:
        ``directory``.

    Raises:
        InvalidArchitecture: the family cannot be exported.
        RunError: ``directory`` holds something that is no bundle or is where one stands, the weights are not finite, or
            the system refuses to write them.
    """
    source = backbone_source(architecture)
    _refuse_foreign(directory)
    for state in (state_dict, None if detector is None else detector.state):
        _require_finite(state or {})
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(
        tempfile.mkdtemp(prefix=f".{directory.name}-", suffix=f".{os.getpid()}.tmp", dir=directory.parent)
    )
    owner = {"architecture": architecture.digest}
    try:
        _write(temporary / ARCHITECTURE_FILE, json.dumps(architecture.to_dict(), indent=2) + "\n")
        _write(temporary / SOURCE_FILE, source)
        text = card_text(architecture, card, weights=state_dict is not None, detector=detector is not None)
        _write(temporary / CARD_FILE, text)
        own = family_files(architecture)
        if detector is not None:
            own = tuple(dict.fromkeys((*own, *files_of(to_data(detector.recipe)))))
        gather(own, temporary, begun=False)
        if state_dict is not None:
            write_weights(temporary / WEIGHTS_FILE, state_dict, owner)
        if detector is not None:
            write_detector(temporary, detector)
            write_weights(temporary / DETECTOR_WEIGHTS, detector.state, owner)
        says = {**(about or About()).to_dict(), "title": card.title, "input": _input(detector)}

        def declare_all() -> None:
            kind: Kind = "backbone" if detector is None else "detector"
            declare(temporary, kind=kind, architecture=architecture.digest, about=says)

        declare_all()
        if more is not None:
            more(temporary)
            declare_all()
        temporary.chmod(0o755)
        _replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def load_bundle(
    directory: Path, *, trust_code: bool = False
) -> tuple[Architecture, dict[str, torch.Tensor] | None]:
    """Read a bundle's architecture and weights (``None`` where it has none).

    Args:
        directory: of the bundle.
        trust_code: where its weights are of a family of its maker's own, run the files of that family
            (``targets/*.py``), with which the weights are compared.

    Raises:
        RunError: no bundle there, code that is not trusted, a file that is damaged, was changed or does not hold what
            it has to, or weights that belong to another architecture.
    """
    manifest = read_manifest(directory)
    verify(directory, manifest)
    architecture = read_bundled_architecture(directory, manifest)
    path = directory / WEIGHTS_FILE
    if WEIGHTS_FILE not in manifest.files:
        return architecture, None
    own = require_trust(directory, manifest, (architecture.family,), trusted=trust_code)
    expected = expected_forms(lambda: family_of(architecture).build(architecture), path, own=own)
    found = read_weights(path, expected, sha256=manifest.files[WEIGHTS_FILE].sha256)
    require_owner(path, found.metadata, architecture)
    return architecture, found.tensors


def _input(detector: TrainedDetector | None) -> dict[str, object]:
    """What images have to be, for ``bundle.json``."""
    return {
        "channels": "RGB",
        "range": [0, 1],
        "mean": list(MEAN),
        "std": list(STD),
        "size": None if detector is None else list(detector.image_size),
        "pictures": None if detector is None else str(detector.fit),
        "padding": "zero, at right and bottom, before mean and std",
    }


def _require_finite(state: Mapping[str, torch.Tensor]) -> None:
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise RunError(
            f"cannot export: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}; "
            "the training diverged, export an earlier checkpoint"
        )


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise RunError(f"cannot write a bundle to {directory}: it is a file; name a folder")
    if Path.cwd().is_relative_to(directory.resolve()):
        # A folder is replaced whole, and whoever stands in it would stand nowhere.
        raise RunError(f"cannot write a bundle to {directory}: you are in it; name a new folder")
    if any(directory.iterdir()) and not (directory / ARCHITECTURE_FILE).is_file():
        raise RunError(
            f"cannot write a bundle to {directory}: it holds other files; name an empty or a new folder"
        )


def _replace(temporary: Path, directory: Path) -> None:
    """Put ``temporary`` in place of ``directory``."""
    if not directory.exists():
        temporary.replace(directory)
        return
    # A folder that is not empty cannot be renamed over, so the old one steps aside first.
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
    try:
        directory.replace(aside / "bundle")
        try:
            temporary.replace(directory)
        except BaseException:
            (aside / "bundle").replace(directory)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
