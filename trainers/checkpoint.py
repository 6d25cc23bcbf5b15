"""Checkpoints: written whole or not at all, read without running what is in them."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from search_spaces.errors import RunError
from search_spaces.files import write_atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace ``path``; a kill at any moment leaves the old checkpoint or the new one.

    Args:
        path: the file.
        state: tensors, numbers, strings, and lists and dicts of them.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        RunError: no checkpoint, or one that holds more than tensors and plain data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(f"{path} cannot be read as a checkpoint ({error}); delete it to start anew") from error
    if not isinstance(state, dict):
        raise RunError(f"{path} holds no checkpoint but a {type(state).__name__}; delete it to start anew")
    return state
