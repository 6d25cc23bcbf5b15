"""The shared-weight proxy of CR-NAS: train one supernet, score every candidate with its weights.

Liang et al. 2020, sections 3.2 and 3.3: single-path uniform sampling while training; a candidate is scored
by COCO AP on images held out of the training split, after its BN statistics were rebuilt. A prefix is
completed at random anew for every mini-batch (Algorithm 1). Completions, mini-batches and recalibration
images are functions of (seed, level, mini-batch), never of the candidate, so that the scores of a level
are paired: their differences carry no luck of the draw.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.recipe import SupernetRecipe
from nas.run import environment
from nas.study import Score
from search_spaces.architecture import Architecture, Candidate, Prefix
from search_spaces.crnas.supernet import Supernet
from search_spaces.files import write_atomic
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detector
from trainers.evaluate import coco_metrics, detect
from trainers.loop import StepRecord, Trainer, total_steps

_BatchNorm = nn.modules.batchnorm._BatchNorm


class SupernetProxy:
    """``(architecture or prefix) -> Score``; equal input gives equal values in any order.

    Args:
        space: whose candidates are scored.
        sample_path: draws the path of one training step from a ``random.Random``.
        supernet: the backbone with all paths; ``detector`` holds it.
        detector: the detector that is trained and scored.
        train_set: images of supernet training and BN recalibration.
        held_out: images of scoring; disjoint from ``train_set``.
        recipe: length, optimiser, recalibration.
        seed: of weights' training order, paths, completions and recalibration images.
        directory: holds checkpoint and metrics of the training.
        device: where it runs.
    """

    def __init__(
        self,
        *,
        space: SearchSpace,
        sample_path: Callable[[Any], Architecture],
        supernet: Supernet,
        detector: Detector,
        train_set: DetectionSet,
        held_out: DetectionSet,
        recipe: SupernetRecipe,
        seed: int,
        directory: Path,
        device: torch.device,
    ) -> None:
        self.space = space
        self.supernet = supernet
        self.detector = detector.to(device)
        self.train_set = train_set
        self.held_out = held_out
        self.recipe = recipe
        self.seed = seed
        self.directory = directory
        self.device = device
        self._sample_path = sample_path
        size = recipe.score_batch
        # Cut once: every candidate is scored on the same mini-batches.
        self._batches = [
            held_out.subset(range(start, min(start + size, len(held_out))))
            for start in range(0, len(held_out), size)
        ]

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the supernet's training."""
        return total_steps(self.recipe.train, len(self.train_set))

    def prepare(self, on_step: Callable[[StepRecord], None] | None = None) -> None:
        """Train the supernet, or take up a training that was stopped; returns at once when it is done."""
        trainer = Trainer(
            detector=self.detector,
            data=self.train_set,
            recipe=self.recipe.train,
            seed=self.seed,
            directory=self.directory,
            device=self.device,
            before_step=self._draw_path,
            on_step=on_step,
        )
        result = trainer.run()
        spent = {
            "steps": result.steps,
            "images": result.steps * self.recipe.train.batch_size,
            "seconds": round(result.seconds, 1),
            "warnings": list(result.warnings),
            "environment": environment() | {"threads": torch.get_num_threads(), "seed": self.seed},
        }
        write_atomic(self.directory / "spent.json", (json.dumps(spent, indent=1) + "\n").encode())

    def __call__(self, candidate: Candidate) -> Score:
        """Score one candidate: AP in percent on the held-out images."""
        started = time.perf_counter()
        level = len(candidate.genes) if isinstance(candidate, Prefix) else -1
        results: list[dict[str, Any]] = []
        with self._recalibrated(candidate, level):
            size = self.recipe.score_batch
            for index, batch in enumerate(self._batches):
                self.supernet.set_path(self._complete(candidate, "completion", level, index))
                results += detect(
                    self.detector, batch, batch_size=size, device=self.device, amp=self.recipe.train.amp
                )
        metrics = coco_metrics(self.held_out, results)
        return Score(
            value=100.0 * metrics.AP,
            attributes={
                "AP50": 100.0 * metrics.AP50,
                "AP75": 100.0 * metrics.AP75,
                "detections": len(results),
                "seconds": round(time.perf_counter() - started, 3),
            },
        )

    def _draw_path(self, step: int) -> None:
        self.supernet.set_path(self._sample_path(rng_for(self.seed, "path", step)))

    def _complete(self, candidate: Candidate, purpose: str, level: int, index: int) -> Architecture:
        if isinstance(candidate, Architecture):
            return candidate
        return self.space.complete(candidate, rng_for(self.seed, purpose, level, index))

    def _recalibration_batches(self) -> Iterator[Sequence[int]]:
        rng = rng_for(self.seed, "recalibration")
        size = min(self.recipe.train.batch_size, len(self.train_set))
        for _ in range(self.recipe.recalibration_batches):
            yield rng.sample(range(len(self.train_set)), size)

    @contextmanager
    def _recalibrated(self, candidate: Candidate, level: int) -> Iterator[None]:
        """BN statistics of the candidate inside, those of the supernet before and after.

        The practice of DetNAS and SPOS, on which the paper builds: reset mean and variance, then forward
        training batches in training mode without gradients. A norm that no completion visits keeps the
        statistics of training, for they are the best known.
        """
        norms = [module for module in self.detector.modules() if isinstance(module, _BatchNorm)]
        saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
        momenta = [norm.momentum for norm in norms]
        try:
            self.detector.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average: independent of the order of the batches
                norm.train()
            autocast = torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.recipe.train.amp == "bf16"
            )
            with torch.no_grad(), autocast:
                for index, chosen in enumerate(self._recalibration_batches()):
                    self.supernet.set_path(self._complete(candidate, "recalibration-path", level, index))
                    images = self.train_set.images[list(chosen)].to(self.device)
                    self.detector.backbone(self.detector.normalise(images))
            for norm, state in zip(norms, saved, strict=True):
                norm.eval()
                if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0:
                    _restore(norm, state)
            yield
        finally:
            for norm, state, momentum in zip(norms, saved, momenta, strict=True):
                _restore(norm, state)
                norm.momentum = momentum


def _restore(norm: nn.Module, state: dict[str, torch.Tensor]) -> None:
    for name, buffer in norm.named_buffers():
        buffer.copy_(state[name])
