"""The formats by name, and the command's work: write every file, run it, compare it, say what it accepts."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.export.backbone_files import onnx_backbone, source_backbone, torch_export_backbone
from nas.export.detector_files import onnx_detector, torch_export_detector
from nas.export.onnx_file import missing_packages
from nas.export.plugin_files import detectron2_plugin, mmdet_plugin
from nas.export.subject import Subject
from nas.export.work import Exported, Work
from search_spaces.errors import ConfigError
from search_spaces.files import write_atomic

REPORT = "export.json"

FORMATS: Mapping[str, Sequence[Callable[[Work], None]]] = {
    "source": (source_backbone,),
    "onnx": (onnx_backbone, onnx_detector),
    "torch_export": (torch_export_backbone, torch_export_detector),
    "mmdet": (mmdet_plugin,),
    "detectron2": (detectron2_plugin,),
}
"""What each format consists of."""


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
        folder: of a bundle; the files, a folder for each plug-in and ``export.json`` are added.
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
        for write in FORMATS[name]:
            write(work)
    exported = Exported(artefacts=tuple(work.artefacts), left_out=tuple(work.left_out))
    write_atomic(folder / REPORT, (json.dumps(exported.to_dict(), indent=1) + "\n").encode())
    return exported


def read_report(folder: Path) -> dict[str, Any]:
    """What ``export.json`` of a folder says."""
    return dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))
