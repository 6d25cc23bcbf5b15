"""The formats by name, and the command's work: write every file, run it, compare it, say what it accepts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nas.export.alone import run_alone
from nas.export.capture import Captured, capture_backbone
from nas.export.onnx_file import OnnxModel, missing_packages, write_onnx
from nas.export.parity import Artefact, Check, compare_maps, kept_if_equal, taller_and_wider, worst
from nas.export.subject import Subject
from nas.export.torch_export import run_pt2, write_pt2
from search_spaces.errors import ConfigError
from search_spaces.files import write_atomic
from trainers.detectors.detector import normalised

REPORT = "export.json"
SOURCE = "backbone.py"
_WEIGHTS = "weights.safetensors"
_NORMALISED = "RGB from 0 to 1, less mean, over standard deviation"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written.

    Attributes:
        artefacts: files that were compared and found equal.
        left_out: what could not be exported and why, one sentence each.
    """

    artefacts: tuple[Artefact, ...]
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What ``export.json`` says."""
        return {
            "artefacts": [one.to_dict() for one in self.artefacts],
            "left_out": list(self.left_out),
        }


class Work:
    """One export: what several formats share is computed once.

    Args:
        subject: the network.
        folder: of the export; holds ``backbone.py`` already.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.artefacts: list[Artefact] = []
        self.left_out: list[str] = []
        self._captured: Captured | None = None

    @property
    def captured(self) -> Captured:
        """The backbone as a graph."""
        if self._captured is None:
            one = self.subject
            self._captured = capture_backbone(one.backbone, one.levels, one.image_size)
        return self._captured

    def backbone_inputs(self, *, one_size: bool) -> list[Tensor]:
        """Normalised images: all of them, the first one alone, and all of them at another size where that may be."""
        images = normalised(self.subject.images)
        inputs = [images, images[:1]]
        return inputs if one_size else [*inputs, taller_and_wider(images, self.subject.step)]

    def compare_backbone(
        self, run: Callable[[list[Tensor]], Sequence[Sequence[Tensor]]], *, name: str, of: str, one_size: bool
    ) -> tuple[Check, ...]:
        """Compare what a file gives with what the backbone gives.

        Raises:
            RunError: they differ.
        """
        inputs, levels = self.backbone_inputs(one_size=one_size), tuple(self.subject.levels)
        with torch.no_grad():
            wanted = [self.subject.backbone(one) for one in inputs]
        found = [dict(zip(levels, one, strict=True)) for one in run(inputs)]
        return worst(
            compare_maps(one, other, name=name, of=of) for one, other in zip(wanted, found, strict=True)
        )

    def add(self, path: Path, *, name: str, holds: str, accepts: str, checks: tuple[Check, ...]) -> None:
        """Note a file that was found equal."""
        self.artefacts.append(
            Artefact(
                format=name,
                file=str(path.relative_to(self.folder)),
                holds=holds,
                bytes=path.stat().st_size,
                accepts=accepts,
                checks=checks,
                on=self.subject.on if checks else "",
            )
        )


_RUN_SOURCE = """
sys.path.insert(0, sys.argv[1])
allowed.add("backbone")
import backbone
network = backbone.load(sys.argv[2])
found = []
with torch.no_grad():
    for one in inputs:
        found += list(network(one).values())
"""


def _source(work: Work) -> None:
    """``backbone.py``, which the bundle has written: run where there is only torch."""
    path = work.folder / SOURCE
    weights = work.folder / _WEIGHTS
    stored = weights.exists()
    if not stored:
        # A network that was never trained leaves without weights; the comparison still needs equal ones.
        weights = work.folder / f".{_WEIGHTS}"
        save_file({name: one.clone() for name, one in work.subject.backbone.state_dict().items()}, weights)

    def run(inputs: list[Tensor]) -> list[list[Tensor]]:
        found = run_alone(_RUN_SOURCE, [work.folder, weights], inputs, what=f"source: {SOURCE}")
        count = len(found) // len(inputs)
        return [found[index * count : (index + 1) * count] for index in range(len(inputs))]

    try:
        checks = work.compare_backbone(run, name="source", of=SOURCE, one_size=False)
    finally:
        if not stored:
            weights.unlink()
    accepts = f"float32 (N, 3, H, W), any N, H and W; {_NORMALISED}"
    work.add(path, name="source", holds="backbone", accepts=accepts, checks=checks)


def _onnx(work: Work) -> None:
    folder = work.folder / "onnx"
    folder.mkdir(exist_ok=True)
    captured = work.captured
    about = {
        "architecture": work.subject.architecture.digest,
        "input": f"{captured.accepts}; {_NORMALISED}",
    }
    with kept_if_equal(folder / "backbone.onnx") as path:
        write_onnx(captured, path, about=about)
        model = OnnxModel(path)
        checks = work.compare_backbone(
            lambda inputs: [list(model(one).values()) for one in inputs],
            name="onnx",
            of=path.name,
            one_size=captured.size is not None,
        )
    work.add(path, name="onnx", holds="backbone", accepts=about["input"], checks=checks)


def _torch_export(work: Work) -> None:
    folder = work.folder / "torch_export"
    folder.mkdir(exist_ok=True)
    captured = work.captured
    with kept_if_equal(folder / "backbone.pt2") as path:
        write_pt2(captured, path)
        checks = work.compare_backbone(
            lambda inputs: run_pt2(path, inputs),
            name="torch_export",
            of=path.name,
            one_size=captured.size is not None,
        )
    accepts = f"{captured.accepts}; {_NORMALISED}"
    work.add(path, name="torch_export", holds="backbone", accepts=accepts, checks=checks)


FORMATS: Mapping[str, Callable[[Work], None]] = {
    "source": _source,
    "onnx": _onnx,
    "torch_export": _torch_export,
}


def chosen_formats(wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which formats to write; nothing wanted, or ``all``, means every one whose packages are installed.

    Returns:
        Names, in the order of the catalog, and a sentence for each that is left out.

    Raises:
        ConfigError: no such format, or one asked for by name whose packages are not installed.
    """
    unknown = [name for name in wanted if name not in FORMATS and name != "all"]
    if unknown:
        raise ConfigError(f"--format: found {unknown[0]!r}; allowed are all, {', '.join(FORMATS)}")
    every = not wanted or "all" in wanted
    names = [name for name in FORMATS if every or name in wanted]
    missing = missing_packages() if "onnx" in names else ()
    if not missing:
        return tuple(names), ()
    sentence = f"onnx needs {', '.join(missing)}: pip install 'vertebra[onnx]'"
    if "onnx" in wanted:
        raise ConfigError(f"--format: {sentence}")
    return tuple(name for name in names if name != "onnx"), (f"onnx: not installed; {sentence}",)


def export_formats(subject: Subject, folder: Path, formats: Sequence[str]) -> Exported:
    """Write a network into a folder in several formats; every file is run by its own runtime and compared.

    Args:
        subject: the network.
        folder: holds the bundle's own files; one folder a format is added, and ``export.json``.
        formats: as for :func:`chosen_formats`.

    Returns:
        What was written, with the differences found.

    Raises:
        ConfigError: see :func:`chosen_formats`.
        RunError: a file does not run or is too far off; names format, level and difference. The file is gone.
    """
    names, left_out = chosen_formats(formats)
    work = Work(subject, folder)
    work.left_out += left_out
    for name in names:
        FORMATS[name](work)
    exported = Exported(artefacts=tuple(work.artefacts), left_out=tuple(work.left_out))
    write_atomic(folder / REPORT, (json.dumps(exported.to_dict(), indent=1) + "\n").encode())
    return exported
