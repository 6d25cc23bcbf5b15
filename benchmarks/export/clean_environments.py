"""Search, export everything, and run each file in an environment of its own that holds only what its format needs.

    python benchmarks/export/clean_environments.py RECIPE --work runs/export --to benchmarks/results/export.json
    python benchmarks/export/clean_environments.py --run RUN --work runs/export --to FILE [--latency]

A finished run, or a finished training, in ``--run`` or ``WORK/run`` is taken as it is, and so are environments in
``--envs`` or ``WORK/envs``. For each file: its size, and how far what it gives is from PyTorch with the toolkit, on
every image of the validation split. With ``--latency`` also its latency over that of the network in PyTorch, one image
at a time on one thread. Files and PyTorch are timed in turn, ``--turns`` times, each time in a new process; believe the
ratios only of a machine that has nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nas.export.detections import compare_ap, compare_detections
from nas.export.detector import LoadedDetector, load_detector
from nas.export.parity import compare_maps
from nas.run import Run
from nas.trained import read_trained
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.detectors.dense import DenseDetector
from trainers.detectors.detector import Detections
from trainers.evaluate import coco_metrics, coco_results
from trainers.learner import normalised

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NEEDS = {"onnx": ("onnxruntime", "numpy", "pillow"), "torch": ("torch",)}
FILES = {
    "backbone.py": "torch",
    "backbone.pt2": "torch",
    "backbone.onnx": "onnx",
    "detector.pt2": "torch",
    "detector.onnx": "onnx",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="of a search, where there is no run yet")
    parser.add_argument("--run", type=Path, help="a finished run or training; WORK/run when left out")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--envs", type=Path, help="environments; WORK/envs when left out")
    parser.add_argument("--latency", action="store_true", help="time the files too, on an idle machine")
    parser.add_argument("--to", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20, help="timed images in a process")
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    run, bundle = (asked.run or work / "run").resolve(), work / "bundle"
    envs = (asked.envs or work / "envs").resolve()
    sets = [part for one in asked.set for part in ("--set", one)]
    if not (run / "report.html").exists() and not (run / "result.json").exists():
        if asked.recipe is None:
            parser.error(f"{run} is no finished run or training; name one, or the recipe of a search")
        nas("search", asked.recipe, "--run", run, *sets)
    exported = json.loads(nas("export", run, "--to", bundle, "--images", "all", "--json"))
    recipe = Run.open(run).recipe if (run / "recipe.yaml").exists() else read_trained(run).recipe
    data = open_split(recipe.data, "val")
    torch.set_num_threads(1)
    loaded = load_detector(bundle, trust_code=True)
    write_images(data, work)
    pythons = {name: environment(envs / name, needs) for name, needs in NEEDS.items()}
    table = measured(bundle, data, loaded, pythons, work, asked.turns if asked.latency else 0, asked.rounds)
    sizes = {one["file"]: one for one in exported["artefacts"]}
    for name, row in table.items():
        row |= {key: sizes[name][key] for key in ("format", "holds", "bytes", "accepts")}
    for name, one in sizes.items():
        if name not in table:
            checks = {check["of"]: check["difference"] for check in one["checks"]}
            table[name] = {key: one[key] for key in ("format", "holds", "bytes", "accepts")} | {
                "on_export": checks
            }
    result = {
        "command": "python benchmarks/export/clean_environments.py " + " ".join(map(shown, sys.argv[1:])),
        "recipe": recipe.name,
        "detector": loaded.recipe.kind,
        "images": len(data),
        "image_size": list(data.image_size),
        "files": table,
        "left_out": exported["left_out"],
        "environments": {name: list(needs) for name, needs in NEEDS.items()},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "when": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(result, indent=1) + "\n"
    if asked.to is not None:
        asked.to.write_text(text, encoding="utf-8")
    print(text)


def shown(argument: str) -> str:
    """An argument without the folders of this machine."""
    name, equals, value = argument.rpartition("=")
    return f"{name}{equals}DIR" if Path(value).is_absolute() else argument


def nas(*arguments: object) -> str:
    """Standard output of a command of the toolkit."""
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def environment(folder: Path, needs: Sequence[str]) -> Path:
    """The Python of a virtual environment with nothing but what is named, in the versions of constraints.txt."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), *needs], check=True)
        (folder / "ready").touch()
    return python


def write_images(data: DetectionSet, work: Path) -> None:
    """The split as PNG files and as one tensor."""
    folder = work / "images"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for index in range(len(data)):
        image = data.images[index]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:06}.png")
    torch.save(data.images[:], work / "images.pt")


def measured(
    bundle: Path,
    data: DetectionSet,
    loaded: LoadedDetector,
    pythons: dict[str, Path],
    work: Path,
    turns: int,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """File -> how far it is off and, where it is timed in any turns, its latency over PyTorch's."""
    files = [name for name in FILES if (bundle / name).exists()]
    latency: dict[str, list[float]] = {name: [] for name in files}
    eager: dict[str, list[float]] = {"backbone": [], "detector": []}
    for _ in range(turns):
        # In a fresh process too: this one has exported and compared, and its memory is in another state.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            found = fresh.submit(eager_ms, bundle, work / "images.pt", rounds).result()
        for holds, taken in eager.items():
            taken.append(found[holds])
        for name in files:
            latency[name].append(run_alone(bundle / name, pythons[FILES[name]], work, rounds)["ms"])
    table: dict[str, dict[str, Any]] = {}
    for name in files:
        if not turns:
            # Untimed but for one image, for each has to run there at all.
            run_alone(bundle / name, pythons[FILES[name]], work, 1)
            table[name] = {"environment": FILES[name], **compared(name, data, loaded, work)}
            continue
        holds = name.partition(".")[0]
        ratios = [one / base for one, base in zip(latency[name], eager[holds], strict=True)]
        table[name] = {
            "environment": FILES[name],
            **compared(name, data, loaded, work),
            "ms": [round(one, 3) for one in latency[name]],
            "pytorch_ms": [round(one, 3) for one in eager[holds]],
            "over_pytorch": {
                "median": round(statistics.median(ratios), 3),
                "low": round(min(ratios), 3),
                "high": round(max(ratios), 3),
            },
        }
    return table


def eager_ms(bundle: Path, images: Path, rounds: int) -> dict[str, float]:
    """Median milliseconds of an image in PyTorch with the toolkit, of the backbone and of the whole detector."""
    torch.set_num_threads(1)
    detector = load_detector(bundle, trust_code=True).detector
    ways = {
        "backbone": lambda image: detector.backbone.body(normalised(image)),
        "detector": detector.detections,
    }
    found = {}
    for holds, run in ways.items():
        seconds = []
        with torch.no_grad():
            for image in torch.load(images, weights_only=True)[:rounds]:
                for _ in range(2):
                    started = time.perf_counter()
                    run(image[None])
                    taken = time.perf_counter() - started
                seconds.append(taken)
        found[holds] = 1000 * statistics.median(seconds)
    return found


def run_alone(file: Path, python: Path, work: Path, rounds: int) -> dict[str, Any]:
    """Run a file in its environment; what it gives lies in WORK/found."""
    found = work / "found"
    found.mkdir(exist_ok=True)
    if file.suffix == ".onnx":
        arguments = [HERE / "alone_onnx.py", file, work / "images", found / f"{file.name}.npz", rounds]
    else:
        arguments = [HERE / "alone_torch.py", file, work / "images.pt", found / f"{file.name}.pt", rounds]
    done = subprocess.run(
        [str(python), "-I", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True, cwd=found
    )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compared(name: str, data: DetectionSet, loaded: LoadedDetector, work: Path) -> dict[str, Any]:
    """How far what a file gave is from PyTorch, over all images: ``off``, and of a detector ``scores`` of both.

    Raises:
        RunError: further than an export allows.
    """
    found, detector = work / "found", loaded.detector
    if name.endswith(".onnx"):
        with np.load(found / f"{name}.npz") as file:
            given = [
                {
                    key.partition("/")[2]: torch.from_numpy(file[key])
                    for key in file.files
                    if key.startswith(f"{index}/")
                }
                for index in range(len(data))
            ]
    else:
        given = torch.load(found / f"{name}.pt", weights_only=True)
    with torch.no_grad():
        if name.startswith("backbone"):
            wanted_maps = [
                detector.backbone.body(normalised(data.images[index : index + 1]))
                for index in range(len(data))
            ]
            levels = list(wanted_maps[0])
            found_maps = [
                one if isinstance(one, dict) else dict(zip(levels, one, strict=True)) for one in given
            ]
            # Of all images together, as on export: the values of a single one may all be small.
            wanted, maps = (
                {level: torch.cat([one[level] for one in some]) for level in levels}
                for some in (wanted_maps, found_maps)
            )
            checks = compare_maps(wanted, maps, name=name, of=name)
            return {"off": {check.of: check.difference for check in checks}}
        wanted_all = [detector.detections(data.images[index : index + 1])[0] for index in range(len(data))]
    others = [as_detections(one) for one in given]
    if isinstance(detector, DenseDetector):
        threshold, most = detector.score_threshold, detector.max_detections
    else:
        threshold, most = loaded.recipe.score_threshold, loaded.recipe.detections
    checks = compare_detections(wanted_all, others, threshold=threshold, most=most, name=name, of=name)
    mine, theirs = coco_results(data, wanted_all), coco_results(data, others)
    checks += compare_ap(data, mine, theirs, name=name, of=name)
    names = {check.of for check in checks}
    scores = {}
    for role, one in (("pytorch", mine), ("file", theirs)):
        metrics = coco_metrics(data, one).scalars()
        scores[role] = {key: value for key, value in metrics.items() if key in names}
    return {
        "off": {check.of: check.difference for check in checks},
        "scores": scores,
    }


def as_detections(one: dict[str, torch.Tensor]) -> Detections:
    """What a file found in one image."""
    found = Detections(boxes=one["boxes"], scores=one["scores"], labels=one["labels"])
    if "masks" in one:
        found["masks"] = one["masks"]
    return found


if __name__ == "__main__":
    main()
