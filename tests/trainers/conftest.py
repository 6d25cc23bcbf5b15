"""A backbone that keeps the contract in twenty lines, sets of coloured squares, and COCO folders on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trainers.data.annotations import BoxEntry, ImageEntry
from trainers.data.assembling import assemble
from trainers.data.detection_set import Category, DetectionSet
from trainers.data.masks import encode_mask


class TinyBackbone(nn.Module):
    """Four maps of 8, 8, 16 and 16 channels at strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = {"c2": (8, 4), "c3": (8, 8), "c4": (16, 16), "c5": (16, 32)}
        self.names = tuple(self.levels)
        widths = [channels for channels, _ in self.levels.values()]
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            for inputs, outputs, stride in zip([8, *widths], widths, (1, 2, 2, 2), strict=False)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.stem(images)
        maps = {}
        for name, stage in zip(self.names, self.stages, strict=True):
            x = maps[name] = stage(x)
        return maps


def seeded_backbone(seed: int = 0) -> nn.Module:
    """A fresh backbone with weights fixed by ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyBackbone()


@pytest.fixture
def tiny_backbone() -> Callable[..., nn.Module]:
    """Seed -> :func:`seeded_backbone`."""
    return seeded_backbone


def filled_rectangles(count: int = 4, side: int = 64, seed: int = 0) -> DetectionSet:
    """Images with one to three filled rectangles; the colour is the class, the rectangle is the mask."""
    rng = np.random.default_rng(seed)
    colours = ((230, 60, 60), (60, 60, 230))
    pictures, boxes = [], []
    for index in range(count):
        pixels = np.full((side, side, 3), 120, dtype=np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            width, height = (int(rng.integers(8, side // 2)) for _ in range(2))
            x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
            label = int(rng.integers(2))
            pixels[y : y + height, x : x + width] = colours[label]
            mask = np.zeros((side, side), dtype=np.uint8)
            mask[y : y + height, x : x + width] = 1
            boxes.append(
                BoxEntry(
                    id=len(boxes) + 1,
                    image_id=index + 1,
                    category_id=label + 1,
                    box=(float(x), float(y), float(width), float(height)),
                    area=float(width * height),
                    crowd=False,
                    mask=encode_mask(mask),
                )
            )
        pictures.append((ImageEntry(id=index + 1, file_name=f"{index}.png", size=None), pixels, (side, side)))
    return assemble(
        pictures=pictures,
        boxes=tuple(boxes),
        categories=(Category(1, "red"), Category(2, "blue")),
        canvas=None,
        digest=f"squares {count} {side} {seed}",
        masks=True,
    )


@pytest.fixture
def squares() -> Callable[..., DetectionSet]:
    """(count, side, seed) -> a set of :func:`filled_rectangles`."""
    return filled_rectangles


@pytest.fixture
def coco_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes three images and ``annotations/train.json``; ``change`` edits the annotations first.

    Image 10 is 100x50 px with two boxes, 11 is 60x80 px with one box and a crowd, 12 is 40x40 px and empty.
    """

    def write(change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        root = tmp_path / "data"
        (root / "images" / "sub").mkdir(parents=True)
        (root / "annotations").mkdir()
        files = {10: ("a.png", 100, 50), 11: ("sub/b.jpg", 60, 80), 12: ("c.png", 40, 40)}
        for number, (name, width, height) in files.items():
            pixels = np.full((height, width, 3), 20 * number % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name)
        content: dict[str, Any] = {
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height}
                for number, (name, width, height) in files.items()
            ],
            "annotations": [
                {
                    "id": 0,
                    "image_id": 10,
                    "category_id": 7,
                    "bbox": [10, 5, 20, 10],
                    "area": 200,
                    "iscrowd": 0,
                },
                {
                    "id": 1,
                    "image_id": 10,
                    "category_id": 3,
                    "bbox": [90, 40, 30, 30],
                    "area": 900,
                    "iscrowd": 0,
                },
                {"id": 2, "image_id": 11, "category_id": 7, "bbox": [0.5, 0, 1, 1]},
                {
                    "id": 3,
                    "image_id": 11,
                    "category_id": 3,
                    "bbox": [0, 0, 60, 40],
                    "area": 2400,
                    "iscrowd": 1,
                },
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        }
        if change is not None:
            change(content)
        (root / "annotations" / "train.json").write_text(json.dumps(content), encoding="utf-8")
        return root

    return write
