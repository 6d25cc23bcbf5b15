"""One of two ranks, run as a script by ``test_ranks.py``: ``two_ranks.py JOBS OUT``.

JOBS is JSON: a name -> ``detector`` and ``train`` (fields of the recipes), ``body``, ``directory``. Every job is
trained by both ranks and then, by the first of them, alone; OUT gets what came of it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import filled_rectangles, seeded_backbone
from torch import nn

from nas.methods.crnas_supernets import any_allocation
from nas.methods.spaces import stage_space
from nas.proxies.paths import uniform
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import SupernetRecipe
from nas.recipes.crnas_space import SpaceRecipe
from search_spaces.crnas.supernet import StageSupernet
from trainers.detectors.catalog import build_detector
from trainers.loop import StepRecord, Trainer
from trainers.ranks import ALONE, Ranks, joined
from trainers.recipes import DetectorRecipe, TrainRecipe

CPU = torch.device("cpu")
SPACE = stage_space(SpaceRecipe(branches=((1, 2), (1, 2), (2, 3), (2, 3)), widths=(8, 8, 8, 8), stem="small"))


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


def supernet() -> nn.Module:
    return StageSupernet(
        family=SPACE.baseline.family,
        settings=SPACE.baseline.settings,
        branches=SPACE.branches,
        sharing="independent",
        seed=3,
    )


BODIES = {
    "plain": seeded_backbone,
    "dropping": lambda: Dropping(seeded_backbone()),
    "supernet": supernet,
}


def train(
    job: dict[str, Any], ranks: Ranks, hook: Callable[[StepRecord], None] | None = None
) -> dict[str, Any]:
    """Losses, terms, weights and the parameters without a gradient, of one job."""
    body = BODIES[job.get("body", "plain")]()
    detector = build_detector(DetectorRecipe(**job["detector"]), body, 2, (64, 64), seed=0)
    recipe, data = TrainRecipe(**job["train"]), filled_rectangles(7, 64)
    losses: list[float] = []
    terms: list[dict[str, float]] = []
    still: list[list[str]] = []
    said: list[str] = []

    def note(record: StepRecord) -> None:
        losses.append(record.loss)
        terms.append(record.terms)
        still.append([name for name, one in detector.named_parameters() if one.grad is None])
        if hook is not None:
            hook(record)

    if isinstance(body, StageSupernet):
        SupernetProxy(
            space=SPACE,
            draw_path=uniform(lambda rng: any_allocation(SPACE, rng), 11),
            supernet=body,
            detector=detector,
            train_set=data,
            held_out=data,
            recipe=SupernetRecipe(train=recipe),
            seed=11,
            directory=Path(job["directory"]) / str(ranks.count),
            device=CPU,
            ranks=ranks,
        ).prepare(note)
    else:
        directory = Path(job["directory"]) / str(ranks.count) if "directory" in job else None
        trainer = Trainer(
            detector=detector,
            data=data,
            recipe=recipe,
            seed=11,
            directory=directory,
            device=CPU,
            on_step=note,
            evaluate=lambda detector: {"rank": ranks.rank},
            ranks=ranks,
            say=said.append,
        )
        result = trainer.run()
        assert list(result.losses)[-len(losses) :] == losses
        said += [f"{one.step}: {one.metrics['rank']:g}" for one in result.history]
    return {
        "losses": losses,
        "terms": terms,
        "still": still,
        "said": said,
        "weights": dict(detector.state_dict()),
        "kinds": [type(one).__name__ for one in detector.modules()],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = json.loads(sys.argv[1])
    with joined("cpu") as both:
        assert both.count == 2
        found = {"both": {name: train(job, both) for name, job in jobs.items()}}
    if os.environ["RANK"] == "0":
        found["alone"] = {name: train(job, ALONE) for name, job in jobs.items()}
    torch.save(found, sys.argv[2])
