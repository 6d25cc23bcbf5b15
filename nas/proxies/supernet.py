"""The shared-weight proxy of CR-NAS: train one supernet, score every candidate with its weights.

Liang et al. 2020, sections 3.2 and 3.3: single-path uniform sampling while training; a candidate is scored
by COCO AP on images held out of the training split, after its BN statistics were rebuilt. A prefix is
completed at random anew for every mini-batch (Algorithm 1). Completions, mini-batches and recalibration
images are functions of (seed, level, mini-batch), never of the candidate, so that the scores of a level
are paired: their differences carry no luck of the draw.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.ledger import Stopwatch, looked_at
from nas.proxies.paths import Draw
from nas.proxies.zero_cost import first_images, naswot
from nas.recipes.crnas import SupernetRecipe
from nas.recipes.race import GROUPS, RaceRecipe
from nas.run import environment
from nas.study import Score
from nas.trials import BY_GROUP, NASWOT, Json
from search_spaces.architecture import Architecture, Candidate, Prefix
from search_spaces.cost import cost
from search_spaces.crnas.path_memory import LIMIT, PathMemory
from search_spaces.crnas.supernet import DilationSupernet, Supernet
from search_spaces.errors import RunError
from search_spaces.files import write_atomic
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.box_truth import BoxTruth
from trainers.boxes import Boxes
from trainers.checkpoint import load_checkpoint
from trainers.data.detection_set import DetectionSet
from trainers.detectors.detector import Detector
from trainers.evaluate import boxes_evaluating
from trainers.image_groups import GroupTruth
from trainers.loop import CHECKPOINT, StepRecord, Trainer, total_steps
from trainers.precision import autocast
from trainers.process import uncollected
from trainers.ranks import ALONE, Ranks
from trainers.recalibration import Recalibration


class SupernetProxy:
    """``(architecture or prefix) -> Score``; equal input gives equal values in any order.

    Args:
        space: whose candidates are scored.
        draw_path: gives the path of each training step; see :mod:`nas.proxies.paths`.
        supernet: the backbone with all paths; ``detector`` holds it.
        detector: the detector that is trained and scored.
        train_set: images of supernet training and BN recalibration.
        held_out: images of scoring; disjoint from ``train_set``.
        recipe: length, optimiser, recalibration.
        seed: of weights' training order, paths, completions and recalibration images.
        directory: holds checkpoint and metrics of the training.
        device: where it runs.
        race: with it the held-out images are put in an order by chance, and :meth:`at` scores on the first so many.
        ranks: those that train it together, each with a proxy of the same arguments; every one draws the same paths.
        beside: whether whole networks also get their NASWOT, at random weights of a fixed seed and on images of
            ``train_set``, as a further attribute of their score.
        remembers: bytes of maps that are kept for candidates that begin alike.
    """

    def __init__(
        self,
        *,
        space: SearchSpace,
        draw_path: Draw,
        supernet: Supernet,
        detector: Detector,
        train_set: DetectionSet,
        held_out: DetectionSet,
        recipe: SupernetRecipe,
        seed: int,
        directory: Path,
        device: torch.device,
        race: RaceRecipe | None = None,
        ranks: Ranks = ALONE,
        beside: bool = False,
        remembers: int = LIMIT,
    ) -> None:
        if race is not None:
            held_out = held_out.subset(rng_for(seed, "race").sample(range(len(held_out)), len(held_out)))
        self.space = space
        self.supernet = supernet
        self.detector = detector.to(device)
        self.train_set = train_set
        self.held_out = held_out
        self.recipe = recipe
        self.seed = seed
        self.directory = directory
        self.device = device
        self.race = race
        self.ranks = ranks
        self.beside = beside
        self._recalibrate = Recalibration(self.detector)
        self._path_of = draw_path
        self._remembers = remembers
        self._memory = PathMemory(remembers)
        self._parts: dict[int, GroupTruth] = {}
        self._truth = BoxTruth(held_out.ground_truth)
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

    def prepare(
        self,
        on_step: Callable[[StepRecord], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Train the supernet, or take up a training that was stopped; returns at once when it is done.

        Args:
            on_step: called after every step.
            say: see :class:`trainers.loop.Trainer`.
        """
        result = self.trainer(self.directory, on_step, say).run()
        self._memory = PathMemory(self._remembers)
        if not self.ranks.first:
            return
        spent = {
            "steps": result.steps,
            "images": result.steps * self.recipe.train.batch_size,
            "seconds": round(result.seconds, 1),
            "warnings": list(result.warnings),
            "environment": environment() | {"threads": torch.get_num_threads(), "seed": self.seed},
        }
        write_atomic(self.directory / "spent.json", (json.dumps(spent, indent=1) + "\n").encode())

    def trainer(
        self,
        directory: Path | None,
        on_step: Callable[[StepRecord], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Trainer[Detector]:
        """The supernet's training; arguments as of :class:`trainers.loop.Trainer`."""
        return Trainer(
            detector=self.detector,
            data=self.train_set,
            recipe=self.recipe.train,
            seed=self.seed,
            directory=directory,
            device=self.device,
            before_step=self._draw_path,
            on_step=on_step,
            ranks=self.ranks,
            say=say,
        )

    def load(self) -> None:
        """Take the weights of a training that is done, in a process that only scores.

        Raises:
            RunError: there is none, or not to its end.
        """
        path = self.directory / CHECKPOINT
        state: dict[str, Any] = load_checkpoint(path) if path.exists() else {"step": 0}
        if state["step"] != self.total_steps:
            raise RunError(
                f"{path}: the supernet is trained for {state['step']} of {self.total_steps} steps only"
            )
        self.detector.load_state_dict(state["model"])
        self._memory = PathMemory(self._remembers)

    def __call__(self, candidate: Candidate) -> Score:
        """Score one candidate: AP in percent on the held-out images."""
        watch = Stopwatch()
        # First, for a network without it fails, and has cost nothing yet.
        free = self._free(candidate) if self.beside and isinstance(candidate, Architecture) else {}
        with uncollected():
            found = self._detections(candidate, None)
            metrics = self._truth.aps(found)
        return Score(
            value=100.0 * metrics.AP,
            attributes={
                "AP50": 100.0 * metrics.AP50,
                "AP75": 100.0 * metrics.AP75,
                "detections": len(found),
                **free,
                **watch.read(),
            },
        )

    def _free(self, candidate: Architecture) -> dict[str, Json]:
        """NASWOT of a network: of the same seed and images for all, so that it too is paired."""
        images = self._first_images
        looked_at(len(images), cost(candidate, self.train_set.image_size).macs)
        return {NASWOT: naswot(candidate, images)}

    @cached_property
    def _first_images(self) -> Tensor:
        return first_images(self.train_set).to(self.device)

    def at(self, candidate: Candidate, step: int) -> Score:
        """The same on the first images of a race: equal statistics and detections, as far as they go.

        Args:
            candidate: as in a call.
            step: images, a multiple of a mini-batch.
        """
        groups = GROUPS if self.race is None else self.race.groups
        watch = Stopwatch()
        with uncollected():
            boxes = self._detections(candidate, step)
            if step not in self._parts:
                self._parts[step] = GroupTruth(self.held_out.subset(range(step)), min(groups, step))
            ap, parts = self._parts[step].aps(boxes)
        found = [round(100.0 * one, 6) for one in parts]
        return Score(value=100.0 * ap, attributes={BY_GROUP: found, **watch.read()})

    def drop(self, candidate: Candidate) -> None:
        """Nothing waits for a candidate between the rungs of a race."""

    def _detections(self, candidate: Candidate, images: int | None) -> Boxes:
        """What a candidate finds in the held-out images, or in the first so many."""
        level = len(candidate.genes) if isinstance(candidate, Prefix) else -1
        found: list[Boxes] = []
        with (
            # Nothing that is computed here is ever learned through. In inference mode, which is no faster here,
            # autocast would convert the weights again for every layer and batch.
            torch.no_grad(),
            self._remembered(candidate, level, images),
            # Around all batches, for the outermost of them keeps the weights that it has converted.
            autocast(self.device, self.recipe.train.precision),
            self._normalised(candidate, level),
        ):
            size = self.recipe.score_batch
            whole = None if images is None else images // size
            for index, batch in enumerate(self._batches[:whole]):
                self._memory.batch = ("held out", index)
                self._take(self._complete(candidate, "completion", level, index), len(batch))
                found.append(
                    boxes_evaluating(
                        self.detector,
                        batch,
                        batch_size=size,
                        device=self.device,
                        amp=self.recipe.train.precision,
                    )
                )
        return Boxes.together(found)

    @contextmanager
    def _normalised(self, candidate: Candidate, level: int) -> Iterator[None]:
        """In evaluation mode, with the statistics that the candidate is scored with."""
        if not self.recipe.recalibration_batches:
            self.detector.eval()
            yield
            return
        batches = self._recalibration(candidate, level)
        with self._recalibrate.over(batches, amp=self.recipe.train.precision):
            yield

    @contextmanager
    def _remembered(self, candidate: Candidate, level: int, images: int | None) -> Iterator[None]:
        """What candidates begin with is computed once for all of them: same weights, images, batches and statistics.

        Of a prefix, only the blocks that it has decided. A beginning is known for the images of one rung.
        """
        decided: int | None = None
        if not isinstance(candidate, Architecture):
            # A gene decides a block there, and all of them at once where blocks are shared out.
            decided = level if isinstance(self.supernet, DilationSupernet) else 0
        path = self._complete(candidate, "completion", level, 0)
        self.supernet.memory = self._memory
        try:
            beginnings = [(images, one) for one in self.supernet.beginnings(path, decided)]
            with self._memory.scoring(beginnings):
                yield
        finally:
            self.supernet.memory = None

    def _take(self, path: Architecture, images: int) -> None:
        """Set the path that so many images go through next."""
        macs = self.supernet.macs(path, self.train_set.image_size, behind=self._memory.known)
        looked_at(images, macs)
        self.supernet.set_path(path)

    def _draw_path(self, step: int) -> None:
        self.supernet.set_path(self._path_of(step))

    def _complete(self, candidate: Candidate, purpose: str, level: int, index: int) -> Architecture:
        if isinstance(candidate, Architecture):
            return candidate
        return self.space.complete(candidate, rng_for(self.seed, purpose, level, index))

    def _recalibration(self, candidate: Candidate, level: int) -> Iterator[Tensor]:
        """Training images, before each batch of them a completion of the candidate as path."""
        rng = rng_for(self.seed, "recalibration")
        size = min(self.recipe.train.micro_batch, len(self.train_set))
        for index in range(self.recipe.recalibration_batches):
            chosen = rng.sample(range(len(self.train_set)), size)
            self._memory.batch = ("recalibration", index)
            self._take(self._complete(candidate, "recalibration-path", level, index), size)
            # Gathered only where they are looked at.
            gathered = slice(size) if self.supernet.remembers else chosen
            yield self.train_set.images[gathered].to(self.device)
