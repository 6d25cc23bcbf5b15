"""A bundle: the winner as a folder that a stranger can run.

``architecture.json``, ``weights.safetensors`` (where there are weights), ``README.md`` (the model card) and
``backbone.py``, one source file that imports only torch. A family of a person's own comes along in ``targets/``, so
that the toolkit can read the bundle anywhere; ``backbone.py`` does not need it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nas.export.card import Card, card_text
from nas.export.source import backbone_source
from nas.targets import family_files, gather
from search_spaces.architecture import Architecture
from search_spaces.errors import RunError
from search_spaces.targets import FOLDER

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"
SOURCE_FILE = "backbone.py"


def export_bundle(
    architecture: Architecture,
    state_dict: Mapping[str, torch.Tensor] | None,
    directory: Path,
    card: Card,
) -> Path:
    """Write a bundle; a reader sees the old one or the new one, never half of one.

    Args:
        architecture: the network; its family says which file defines it.
        state_dict: the backbone's weights, loading strictly into the built network; ``None`` leaves them out.
        directory: where the bundle goes; an earlier bundle there is replaced.
        card: what the model card says.

    Returns:
        ``directory``.

    Raises:
        InvalidArchitecture: the family cannot be exported.
        RunError: ``directory`` holds something that is no bundle, or the weights are not finite.
    """
    source = backbone_source(architecture)
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write(temporary / ARCHITECTURE_FILE, json.dumps(architecture.to_dict(), indent=2) + "\n")
        _write(temporary / SOURCE_FILE, source)
        _write(temporary / CARD_FILE, card_text(architecture, card, weights=state_dict is not None))
        gather(family_files(architecture), temporary, begun=False)
        if state_dict is not None:
            save_file(
                _contiguous(state_dict),
                temporary / WEIGHTS_FILE,
                metadata={"architecture": architecture.digest},
            )
        temporary.chmod(0o755)
        _replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def load_bundle(directory: Path) -> tuple[Architecture, dict[str, torch.Tensor] | None]:
    """Read a bundle's architecture and weights (``None`` where it has none).

    Raises:
        RunError: no bundle there, a damaged file, or weights that belong to another architecture.
    """
    path = directory / ARCHITECTURE_FILE
    if not path.is_file():
        raise RunError(
            f"no bundle in {directory}: {ARCHITECTURE_FILE} is missing; write one with `nas export RUN`"
        )
    try:
        architecture = Architecture.from_dict(json.loads(path.read_text(encoding="utf-8"))).at(
            directory / FOLDER
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is no architecture ({error}); export the bundle again") from error
    weights = directory / WEIGHTS_FILE
    if not weights.is_file():
        return architecture, None
    try:
        with safe_open(weights, framework="pt") as file:
            owner = (file.metadata() or {}).get("architecture")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iteration protocol
    except (SafetensorError, OSError) as error:
        raise RunError(f"{weights} cannot be read ({error}); export the bundle again") from error
    if owner is not None and owner != architecture.digest:
        raise RunError(
            f"{weights} belongs to architecture {owner}, but {path} describes {architecture.digest}; "
            "files of two bundles were mixed"
        )
    return architecture, state


def _contiguous(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    broken = [name for name, tensor in state_dict.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise RunError(
            f"cannot export: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}; "
            "the training diverged, export an earlier checkpoint"
        )
    # Copies, because safetensors refuses tensors that share memory.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise RunError(f"cannot write a bundle to {directory}: it is a file; name a folder")
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
    directory.replace(aside / "bundle")
    temporary.replace(directory)
    shutil.rmtree(aside)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
