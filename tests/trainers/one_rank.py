"""One rank of a training on squares, run as a script by ``test_ranks.py``: ``one_rank.py RECIPE OUT``.

RECIPE is JSON: ``detector`` and ``train`` (fields of the recipes), ``directory``, ``stop_at``, ``body``, ``images``.
Without torchrun's variables it trains alone. OUT gets losses, terms and weights.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import filled_rectangles, seeded_backbone
from torch import nn

from trainers.detectors.catalog import build_detector
from trainers.loop import StepRecord, Trainer
from trainers.ranks import joined
from trainers.recipes import DetectorRecipe, TrainRecipe


class Dropping(nn.Module):
    """A backbone with stochastic depth: it drops its first map for a share of the images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.levels = inner.levels
        self.rate = 0.0

    def set_drop_path(self, rate: float) -> None:
        self.rate = rate

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.inner(images)
        kept = torch.rand(len(images), 1, 1, 1) >= (self.rate if self.training else 0.0)
        return {name: x * kept if name == "c2" else x for name, x in maps.items()}


def train(job: dict[str, Any]) -> dict[str, Any]:
    body = seeded_backbone()
    if job.get("body") == "dropping":
        body = Dropping(body)
    detector = build_detector(DetectorRecipe(**job["detector"]), body, 2, (64, 64), seed=0)
    terms: list[dict[str, float]] = []

    def note(record: StepRecord) -> None:
        terms.append(record.terms)

    with joined("cpu") as ranks:
        trainer = Trainer(
            detector=detector,
            data=filled_rectangles(job.get("images", 7), 64),
            recipe=TrainRecipe(**job["train"]),
            seed=11,
            directory=Path(job["directory"]) if "directory" in job else None,
            device=torch.device("cpu"),
            on_step=note,
            ranks=ranks,
        )
        result = trainer.run(job.get("stop_at"))
        return {
            "ranks": ranks.count,
            "losses": list(result.losses),
            "warnings": list(result.warnings),
            "terms": terms,
            "weights": dict(detector.state_dict()),
            "kinds": sorted(
                {type(one).__name__ for one in detector.modules() if "Norm" in type(one).__name__}
            ),
        }


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(train(json.loads(sys.argv[1])), sys.argv[2])
