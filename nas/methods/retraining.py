"""From winner to trained detector: the final table's trainings, ``nas train`` and ``nas evaluate``.

Networks of the table are trained from scratch on the whole training split, equally long, each under the
same seeds, and read ``val`` for their result and curve only: nothing is chosen by it.
"""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nas.config import apply_overrides, check, dump_yaml, read_yaml, to_data
from nas.progress import RunProgress, Silent
from nas.recipe import TrainJobRecipe
from nas.run import Run, environment
from search_spaces.architecture import Architecture, digest_of
from search_spaces.catalog import family_of
from search_spaces.errors import RunError
from search_spaces.files import write_atomic
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.detectors.catalog import build_detector
from trainers.evaluate import Metrics, coco_metrics, detect
from trainers.loop import StepRecord, Trainer, resolve_device

WEIGHTS = "detector.safetensors"
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One network trained to completion under one seed; plain data, so that a process can take it."""

    architecture: Architecture
    recipe: TrainJobRecipe
    directory: Path


def train_to_completion(job: TrainingJob, progress: RunProgress | None = None) -> dict[str, Any]:
    """Train, evaluate on ``val``, write weights and ``result.json``; continues where it was stopped.

    Returns:
        The content of ``result.json``: ``metrics``, ``curve``, ``seconds``, ``environment`` and more.
    """
    progress = progress or Silent()
    recipe = job.recipe
    torch.set_num_threads(recipe.threads)
    train_set, val = open_split(recipe.data, "train"), open_split(recipe.data, "val")
    detector = detector_for(job.architecture, recipe, train_set)
    device = resolve_device(recipe.device)
    started = time.perf_counter()

    def measure(model: nn.Module) -> dict[str, float]:
        return evaluate_detector(model, val, recipe, device).summary()

    def report(step: StepRecord) -> None:
        progress.advance(step.step + 1, f"loss {step.loss:.3f}")

    trainer = Trainer(
        detector=detector,
        data=train_set,
        recipe=recipe.train,
        seed=recipe.seed,
        directory=job.directory,
        device=device,
        evaluate=measure,
        on_step=report,
    )
    progress.phase(f"training {job.architecture}, seed {recipe.seed}", trainer.total_steps)
    trained = trainer.run()
    metrics = evaluate_detector(detector, val, recipe, device)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    temporary = job.directory / f".{WEIGHTS}.tmp"
    save_file(weights, temporary, metadata={"architecture": job.architecture.digest})
    temporary.replace(job.directory / WEIGHTS)
    result = {
        "architecture": job.architecture.to_dict(),
        "digest": job.architecture.digest,
        "seed": recipe.seed,
        "metrics": metrics.as_dict(),
        "curve": [{"epoch": point.epoch, "AP": point.metrics["AP"]} for point in trained.history],
        "rise_over_last_quarter": rise_over_last_quarter(
            [(point.epoch, point.metrics["AP"]) for point in trained.history]
        ),
        "images": trainer.total_steps * recipe.train.batch_size,
        "seconds": round(time.perf_counter() - started, 1),
        "data": {"train": train_set.digest, "val": val.digest},
        "recipe": digest_of(to_data(recipe)),
        "environment": environment() | {"threads": recipe.threads, "seed": recipe.seed},
    }
    _write_json(job.directory / RESULT, result)
    return result
