"""The backbone in its formats: a source file, a graph for onnxruntime and one for torch."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from nas.export.alone import alone
from nas.export.onnx_file import OnnxModel, write_onnx
from nas.export.parity import kept_if_equal
from nas.export.torch_export import pt2_alone, write_pt2
from nas.export.work import NORMALISED, Work

SOURCE = "backbone.py"
WEIGHTS = "weights.safetensors"
_RUN_SOURCE = """
sys.path.insert(0, sys.argv[1])
allowed.add("backbone")
import backbone
network = backbone.load(sys.argv[2])
def run(images):
    return network(images).values()
"""


def source_backbone(work: Work) -> None:
    """``backbone.py``, which the bundle has written: run where there is only torch."""
    path = work.folder / SOURCE
    with (
        stored_weights(work) as weights,
        alone(_RUN_SOURCE, [work.folder, weights], what=f"source: {SOURCE}") as run,
    ):
        checks = work.compare_backbone(run, name="source", of=SOURCE, one_size=False)
    accepts = f"float32 (N, 3, H, W), any N, H and W; {NORMALISED}"
    work.add(path, name="source", holds="backbone", accepts=accepts, checks=checks)


@contextmanager
def stored_weights(work: Work) -> Iterator[Path]:
    """The bundle's weights of the backbone; where it has none, a file for the comparison, which needs equal ones."""
    path = work.folder / WEIGHTS
    if path.exists():
        yield path.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / WEIGHTS
        save_file({name: one.clone() for name, one in work.subject.backbone.state_dict().items()}, path)
        yield path


def onnx_backbone(work: Work) -> None:
    """``backbone.onnx``."""
    captured = work.captured
    about = {
        "architecture": work.subject.architecture.digest,
        "input": f"{captured.accepts}; {NORMALISED}",
    }
    with kept_if_equal(work.folder / "backbone.onnx") as path:
        write_onnx(captured, path, about=about)
        model = OnnxModel(path)
        checks = work.compare_backbone(
            lambda images: list(model(images).values()),
            name="onnx",
            of=path.name,
            one_size=captured.size is not None,
        )
    work.add(path, name="onnx", holds="backbone", accepts=about["input"], checks=checks)


def torch_export_backbone(work: Work) -> None:
    """``backbone.pt2``."""
    captured = work.captured
    with kept_if_equal(work.folder / "backbone.pt2") as path:
        write_pt2(captured, path)
        with pt2_alone(path) as run:
            checks = work.compare_backbone(
                run, name="torch_export", of=path.name, one_size=captured.size is not None
            )
    accepts = f"{captured.accepts}; {NORMALISED}"
    work.add(path, name="torch_export", holds="backbone", accepts=accepts, checks=checks)
