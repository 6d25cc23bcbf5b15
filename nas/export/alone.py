"""Runs what was exported where there is nothing but torch: a fresh interpreter that finds nothing else to import."""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from search_spaces.errors import RunError

_SECONDS = 900
# And for each image, of which a person may name as many as a split has.
_SECONDS_AN_IMAGE = 10
# A line of standard output is the answer to a line of standard input; whatever the code prints goes elsewhere.
_ANSWERS = """
import os
answers = os.dup(1)
os.dup2(2, 1)
"""
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
_SERVE = """
given, found = (os.path.join(sys.argv[-1], name) for name in ("given.pt", "found.pt"))
while sys.stdin.readline():
    with torch.no_grad():
        torch.save(list(run(torch.load(given, weights_only=True))), found)
    os.write(answers, b"\\n")
"""

Runner = Callable[[Tensor], list[Tensor]]
"""Takes a batch and gives what was found in it."""


@contextmanager
def alone(code: str, arguments: Sequence[Path], *, what: str) -> Iterator[Runner]:
    """Run code in a fresh interpreter in which only torch and the standard library can be imported.

    One batch is there at a time, in memory and on disk, however many follow each other.

    Args:
        code: finds its ``arguments`` in ``sys.argv[1:]`` and leaves a function ``run``, which takes a tensor and gives
            tensors, and is called without gradients.
        arguments: paths.
        what: is run, for the sentence of an error.

    Yields:
        What runs that function there on a tensor, images in its first dimension. It raises RunError where the code
        fails, with the last line of its error, or takes too long.
    """
    # -B: compiled code of this Python would stay beside what it imports, and leave in a bundle.
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors.txt").open("w") as errors:
        given, found = Path(folder) / "given.pt", Path(folder) / "found.pt"
        with subprocess.Popen(
            [
                *(sys.executable, "-I", "-B", "-c", _ANSWERS + _ONLY_TORCH + code + _SERVE),
                *(str(one.resolve()) for one in arguments),
                folder,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # What waits in a buffer for a process that has ended would be an error of its own.
            bufsize=0,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        ) as process:
            allowed, waited = _SECONDS, 0.0

            def run(images: Tensor) -> list[Tensor]:
                nonlocal allowed, waited
                assert process.stdin is not None and process.stdout is not None
                # A view would be written with all that it is a part of.
                torch.save(images.clone(), given)
                allowed += _SECONDS_AN_IMAGE * len(images)
                began = time.monotonic()
                with suppress(BrokenPipeError):
                    process.stdin.write(b"\n")
                ready, _, _ = select.select([process.stdout], [], [], max(0.0, allowed - waited))
                waited += time.monotonic() - began
                if not ready:
                    raise RunError(
                        f"{what} was not done in {allowed:,} s where there is only torch; compare it on fewer images "
                        "(--images), or on a machine that has less to do"
                    )
                if not process.stdout.read(1):
                    status = process.wait()
                    lines = (Path(folder) / "errors.txt").read_text(errors="replace").strip().splitlines()
                    # One that was killed has left nothing but warnings of before.
                    last = lines[-1].strip() if lines and status == 1 else f"exit code {status}"
                    raise RunError(f"{what} does not run where there is only torch: {last}")
                result: list[Tensor] = torch.load(found, weights_only=True)
                return result

            try:
                yield run
            finally:
                process.kill()
