"""``.onnx`` files, which onnxruntime runs without torch. onnx, onnxscript and onnxruntime are imported where needed."""

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.export.capture import Captured, quiet

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20


def missing_packages() -> tuple[str, ...]:
    """What this format needs and is not installed."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def write_onnx(
    captured: Captured,
    path: Path,
    *,
    about: Mapping[str, str],
    translations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> None:
    """Write a graph as one file.

    Args:
        captured: its input is called ``images``.
        path: of the file.
        about: what the file says of itself, as its metadata.
        translations: operation of ours -> what it is in ONNX.
    """
    with quiet(), _silent("torch.onnx"), _silent("onnxscript"):
        program = torch.onnx.export(
            captured.program,
            dynamo=True,
            input_names=["images"],
            output_names=list(captured.outputs),
            opset_version=OPSET,
            custom_translation_table=dict(translations) if translations else None,
            verbose=False,
        )
        assert program is not None
        program.model.producer_name = "vertebra"
        program.model.metadata_props.update(about)
        program.save(path, external_data=False)


class OnnxModel:
    """A file loaded into onnxruntime.

    Args:
        path: of the file.
        threads: of a pass.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images -> outputs by name."""
        found = self._session.run(None, {"images": images.numpy()})
        return {name: torch.from_numpy(one) for name, one in zip(self.outputs, found, strict=True)}


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
