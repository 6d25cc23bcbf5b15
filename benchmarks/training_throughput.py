"""Images a second of our training loop against a loop as torchvision's reference has it, in turn on one machine.

    python benchmarks/training_throughput.py [--root DIR] [--rounds 5] [--steps 30] [--threads 2] [--without float32]

writes benchmarks/results/training_throughput.json. The detector is torchvision's own class around the same backbone
and pyramid on its side, ours on the other, with equal numbers of parameters; data, size of images, batch, optimiser
(SGD with momentum) and, but for the last variant, precision (float32) are the same. Every measurement is a process of
its own; the variants take turns, and ratios are of one round. Seconds are of whole steps, the wait for data included,
the first five left out.

    reference       DataLoader over the image files, decoded for every step, boxes flipped with the image, torchvision's
                    transform inside the detector, losses checked, then backward and step, as
                    references/detection/engine.py does; with 0 and with 2 processes that load, the faster one counts
    same settings   our loop, weights and images laid out as the reference's, memory handed back as it does
    float32         our loop as `nas train` runs it otherwise: channels last, memory kept
    defaults        the same with train.amp=auto, as examples/recipes/train_*.yaml have it: bf16 where the processor has
                    instructions for it (the result's "amp" says what it came to)

``--root`` is a folder in COCO form; left out, scenes of digits are written to a temporary folder as PNG files.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.v2.functional import horizontal_flip_image, pil_to_tensor, to_dtype

from nas.run import environment
from search_spaces.crnas.zoo import ZOO
from search_spaces.families import family_of
from trainers.data.catalog import open_split
from trainers.data.digits import write_folder
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.detectors.pyramid import BackboneWithPyramid
from trainers.loop import StepRecord, Trainer
from trainers.precision import fastest
from trainers.process import prepare_process
from trainers.recipes import Amp, DataRecipe, DetectorRecipe, DigitsRecipe, TrainRecipe

RESULT = Path(__file__).parent / "results/training_throughput.json"
CPU = torch.device("cpu")
WARM_UP = 5
LR = 0.002
DETECTORS = {
    "fcos": DetectorRecipe(name="fcos", fpn_channels=64, head_convs=4, levels=("c2", "c3", "c4", "c5")),
    "faster_rcnn": DetectorRecipe(
        name="faster_rcnn",
        fpn_channels=64,
        levels=("c2", "c3", "c4", "c5"),
        anchor_scale=8.0,
        box_head=256,
        roi_batch=128,
        candidates=400,
    ),
}


def backbone() -> nn.Module:
    """ResNet-18, at random weights."""
    return family_of(ZOO["resnet18"]).build(ZOO["resnet18"], seed=0)


def theirs(name: str, classes: int, size: tuple[int, int]) -> nn.Module:
    """torchvision's detector around the backbone and the pyramid."""
    recipe = DETECTORS[name]
    body = BackboneWithPyramid(backbone(), levels=recipe.levels, channels=recipe.fpn_channels)
    whole: dict[str, Any] = {"min_size": min(size), "max_size": max(size)}
    if name == "fcos":
        anchors = AnchorGenerator(
            sizes=tuple((int(stride * recipe.anchor_scale),) for stride in body.strides),
            aspect_ratios=((1.0,),) * len(body.strides),
        )
        return FCOS(body, classes, anchor_generator=anchors, **whole)  # type: ignore[no-any-return]
    anchors = AnchorGenerator(
        sizes=tuple((int(stride * recipe.anchor_scale),) for stride in body.strides),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(body.strides),
    )
    return FasterRCNN(  # type: ignore[no-any-return]
        body,
        None,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=recipe.candidates,
        rpn_post_nms_top_n_train=recipe.candidates,
        box_roi_pool=MultiScaleRoIAlign(
            list(body.levels), 7, 2, canonical_scale=recipe.roi_scale * 16, canonical_level=4
        ),
        box_head=TwoMLPHead(recipe.fpn_channels * 49, recipe.box_head),
        box_predictor=FastRCNNPredictor(recipe.box_head, classes + 1),
        box_batch_size_per_image=recipe.roi_batch,
        **whole,
    )


class Files(CocoDetection):  # type: ignore[misc]
    """The folder's images as torchvision's detectors take them, mirrored half of the time."""

    def __init__(self, root: Path, first_label: int) -> None:
        super().__init__(str(root / "images"), str(root / "annotations/train.json"))
        self._labels = {one: first_label + place for place, one in enumerate(sorted(self.coco.cats))}

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        picture, objects = super().__getitem__(index)
        image = to_dtype(pil_to_tensor(picture.convert("RGB")), torch.float32, scale=True)
        kept = [one for one in objects if not one.get("iscrowd") and min(one["bbox"][2:]) > 0]
        boxes = torch.tensor([one["bbox"] for one in kept], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        if torch.rand(()) < 0.5:
            image = horizontal_flip_image(image)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        labels = torch.tensor([self._labels[one["category_id"]] for one in kept], dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels}


def together(batch: list[Any]) -> tuple[Any, ...]:
    """Images and targets of a batch, as torchvision's reference puts them together."""
    return tuple(zip(*batch, strict=True))


def reference(
    name: str, root: Path, size: tuple[int, int], batch: int, steps: int, loading: int
) -> list[float]:
    """Seconds of each step of the reference's loop."""
    torch.manual_seed(0)
    files = Files(root, first_label=0 if name == "fcos" else 1)
    loader = DataLoader(
        files, batch_size=batch, shuffle=True, drop_last=True, num_workers=loading, collate_fn=together
    )
    model = theirs(name, len(files.coco.cats), size).train()
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=LR, momentum=0.9, weight_decay=1e-4)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=1000)
    seconds, began = [], time.perf_counter()
    for images, targets in islice(endless(loader), steps):
        losses = model(list(images), list(targets))
        total = sum(losses.values())
        value = total.item()
        if not math.isfinite(value):
            raise SystemExit(f"the loss is {value}")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        warm_up.step()
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
    return seconds


def endless(loader: Any) -> Any:
    """Epoch after epoch."""
    while True:
        yield from loader


def ours(
    name: str, root: Path, size: tuple[int, int], batch: int, steps: int, *, prepared: bool, amp: Amp
) -> list[float]:
    """Seconds of each step of our loop."""
    data = open_split(DataRecipe(root=str(root), image_size=size), "train")
    detector = build_detector(DETECTORS[name], backbone(), data.num_classes, data.image_size, seed=0)
    expected = sum(one.numel() for one in theirs(name, data.num_classes, size).parameters())
    assert sum(one.numel() for one in detector.parameters()) == expected, "not the same detector"
    if not prepared:
        lay_out_as_it_comes(detector)
    seconds: list[float] = []
    began = [time.perf_counter()]

    def note(step: StepRecord) -> None:
        del step
        now = time.perf_counter()
        seconds.append(now - began[0])
        began[0] = now

    Trainer(
        detector=detector,
        data=data,
        recipe=TrainRecipe(
            steps=steps, batch_size=batch, optimizer="sgd", lr=LR, warmup_steps=1000, clip_norm=0.0, amp=amp
        ),
        seed=0,
        directory=None,
        device=CPU,
        on_step=note,
    ).run()
    return seconds


def lay_out_as_it_comes(detector: Detector) -> None:
    """Take channels last off a detector."""
    kind = type(detector)
    plain = type(kind.__name__, (kind,), {"layout": cached_property(lambda _: torch.contiguous_format)})
    plain.layout.__set_name__(plain, "layout")
    detector.__class__ = plain


def measured(variant: str, name: str, chosen: argparse.Namespace, root: Path) -> float:
    """Images a second of a variant in this process."""
    torch.set_num_threads(chosen.threads)
    size = (chosen.size[0], chosen.size[1])
    own = variant in ("float32", "defaults")
    if own:
        prepare_process(chosen.threads)
    if variant.startswith("reference"):
        seconds = reference(name, root, size, chosen.batch, chosen.steps, int(variant.rpartition(" ")[2]))
    else:
        amp = fastest(CPU) if variant == "defaults" else "off"
        seconds = ours(name, root, size, chosen.batch, chosen.steps, prepared=own, amp=amp)
    kept = seconds[WARM_UP:]
    return chosen.batch * len(kept) / sum(kept)


OURS = ("same settings", "float32", "defaults")
VARIANTS = ("reference 0", "reference 2", *OURS)


def elsewhere(variant: str, name: str, chosen: argparse.Namespace, root: Path) -> float:
    """The same in a fresh process."""
    numbers = [
        "--steps",
        chosen.steps,
        "--batch",
        chosen.batch,
        "--threads",
        chosen.threads,
        "--size",
        *chosen.size,
    ]
    command = [sys.executable, __file__, "--child", variant, "--detectors", name, "--root", root, *numbers]
    found = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "OMP_NUM_THREADS": str(chosen.threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(found.stdout.splitlines()[-1])


def compared(name: str, chosen: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Images a second of every variant, and ratios within the rounds."""
    variants = [one for one in VARIANTS if one not in chosen.without]
    rounds = []
    for number in range(chosen.rounds):
        rounds.append({variant: elsewhere(variant, name, chosen, root) for variant in variants})
        print(name, number, {key: round(value, 2) for key, value in rounds[-1].items()}, flush=True)
    best = [max(one["reference 0"], one["reference 2"]) for one in rounds]
    ratios = {
        variant: [round(one[variant] / other, 3) for one, other in zip(rounds, best, strict=True)]
        for variant in OURS
        if variant in variants
    }
    return {
        "images_per_second": {
            variant: round(statistics.median(one[variant] for one in rounds), 2) for variant in variants
        },
        "against_the_faster_reference": {
            variant: {"median": round(statistics.median(found), 3), "all": found}
            for variant, found in ratios.items()
        },
    }


def _shown(root: Path | None) -> list[str]:
    """The words of the command, without folders of this machine."""
    folder = str(root)
    return [
        f"DIR/{Path(word).name}" if word == folder or Path(word).is_absolute() else word
        for word in sys.argv[1:]
    ]


def main() -> None:
    """Compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a folder in COCO form")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 320], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--without", nargs="*", choices=OURS, default=[], help="variants to leave out")
    parser.add_argument("--to", type=Path, default=RESULT)
    parser.add_argument(
        "--child", choices=VARIANTS, help="measure in this process and print (used by the script)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.root
        if root is None:
            root = Path(folder) / "digits"
            scenes = DigitsRecipe(train_images=256, val_images=8, image_size=256, max_side=128)
            write_folder(DataRecipe(source="digits", digits=scenes), root)
        if chosen.child:
            print(measured(chosen.child, chosen.detectors[0], chosen, root))
            return
        result: dict[str, Any] = {
            "command": shlex.join(["python", "benchmarks/training_throughput.py", *_shown(chosen.root)]),
            "data": "scenes of digits, PNG" if chosen.root is None else chosen.root.name,
            "image_size": chosen.size,
            "batch": chosen.batch,
            "threads": chosen.threads,
            "amp": fastest(CPU),
            **environment(),
            "detectors": {},
        }
        for name in chosen.detectors:
            result["detectors"][name] = compared(name, chosen, root)
    chosen.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["detectors"], indent=1))


if __name__ == "__main__":
    main()
