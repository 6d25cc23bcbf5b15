"""``.pt2`` files: graphs that torch loads without any code of ours."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nas.export.alone import run_alone
from nas.export.capture import Captured, quiet

_RUN = """
program = torch.export.load(sys.argv[1]).module()
found = []
with torch.no_grad():
    for one in inputs:
        found += list(program(one))
"""


def write_pt2(captured: Captured, path: Path, extra: Mapping[str, str] | None = None) -> None:
    """Save a graph, and texts by name in the same file."""
    with quiet():
        torch.export.save(captured.program, path, extra_files=dict(extra or {}))


def run_pt2(path: Path, inputs: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Load a graph in a fresh process that has only torch and run it; one tuple of outputs for each input.

    Raises:
        RunError: it does not run there.
    """
    found = run_alone(_RUN, [path], inputs, what=f"torch_export: {path.name}")
    count = len(found) // len(inputs)
    return [tuple(found[index * count : (index + 1) * count]) for index in range(len(inputs))]
