"""Effective receptive fields at random weights, before and after reallocation (CR-NAS, figure 1).

    python benchmarks/erf_figures.py [seeds]

writes benchmarks/results/erf_random_init.json: for each network and level the standard deviation, the radius
and the gradient box in px on a 512x512 canvas, with the theoretical field beside them.
"""

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from nas.proxies.erf import EffectiveField, erf_at_random_init
from search_spaces.cost import trf
from search_spaces.crnas.zoo import ZOO

NETWORKS = ("resnet18", "scr_resnet18", "resnet50", "scr_resnet50")
CANVAS = (512, 512)
IMAGES = 2
RESULT = Path(__file__).parent / "results" / "erf_random_init.json"


def row(field: EffectiveField, theory: int) -> dict[str, Any]:
    """The numbers of one level, in px."""
    return {
        "std": round(field.std, 2),
        "radius": round(field.radius, 1),
        "box": list(field.box),
        "trf": theory,
    }


def main(seeds: int) -> None:
    """Measure every network at every seed and write the result."""
    rows = []
    for name in NETWORKS:
        theory = trf(ZOO[name])
        for seed in range(seeds):
            begin = time.perf_counter()
            fields = erf_at_random_init(ZOO[name], seed=seed, input_size=CANVAS, images=IMAGES)
            levels = {level: row(field, theory[level]) for level, field in fields.items()}
            seconds = round(time.perf_counter() - begin, 1)
            rows.append({"network": name, "seed": seed, "seconds": seconds, "levels": levels})
            print(name, seed, {level: found["std"] for level, found in levels.items()}, f"{seconds} s")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "command": f"python benchmarks/erf_figures.py {seeds}",
        "what": "input gradient of the central cell, BN calibrated on noise, random weights; px",
        "canvas": list(CANVAS),
        "images": IMAGES,
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
