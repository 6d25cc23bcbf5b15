"""``.pt2`` files: graphs that torch loads without any code of ours."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from nas.export.alone import Runner, alone
from nas.export.capture import Captured, quiet

_RUN = """
run = torch.export.load(sys.argv[1]).module()
"""


def write_pt2(captured: Captured, path: Path, extra: Mapping[str, str] | None = None) -> None:
    """Save a graph, and texts by name in the same file."""
    with quiet():
        torch.export.save(captured.program, path, extra_files=dict(extra or {}))


def pt2_alone(path: Path) -> AbstractContextManager[Runner]:
    """A graph loaded where there is only torch; see :func:`nas.export.alone.alone`."""
    return alone(_RUN, [path], what=f"torch_export: {path.name}")
