"""Time of COCO's metric in faster-coco-eval and in pycocotools, in turn in one process, one thread.

    python benchmarks/metric_speed.py [--root bccd-multiscale] [--rounds 3]

writes benchmarks/results/metric_speed.json. With ``--root`` the 73 held-out images of `crnas_bccd.yaml` come first,
their objects moved by chance for detections. The other sets are made up: 80 categories, 7 objects and 100 detections an
image; with masks 3 categories, 2 objects and 10 detections. Seconds are medians of the processor's time, which other
work on the machine disturbs least; ratios are those of neighbouring calls. All numbers that both give are compared:
``rounding`` is the largest difference.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCOeval_faster
from pycocotools.cocoeval import COCOeval

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search
from nas.methods.data import read_data
from nas.run import environment
from trainers import evaluate
from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet
from trainers.data.masks import encode_mask
from trainers.evaluate import Backend, Metrics, coco_metrics

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/metric_speed.json"
BACKENDS: tuple[Backend, ...] = ("pycocotools", "faster")
PARTS = {
    "ground truth and results into objects": ((evaluate, "with_ids_from_one"), (evaluate, "indexed")),
    "overlaps and matches": ((COCOeval, "evaluate"), (COCOeval_faster, "evaluate")),
    "curves": ((COCOeval, "accumulate"), (COCOeval_faster, "accumulate")),
    "summary": ((COCOeval, "summarize"), (COCOeval_faster, "summarize")),
}
"""Of a call, by the functions that do them; faster-coco-eval draws its curves together with the matches."""
SIDE = 320
CLOSE = 1e-15
Case = tuple[DetectionSet, list[dict[str, Any]]]


def blood_cells(root: Path, each: int) -> Case:
    """The images that score candidates, and ``each`` detections of every one."""
    path = ROOT / "examples/recipes/crnas_bccd.yaml"
    recipe = apply_overrides(read_yaml(path), [f"data.root={root}"])
    data = read_data(check_search(recipe, source=str(path))).held_out
    return data, detections(data, each, np.random.default_rng(0))


def made_up(images: int, objects: int, each: int, *, categories: int = 80, masks: bool = False) -> Case:
    """Boxes drawn at random, with ellipses in them where there are to be masks."""
    rng = np.random.default_rng(images)
    known = tuple(Category(number, f"c{number}") for number in range(1, categories + 1))
    boxes = []
    for number in range(images * objects):
        box = drawn(rng, (SIDE, SIDE))
        boxes.append(
            BoxEntry(
                id=number,
                image_id=number // objects,
                category_id=int(rng.integers(1, categories + 1)),
                box=(box[0], box[1], box[2], box[3]),
                area=box[2] * box[3],
                crowd=bool(rng.random() < 0.01),
                mask=encode_mask(ellipse(box)) if masks else None,
            )
        )
    pixels = np.zeros((32, 32, 3), np.uint8)
    entries = [ImageEntry(id=number, file_name=f"{number}.png", size=None) for number in range(images)]
    data = assemble(
        pictures=[(entry, pixels, (SIDE, SIDE)) for entry in entries],
        boxes=tuple(boxes),
        categories=known,
        canvas=None,
        digest="made up",
        masks=masks,
    )
    return data, detections(data, each, rng)


def detections(data: DetectionSet, each: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Every object of an image moved by a tenth of its size, then boxes at random; ``each`` of an image in all."""
    here: dict[int, list[Any]] = {}
    for one in data.ground_truth["annotations"]:
        here.setdefault(one["image_id"], []).append(one)
    found = []
    for number, size in zip(data.image_ids, data.sizes, strict=True):
        for place in range(each):
            if place < len(here.get(number, ())):
                one = here[number][place]
                x, y, width, height = one["bbox"]
                box, category = [x, y, width, height], one["category_id"]
                box[0] += width * float(rng.normal(0, 0.1))
                box[1] += height * float(rng.normal(0, 0.1))
            else:
                box, category = drawn(rng, size), data.categories[int(rng.integers(data.num_classes))].id
            outline = {} if data.masks is None else {"segmentation": encode_mask(ellipse(box))}
            score = float(np.float32(rng.random()))
            found.append(
                {"image_id": number, "category_id": category, "bbox": box, "score": score, **outline}
            )
    return found


def drawn(rng: np.random.Generator, size: tuple[int, int]) -> list[float]:
    """A box of a twentieth to two fifths of the image's sides."""
    width, height = rng.uniform(0.05, 0.4) * size[1], rng.uniform(0.05, 0.4) * size[0]
    return [
        float(one)
        for one in (rng.uniform(0, size[1] - width), rng.uniform(0, size[0] - height), width, height)
    ]


def ellipse(box: list[float]) -> Any:
    """The mask of the ellipse in a box."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    across = (columns - box[0] - box[2] / 2) / (box[2] / 2)
    down = (rows - box[1] - box[3] / 2) / (box[3] / 2)
    return (across**2 + down**2 <= 1).astype(np.uint8)


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds of each part while this is open."""
    spent = dict.fromkeys(PARTS, 0.0)
    originals: list[tuple[Any, str, Callable[..., Any]]] = []

    def timed(part: str, function: Callable[..., Any], *words: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*words, **named)
        finally:
            spent[part] += time.thread_time() - began

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        # A function, not a partial, so that it is a method where it stands in a class.
        return lambda *words, **named: timed(part, function, *words, **named)

    for part, places in PARTS.items():
        for owner, name in places:
            originals.append((owner, name, getattr(owner, name)))
            setattr(owner, name, clocked(part, getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def difference(first: Metrics, second: Metrics) -> float:
    """The largest of all numbers; what one has and the other has not is infinitely far off."""
    pairs = [(first.scalars(), second.scalars()), (first.per_class, second.per_class)]
    if first.masks is not None and second.masks is not None:
        pairs.append((first.masks.per_class, second.masks.per_class))
    if any(one.keys() != other.keys() for one, other in pairs):
        return float("inf")
    return max(abs(one[name] - other[name]) for one, other in pairs for name in one)


def compared(case: Case, rounds: int) -> dict[str, Any]:
    """Both in turn."""
    data, results = case
    seconds: dict[Backend, list[float]] = {name: [] for name in BACKENDS}
    parts: dict[Backend, list[dict[str, float]]] = {name: [] for name in BACKENDS}
    found: dict[Backend, Metrics] = {}
    for turn in range(rounds):
        for name in BACKENDS if turn % 2 else reversed(BACKENDS):
            with clocks() as spent:
                began = time.thread_time()
                found[name] = coco_metrics(data, results, backend=name)
                seconds[name].append(time.thread_time() - began)
            parts[name].append(spent)
    rounding = difference(found["pycocotools"], found["faster"])
    if rounding > CLOSE:
        raise SystemExit(f"the two differ by {rounding}: {found}")
    ratios = [slow / quick for slow, quick in zip(seconds["pycocotools"], seconds["faster"], strict=True)]
    return {
        "images": len(data),
        "categories": data.num_classes,
        "objects": len(data.ground_truth["annotations"]),
        "detections": len(results),
        "seconds": {name: round(statistics.median(every), 4) for name, every in seconds.items()},
        "ratio": {"median": round(statistics.median(ratios), 2), "all": [round(one, 2) for one in ratios]},
        "parts": {
            name: {part: round(statistics.median(one[part] for one in parts[name]), 4) for part in PARTS}
            for name in BACKENDS
        },
        "AP": found["faster"].scalars(),
        "rounding": rounding,
    }


def main(words: list[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="the blood cells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="*", default=[73, 1000, 5000], help="of the made-up sets")
    parser.add_argument("--to", type=Path, default=RESULT)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    cases: dict[str, Callable[[], Case]] = {}
    if given.root is not None:
        for each in (30, 100):
            cases[f"blood cells, {each} detections an image"] = partial(blood_cells, given.root, each)
    for images in given.images:
        cases[f"made up, {images} images"] = partial(made_up, images, 7, 100)
    if given.images:
        cases[f"made up, {given.images[0]} images, masks"] = partial(
            made_up, given.images[0], 2, 10, categories=3, masks=True
        )
    root = "" if given.root is None else f"--root DIR/{given.root.name} "
    result: dict[str, Any] = {
        "command": f"python benchmarks/metric_speed.py {root}--rounds {given.rounds} "
        f"--images {' '.join(map(str, given.images))}",
        "threads": 1,
        "environment": environment(),
        "cases": {},
    }
    for name, case in cases.items():
        result["cases"][name] = compared(case(), given.rounds)
        print(name, json.dumps(result["cases"][name]), flush=True)
    given.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
