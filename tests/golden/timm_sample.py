"""Draws the rows of timm's tables that ``test_hook_counter.py`` compares, and says which rows it draws from.

    PYTHONPATH=tests python tests/golden/timm_sample.py TABLES

TABLES is the folder with ``benchmark-infer-*.csv``. Taken are rows with all three counts, of networks under 60 million
parameters that timm can build and that are convolutional, which is read off the network and not off the table:

- it has a convolution with a kernel above 1x1 and stride 1 (a transformer has only that which cuts the patches);
- whatever multiplies or normalises or enlarges is a layer: torch dispatches nothing of the kind that hooks do not see
  (attention by matrix products, weights that are normalised, functional convolutions and interpolation fall out);
- no convolution is padded by name ("same"), for fvcore, which made the tables, passes over those.

Nothing is drawn twice, and the seed decides.
"""

import csv
import json
import os
import random
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

SAMPLE = Path(__file__).with_suffix(".json")
SEED, ROWS, MOST = 0, 100, 60.0
aten = torch.ops.aten
Row = tuple[float, float, float]
"""Parameters and activations in millions, multiply-adds in milliards: parameters, multiply-adds, activations."""


class Dispatched(TorchDispatchMode):
    """Counts the same as hooks from below, whoever calls."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.normalisation = self.upsampling = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            transposed = args[6]
            self.macs += (args[0] if transposed else out).numel() * args[1][0].numel()
        elif func in (aten.mm.default, aten.bmm.default):
            self.macs += out.numel() * args[0].shape[-1]
        elif func in (aten.addmm.default, aten.baddbmm.default):
            self.macs += out.numel() * args[1].shape[-1]
        elif func is aten.native_batch_norm.default:
            self.normalisation += 2 * args[0].numel()
        elif func in (aten.native_layer_norm.default, aten.native_group_norm.default):
            self.normalisation += 5 * args[0].numel()
        elif func is aten.upsample_nearest2d.default:
            self.upsampling += out.numel()
        elif func is aten.upsample_bilinear2d.default:
            self.upsampling += 4 * out.numel()
        return out


def table(folder: Path) -> dict[tuple[str, int], list[Row]]:
    """Name and side of the image -> what each table prints, where it prints all three."""
    found: dict[tuple[str, int], list[Row]] = {}
    for file in sorted(folder.glob("benchmark-infer-*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["infer_gmacs"]:
                    counts = (row["param_count"], row["infer_gmacs"], row["infer_macts"])
                    key = (row["model"], int(row["infer_img_size"]))
                    found.setdefault(key, []).append(tuple(map(float, counts)))  # type: ignore[arg-type]
    return found


def built(name: str) -> nn.Module:
    """On the meta device, with no weights at all."""
    import timm

    with torch.device("meta"):
        return timm.create_model(name, pretrained=False).eval()  # type: ignore[no-any-return]


def is_convolutional(network: nn.Module) -> bool:
    """By its layers; what it does between them is seen only while it runs."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return any(max(layer.kernel_size) > 1 and max(layer.stride) == 1 for layer in convolutions) and not any(
        isinstance(layer.padding, str) for layer in convolutions
    )


def main() -> None:
    """Draw and write."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import timm
    from hook_counter import hooked

    rows = table(Path(sys.argv[1]))
    known = set(timm.list_models())
    small = sorted(key for key, counts in rows.items() if key[0] in known and counts[0][0] < MOST)
    random.Random(SEED).shuffle(small)
    taken: list[tuple[str, int]] = []
    passed: list[tuple[str, int]] = []
    for name, side in small:
        if len(taken) == ROWS:
            break
        network = built(name)
        kept = is_convolutional(network)
        if kept:
            with torch.no_grad(), Dispatched() as seen, hooked(network) as count:
                network(torch.empty(1, 3, side, side, device="meta"))
            kept = (seen.macs, seen.normalisation, seen.upsampling) == (
                count.macs,
                count.normalisation,
                count.upsampling,
            )
        (taken if kept else passed).append((name, side))
        print(len(taken), name, side, "taken" if kept else "passed over", flush=True)
    data = {
        "made by": "tests/golden/timm_sample.py",
        "seed": SEED,
        "timm": timm.__version__,
        "rows": sorted(taken),
        "passed over": sorted(passed),
    }
    text = json.dumps(data, indent=1)
    # One row a line.
    text = re.sub(r"\[\s+(\"\w+\"),\s+(\d+)\s+\]", r"[\1, \2]", text)
    SAMPLE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
