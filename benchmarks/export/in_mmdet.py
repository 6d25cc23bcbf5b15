"""The plug-in of a bundle inside MMDetection itself, where that is installed.

    nas export RUN --to BUNDLE --format source --format mmdet
    python benchmarks/export/in_mmdet.py BUNDLE [--to benchmarks/results/export_mmdet.json]

with the Python of an environment of torch, ``mmdet==3.3.0`` and ``mmcv==2.1.0``, or ``mmcv-lite==2.1.0``, which has no
compiled operations: then a stand-in lets MMDetection be imported, and whatever would call one of them fails.

The config is read with its base, the backbone is built by the registry, and its maps are compared with those of the
bundle's ``backbone.py``. Then the config's whole Faster R-CNN is built, and images go through backbone, neck and the
head of proposals, which need no compiled operation; its losses and boxes do and are not looked at.
"""

import argparse
import importlib
import json
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULT = Path(__file__).parents[1] / "results/export_mmdet.json"
SIZE = (2, 3, 128, 160)


class NotCompiled(types.ModuleType):
    """In the place of mmcv's compiled operations; every one of them is there and fails."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{name}: this environment has no compiled operations of mmcv")

        return missing


def main() -> None:
    """Build, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args()
    try:
        importlib.import_module("mmcv._ext")
        compiled = True
    except ImportError:
        sys.modules["mmcv._ext"] = NotCompiled("mmcv._ext")
        compiled = False
    # As MMDetection's own scripts are started: with the plug-in's folder among those of Python.
    sys.path[:0] = [str(given.bundle / "mmdet"), str(given.bundle)]
    source = importlib.import_module("backbone")
    config = importlib.import_module("mmengine.config").Config.fromfile(given.bundle / "mmdet/config.py")
    models = importlib.import_module("mmdet.registry").MODELS
    images = torch.rand(SIZE, generator=torch.Generator().manual_seed(0))
    plain = source.load(str(given.bundle / "weights.safetensors")).eval()
    with importlib.import_module("mmengine.registry").DefaultScope.overwrite_default_scope("mmdet"):
        backbone = models.build(config.model.backbone).eval()
        whole = models.build(config.model).eval()
    with torch.no_grad():
        wanted = plain(images)
        levels = config.model.backbone["levels"]
        off = {
            name: float((one - wanted[name]).abs().max() / wanted[name].abs().max())
            for name, one in zip(levels, backbone(images), strict=True)
        }
        maps = whole.extract_feat(images)
        scores, codes = whole.rpn_head(maps)
    result = {
        "command": "python benchmarks/export/in_mmdet.py BUNDLE",
        "versions": {
            name: version(name)
            for name in ("torch", "mmengine", "mmdet", "mmcv" if compiled else "mmcv-lite")
        },
        "compiled_operations": compiled,
        "detector": type(whole).__name__,
        "off_by": off,
        "maps": [list(one.shape) for one in maps],
        "scores": [list(one.shape) for one in scores],
        "codes": [list(one.shape) for one in codes],
    }
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
