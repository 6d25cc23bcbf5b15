"""The proxy of SpineNet: a candidate trained alone, from scratch, for a short time (Du et al. 2020, section 5.1).

The network that is trained is a narrow relative of the candidate (a quarter of its width in the paper), with a
narrow head, on the training images that are not held out; its score is COCO AP on the held-out ones. All candidates
see the same images in the same order and begin from the same seed, so that differences are paired.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from torch import Tensor

from nas.ledger import Stopwatch, looked_at
from nas.trials import Score
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.errors import CandidateFailed, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.randomness import rng_for
from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import build_detector
from trainers.detectors.detector import Detector
from trainers.evaluate import Metrics, coco_metrics, detect
from trainers.loop import StepRecord, Trainer, resolve_device, total_steps
from trainers.recalibration import recalibrated
from trainers.recipes import DetectorRecipe, TrainRecipe

LAST = 20
"""Steps at the end of a training whose mean loss is kept."""


class ShortTraining:
    """``architecture -> Score``; equal input gives equal values in any order and process.

    Args:
        train_set: images to learn from.
        held_out: images of scoring; disjoint from ``train_set``.
        detector: built around every candidate.
        train: length, optimiser, schedule of one training.
        seed: of initial weights, order of images and augmentation, the same for all candidates.
        directory: checkpoints of the trainings under way.
        device: name, as recipes have it.
        recalibration_batches: training batches from which BN statistics are computed anew for every scoring; 0, and
            with frozen statistics: scoring takes those of the training.
        narrowed: candidate -> the network that is trained in its place; the candidate itself when left out.
        on_step: called after every step.
    """

    def __init__(
        self,
        *,
        train_set: DetectionSet,
        held_out: DetectionSet,
        detector: DetectorRecipe,
        train: TrainRecipe,
        seed: int,
        directory: Path,
        device: str = "auto",
        recalibration_batches: int = 0,
        narrowed: Callable[[Architecture], Architecture] | None = None,
        on_step: Callable[[StepRecord], None] | None = None,
    ) -> None:
        self.train_set = train_set
        self.held_out = held_out
        self.detector = detector
        self.train = train
        self.seed = seed
        self.directory = directory
        self.device = resolve_device(device)
        self.recalibration_batches = recalibration_batches
        self._narrowed = narrowed or (lambda architecture: architecture)
        self._on_step = on_step

    @property
    def total_steps(self) -> int:
        """Optimiser steps of one candidate."""
        return total_steps(self.train, len(self.train_set))

    def __call__(self, candidate: Candidate) -> Score:
        """Train and score one candidate: AP in percent on the held-out images.

        A training that was killed goes on from its last checkpoint.

        Raises:
            CandidateFailed: a prefix, a network that cannot be built so narrow, or a loss that is not finite.
        """
        score = self._score(candidate, None)
        # The score outlives the weights, which would fill the disk in a search of thousands. A kill between here and
        # the study's record costs this one training again.
        self.drop(candidate)
        return score

    def at(self, candidate: Candidate, step: int) -> Score:
        """As a call, with the AP after so many steps of the whole training's schedule; its weights are kept.

        Raises:
            CandidateFailed: as a call.
        """
        return self._score(candidate, step)

    def drop(self, candidate: Candidate) -> None:
        """Delete the weights of a training that nobody goes on with."""
        shutil.rmtree(self.directory / candidate.digest, ignore_errors=True)

    def _score(self, candidate: Candidate, stop_at: int | None) -> Score:
        if not isinstance(candidate, Architecture):
            raise CandidateFailed(
                f"found {candidate}; a short training needs a complete architecture, so use a controller that "
                "proposes whole candidates (random, aging_evolution, tpe, ...)"
            )
        watch = Stopwatch()
        trainer = self.trainer(candidate, self.directory / candidate.digest)
        result = trainer.run(stop_at)
        steps, last = result.steps, result.losses[-LAST:]
        metrics = self.measure(trainer.detector)
        looked_at(self._shown, self._macs(self._narrowed(candidate)))
        return Score(
            value=100.0 * metrics.AP,
            attributes={
                "AP50": 100.0 * metrics.AP50,
                "AP75": 100.0 * metrics.AP75,
                "loss": sum(last) / len(last),
                "steps": steps,
                "images": steps * self.train.batch_size,
                **watch.read(),
            },
        )

    def trainer(self, candidate: Architecture, directory: Path | None) -> Trainer[Detector]:
        """The training of a candidate's narrow relative in a new detector.

        Raises:
            CandidateFailed: the network cannot be built so narrow.
        """
        network = self._narrowed(candidate)
        try:
            backbone = family_of(network).build(network, seed=self.seed)
        except InvalidArchitecture as error:
            raise CandidateFailed(f"the narrow network cannot be built: {error}") from error
        detector = build_detector(
            self.detector, backbone, self.train_set.num_classes, self.train_set.image_size, seed=self.seed
        )
        return Trainer(
            detector=detector,
            data=self.train_set,
            recipe=self.train,
            seed=self.seed,
            directory=directory,
            device=self.device,
            on_step=partial(self._stepped, self._macs(network)),
        )

    def _stepped(self, macs: int, step: StepRecord) -> None:
        looked_at(self.train.batch_size, macs, learned=True)
        if self._on_step is not None:
            self._on_step(step)

    def _macs(self, network: Architecture) -> int:
        return cost(network, self.train_set.image_size).macs

    @property
    def _recalibrates(self) -> bool:
        return bool(self.recalibration_batches) and not self.train.frozen_bn

    @property
    def _shown(self) -> int:
        """Images that one scoring looks at, those of the recalibration included."""
        batch = min(self.train.batch_size, len(self.train_set))
        return len(self.held_out) + self._recalibrates * self.recalibration_batches * batch

    def measure(self, detector: Detector) -> Metrics:
        """COCO metrics of boxes on the held-out images, BN statistics computed anew where the recipe wants it."""
        # Scoring draws nothing and leaves BN as it was, so a training that goes on is one that never paused.
        calibration = recalibrated(detector, self._recalibration(), amp=self.train.precision)
        with calibration if self._recalibrates else nullcontext():
            results = detect(
                detector,
                self.held_out,
                batch_size=self.train.micro_batch,
                device=self.device,
                amp=self.train.precision,
                masks=False,
            )
        return coco_metrics(self.held_out, results)

    def _recalibration(self) -> Iterator[Tensor]:
        """The same training images for every candidate."""
        rng = rng_for(self.seed, "recalibration")
        size = min(self.train.micro_batch, len(self.train_set))
        for _ in range(self.recalibration_batches):
            yield self.train_set.images[rng.sample(range(len(self.train_set)), size)].to(self.device)
