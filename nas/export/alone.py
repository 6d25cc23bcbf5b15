"""Runs what was exported where there is nothing but torch: a fresh interpreter that finds nothing else to import."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from search_spaces.errors import RunError

_SECONDS = 900
# And for each image, of which a person may name as many as a split has.
_SECONDS_AN_IMAGE = 10
# Whatever is not torch, its own requirements or the standard library is not found; torch itself asks for more.
_ONLY_TORCH = """
import importlib.metadata, re, sys
required = importlib.metadata.requires("torch") or []
allowed = {re.match(r"[A-Za-z0-9_-]+", line).group().lower().replace("-", "_") for line in required}
allowed |= {name.lower() for name in sys.stdlib_module_names}
allowed |= {"torch", "torchgen", "functorch", "mpmath", "markupsafe"}
allowed -= {"numpy"}
class OnlyTorch:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        known = first.lower() in allowed or first.startswith("_sysconfigdata")
        return self.finder.find_spec(name, path, target) if known else None
sys.meta_path[:] = [OnlyTorch(finder) for finder in sys.meta_path]
import torch
"""
_SAVE = """
torch.save(found, sys.argv[-1])
"""


def run_alone(code: str, arguments: Sequence[Path], inputs: Sequence[Tensor], *, what: str) -> list[Tensor]:
    """Run code in a fresh interpreter in which only torch and the standard library can be imported.

    Args:
        code: finds its ``arguments`` in ``sys.argv[1:]`` and a list of tensors in ``inputs``; leaves a list of tensors
            in ``found``.
        arguments: paths.
        inputs: tensors, images in their first dimension.
        what: is run, for the sentence of an error.

    Returns:
        What the code left in ``found``.

    Raises:
        RunError: it failed, with the last line of its error; or it takes too long.
    """
    # -B: compiled code of this Python would stay beside what it imports, and leave in a bundle.
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "inputs.pt", Path(folder) / "found.pt"
        # A view would be written with all that it is a part of.
        torch.save([one.clone() for one in inputs], given)
        read = "inputs = torch.load(sys.argv[-2], weights_only=True)\n"
        seconds = _SECONDS + _SECONDS_AN_IMAGE * sum(len(one) for one in inputs)
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-I", "-B", "-c", _ONLY_TORCH + read + code + _SAVE),
                    *(str(one.resolve()) for one in arguments),
                    *(str(given), str(result)),
                ],
                capture_output=True,
                text=True,
                timeout=seconds,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(
                f"{what} was not done in {seconds:,} s where there is only torch; compare it on fewer images "
                "(--images), or on a machine that has less to do"
            ) from error
        if done.returncode:
            last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
            raise RunError(f"{what} does not run where there is only torch: {last.strip()}")
        found: list[Tensor] = torch.load(result, weights_only=True)
        return found
