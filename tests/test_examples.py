"""Every numbered example runs as its first line says."""

import subprocess
import sys
from pathlib import Path

import pytest

from nas.methods.exporting import export

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    if "bundle" in example.stem:
        export("scr_resnet18", tmp_path / "bundle")
    argument = tmp_path / "bundle" if "bundle" in example.stem else tmp_path
    done = subprocess.run([sys.executable, example, argument], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
