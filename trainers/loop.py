"""The one training loop. What happens at step s is a function of (seed, s), so a stopped training that goes
on equals one that was never stopped: bit for bit on a CPU with the same number of threads."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from search_spaces.architecture import digest_of
from search_spaces.errors import ConfigError, NonFiniteLoss, RunError
from search_spaces.randomness import seed_for
from trainers.average import WeightAverage
from trainers.checkpoint import (
    drop_previous,
    newest_checkpoint,
    read_checkpoint,
    restore_previous,
    save_checkpoint,
    sweep_checkpoint,
)
from trainers.learner import Learner, TrainingSet
from trainers.metrics_log import MetricsLog
from trainers.optimizers import begin_momentum, make_optimizer
from trainers.precision import autocast
from trainers.ranks import ALONE, Ranks, require_share
from trainers.recipes import TrainRecipe
from trainers.seeding import DrawsOfPart, torch_seed
from trainers.synced_norm import together

L = TypeVar("L", bound=Learner)

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
_LOG_EVERY = 20


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimiser step, counted from 0."""

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics after ``step`` steps (``epoch`` passes over the images)."""

    step: int
    epoch: float
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a training stands.

    Attributes:
        steps: done so far.
        total_steps: of the recipe.
        history: all evaluations so far, those before a stop included.
        losses: of all steps so far.
        seconds: spent in steps, over all starts.
        warnings: what a resumed training cannot promise any more, and what was wrong with its checkpoint.
    """

    steps: int
    total_steps: int
    history: tuple[Evaluation, ...]
    losses: tuple[float, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


class Trainer(Generic[L]):
    """Trains a detector, or a classifier, on a set of its kind by a recipe.

    With an average of the weights (``recipe.ema``) the detector holds the average after :meth:`run` and whenever it is
    evaluated.

    Args:
        detector: moved to ``device``; its initial weights are the caller's business.
        data: the images to learn from.
        recipe: length, optimiser, schedule.
        seed: of the order of images and of augmentation.
        directory: for checkpoint and metrics; None keeps nothing, so nothing can be resumed.
        device: where it runs.
        before_step: called with the step's number before it, so that a supernet can set its path.
        evaluate: detector -> numbers; called by ``recipe.evaluate_every``, at three quarters and at the end, on every
            rank, and what the first one returns counts.
        on_step: called after every step.
        ranks: those that train this network together, every one with a trainer of the same arguments. The batch is
            that of all ranks, and so are the losses that are told; the first one writes and reads the directory.
        say: gets a sentence for the person whose training goes on in another way than it was stopped.

    Raises:
        ConfigError: see :func:`require_trainable`; or a batch that the ranks cannot share.
    """

    def __init__(
        self,
        *,
        detector: L,
        data: TrainingSet,
        recipe: TrainRecipe,
        seed: int,
        directory: Path | None,
        device: torch.device,
        before_step: Callable[[int], None] | None = None,
        evaluate: Callable[[L], Mapping[str, float]] | None = None,
        on_step: Callable[[StepRecord], None] | None = None,
        ranks: Ranks = ALONE,
        say: Callable[[str], None] | None = None,
    ) -> None:
        require_share(recipe.batch_size, ranks.count, recipe.accumulate)
        self.detector = detector.to(device)
        self.recipe = recipe
        self.seed = seed
        self.directory = directory
        self.device = device
        self._before_step = before_step
        self._evaluate = evaluate
        self._on_step = on_step
        self._ranks = ranks
        self._say = say
        self._size = len(data)
        self._batches = detector.batches(data, recipe, seed)
        self.total_steps = total_steps(recipe, len(data))
        if recipe.frozen_bn:
            freeze_bn(detector)
        body = detector.backbone.body
        require_trainable(body, recipe, device, ranks)
        if isinstance(body, StochasticDepth):
            body.set_drop_path(recipe.drop_path)
        if recipe.compile:
            # In place, so that the weights keep their names.
            body.compile()
        moved = {name: one for name, one in detector.named_parameters() if one.requires_grad}
        self._optimizer = make_optimizer(list(moved.values()), recipe)
        self._average = None if recipe.ema is None else WeightAverage(moved, recipe.ema)
        self._identity = digest_of(
            {
                "recipe": asdict(recipe),
                "data": data.digest,
                "seed": seed,
                "weights": {name: list(value.shape) for name, value in detector.state_dict().items()},
            }
        )
        self._log = MetricsLog(directory / METRICS if directory is not None and ranks.first else None)
        self._step = 0
        self._history: list[Evaluation] = []
        self._losses: list[float] = []
        self._seconds = 0.0
        self._warnings: tuple[str, ...] = ()
        self._saved_at = -1

    def run(self, stop_at: int | None = None) -> TrainResult:
        """Train until the end or until ``stop_at`` steps are done; goes on from the directory's checkpoint.

        Raises:
            NonFiniteLoss: before the optimiser moves.
            RunError: the checkpoint is of another recipe, data set or network, or damaged with none before it.
        """
        # Callers and files get the plain layout back.
        _set_layout(self.detector, self.detector.layout)
        try:
            if self._average is not None:
                self._average.leave()
            self._train(stop_at)
            if self._average is not None:
                self._average.enter()
        finally:
            _set_layout(self.detector, torch.contiguous_format)
        return TrainResult(
            steps=self._step,
            total_steps=self.total_steps,
            history=tuple(self._history),
            losses=tuple(self._losses),
            seconds=self._seconds,
            warnings=self._warnings,
        )

    def _train(self, stop_at: int | None) -> None:
        self._resume()
        end = self.total_steps if stop_at is None else min(stop_at, self.total_steps)
        evaluations = self.evaluation_steps()
        while self._step < end:
            self._advance()
            if self._step in evaluations:
                self._evaluate_now()
            every = self.recipe.checkpoint_every
            if self._step in evaluations or (every and self._step % every == 0):
                self._save()
        self._save()
        if self.directory is not None and self._ranks.first and self._step == self.total_steps:
            drop_previous(self.directory / CHECKPOINT)

    def _advance(self) -> None:
        started = time.perf_counter()
        step = self._step
        if self._before_step is not None:
            self._before_step(step)
        self._train_mode()
        lr = learning_rate(self.recipe, step, self._size)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        # set_to_none: weights off the sampled path get no gradient, so momentum and decay leave them alone.
        self._optimizer.zero_grad(set_to_none=True)
        found = [self._backward(step, micro, lr) for micro in range(self.recipe.accumulate)]
        loss = sum(one for one, _ in found) / len(found)
        # Of the first one's, for a step has the same terms throughout.
        values = {name: sum(terms.get(name, 0.0) for _, terms in found) / len(found) for name in found[0][1]}
        self._ranks.average_gradients(self._moved())
        self._clip(step, values, lr)
        begin_momentum(self._optimizer)
        self._optimizer.step()
        if self._average is not None:
            self._average.update()
        seconds = time.perf_counter() - started
        self._step += 1
        self._losses.append(loss)
        self._seconds += seconds
        record = StepRecord(step=step, loss=self._losses[-1], terms=values, lr=lr, seconds=seconds)
        if step % _LOG_EVERY == 0 or self._step == self.total_steps:
            self._log.append(
                {"kind": "step", "steps": self._step, "loss": record.loss, "terms": values, "lr": lr}
            )
        if self._on_step is not None:
            self._on_step(record)

    def _backward(self, step: int, micro: int, lr: float) -> tuple[float, dict[str, float]]:
        """Add a micro-batch's part to the gradients; its loss and the terms of it."""
        images, targets = self._batches.at(step, self.device, self._ranks, micro)
        # The first has the seed of a step that is not cut.
        seed = seed_for(self.seed, "step", step, *([micro] if micro else []))
        with (
            torch_seed(seed, self.device),
            autocast(self.device, self.recipe.precision),
            together(self.detector, self._ranks),
            self._draws(),
        ):
            terms = self.detector.losses(images, targets)
        own = torch.stack(list(terms.values()))
        # Over all ranks, so that each of them stops at a loss that is not finite.
        shared = self._ranks.mean(own.detach())
        values = dict(zip(terms, shared.tolist(), strict=True))
        loss = float(shared.sum())
        self._require_finite("loss", loss, step, values, lr)
        (own.sum() / self.recipe.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss, values

    def _draws(self) -> AbstractContextManager[object]:
        """Where a backbone drops branches, its draws are a rank's part of those for the batch."""
        if self._ranks.count == 1 or not self.recipe.drop_path:
            return nullcontext()
        size = self.recipe.micro_batch
        return DrawsOfPart(*self._ranks.part(size), size)

    def _moved(self) -> list[nn.Parameter]:
        """What the optimiser moves, in its order."""
        return [one for group in self._optimizer.param_groups for one in group["params"]]

    def _train_mode(self) -> None:
        self.detector.train()
        if self.recipe.frozen_bn:
            for module in self.detector.backbone.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _clip(self, step: int, terms: dict[str, float], lr: float) -> None:
        if self.recipe.clip_norm == 0:
            return
        moved = [one for one in self.detector.parameters() if one.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(moved, self.recipe.clip_norm))
        self._require_finite("gradient norm", norm, step, terms, lr)

    def _require_finite(self, what: str, value: float, step: int, terms: dict[str, float], lr: float) -> None:
        if math.isfinite(value):
            return
        parts = ", ".join(f"{name} {term:g}" for name, term in terms.items())
        raise NonFiniteLoss(
            f"step {step} of {self.total_steps}: {what} is {value} ({parts}; lr {lr:g}); "
            "the weights were not moved. Lower train.lr, raise train.warmup_steps or set train.clip_norm"
        )

    def evaluation_steps(self) -> set[int]:
        """After how many steps it evaluates."""
        if self._evaluate is None:
            return set()
        every = self.recipe.evaluate_every
        # Three quarters, because AP's rise from there to the end tells whether a training was long enough.
        steps = {max(int(0.75 * self.total_steps), 1), self.total_steps}
        if every:
            per_epoch = self._size / self.recipe.batch_size
            last = int(self.total_steps / per_epoch)
            steps |= {math.ceil(epoch * per_epoch) for epoch in range(every, last + 1, every)}
        return {step for step in steps if step <= self.total_steps}

    def _evaluate_now(self) -> None:
        assert self._evaluate is not None
        with self._averaged():
            own = self._evaluate(self.detector)
        found = self._ranks.of_first({name: float(value) for name, value in own.items()})
        epoch = round(self._step * self.recipe.batch_size / self._size, 6)
        self._history.append(Evaluation(step=self._step, epoch=epoch, metrics=found))
        self._log.append({"kind": "evaluation", "steps": self._step, "epoch": epoch, "metrics": found})

    def _averaged(self) -> AbstractContextManager[object]:
        """Inside, the detector's weights are the averages, where the recipe wants them."""
        return nullcontext() if self._average is None else self._average.inside()

    def _save(self) -> None:
        if self.directory is None or self._saved_at == self._step:
            return
        self._saved_at = self._step
        if not self._ranks.first:
            return
        with self._averaged():
            save_checkpoint(
                self.directory / CHECKPOINT,
                {
                    "identity": self._identity,
                    "step": self._step,
                    # What others read: the averages, where there are any.
                    "model": self.detector.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "history": [asdict(one) for one in self._history],
                    "losses": torch.tensor(self._losses, dtype=torch.float64),
                    "seconds": self._seconds,
                    "warnings": list(self._warnings),
                    **({} if self._average is None else {"training": self._average.state_dict()}),
                    **_circumstances(self.device, self._ranks),
                },
            )

    def _resume(self) -> None:
        content, damage = self._stored()
        if self.directory is None or content is None:
            self._log.truncate(self._step)
            return
        path = self.directory / CHECKPOINT
        state = read_checkpoint(content)
        if state.get("identity") != self._identity:
            raise RunError(
                f"{path} was written by another recipe, data set, seed or network; "
                "continue with those, or use an empty directory"
            )
        self.detector.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["training"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step = self._saved_at = int(state["step"])
        self._history = [Evaluation(**one) for one in state["history"]]
        self._losses = state["losses"].tolist()
        self._seconds = float(state["seconds"])
        now, before = _circumstances(self.device, self._ranks), {"ranks": 1, **state}
        changes = [
            f"resumed with {name} {now[name]}, stopped with {before[name]}: last digits may differ"
            for name in now
            if now[name] != before[name]
        ]
        new = [*([damage] if damage else []), *changes]
        # Also those of earlier stops, for they hold for whatever comes of this training.
        self._warnings = tuple(dict.fromkeys([*state.get("warnings", []), *self._warnings, *new]))
        if self._ranks.first:
            if damage:
                restore_previous(path)
            if self._say is not None:
                for warning in new:
                    self._say(warning)
        self._log.truncate(self._step)

    def _stored(self) -> tuple[bytes | None, str]:
        """What the first rank finds in the directory, for all of them, and what is wrong with it."""
        found: tuple[bytes | None, str] = (None, "")
        if self.directory is not None and self._ranks.first:
            sweep_checkpoint(self.directory / CHECKPOINT)
            found = newest_checkpoint(self.directory / CHECKPOINT)
        return self._ranks.of_first(found)


def total_steps(recipe: TrainRecipe, images: int) -> int:
    """Optimiser steps of a recipe on so many images."""
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None
    return max(1, math.ceil(recipe.epochs * images / recipe.batch_size))


def learning_rate(recipe: TrainRecipe, step: int, images: int) -> float:
    """The rate at ``step`` of a training on so many images: linear warm-up times cosine or jumps."""
    total = total_steps(recipe, images)
    peak = recipe.lr if recipe.lr_batch is None else recipe.lr * recipe.batch_size / recipe.lr_batch
    if step >= recipe.warmup_steps:
        warm = 1.0
    elif recipe.warmup_lr is None:
        warm = (step + 1) / (recipe.warmup_steps + 1)
    else:
        first = recipe.warmup_lr / recipe.lr
        warm = first + (1.0 - first) * step / recipe.warmup_steps
    if recipe.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
    elif recipe.schedule == "milestones":
        factor = recipe.gamma ** sum(step >= point * total for point in recipe.milestones)
    else:
        jumps = [total - epochs * images / recipe.batch_size for epochs in recipe.final_epochs]
        factor = recipe.gamma ** sum(step >= jump for jump in jumps)
    return peak * warm * factor


@runtime_checkable
class StochasticDepth(Protocol):
    """A backbone whose blocks can drop their branches in training."""

    def set_drop_path(self, rate: float) -> None:
        """The rate of the last block; 0 drops nothing."""


def require_trainable(
    backbone: nn.Module, recipe: TrainRecipe, device: torch.device, ranks: Ranks = ALONE
) -> None:
    """Check what a recipe asks of a backbone and of this machine.

    Raises:
        ConfigError: stochastic depth for a network without it, or ``compile`` where nothing can be compiled or
            several ranks train; bf16 on a GPU that does not compute in it.
    """
    if (
        recipe.amp == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError(
            "train.amp: found 'bf16', but this GPU has no bf16 arithmetic (NVIDIA's have it from compute capability "
            "8.0 on) and would be slower with it than without; for a new training set it to off or auto, or "
            "go on with a run that has begun on a GPU that has it. fp16 is not offered: its gradients would "
            "need a scaled loss, which there is not here"
        )
    if recipe.drop_path and not isinstance(backbone, StochasticDepth):
        raise ConfigError(
            f"train.drop_path: found {recipe.drop_path:g}, but {type(backbone).__name__} has no stochastic depth "
            "(no set_drop_path); set it to 0"
        )
    if not recipe.compile:
        return
    if ranks.count > 1:
        raise ConfigError(
            f"train.compile: found true for {ranks.count} ranks, whose norms talk to each other within the backbone; "
            "set it to false, or train on one"
        )
    try:
        # One addition takes seconds; a network that cannot be compiled would be known only in its first step.
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except (RuntimeError, OSError) as error:
        # Torch may announce the reason in a line of its own before it.
        lines = [line for line in str(error).splitlines() if line and not line.endswith(":")]
        raise ConfigError(
            f"train.compile: found true, but torch.compile does not work on {device.type} here "
            f"({lines[0] if lines else type(error).__name__}); install a C++ compiler (on a GPU: triton), or set it "
            "to false"
        ) from error


def freeze_bn(detector: Learner) -> None:
    """Take the affine weights of the backbone's BN out of training."""
    for module in detector.backbone.body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for parameter in module.parameters():
                parameter.requires_grad_(False)


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one; any name that torch knows is taken as it is.

    Raises:
        ConfigError: a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: found {name!r}; allowed are auto, cpu, cuda, cuda:0 and so on") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {name!r} is not on this machine ({torch.cuda.device_count()} GPUs); use cpu or auto"
        )
    return device


def _set_layout(module: nn.Module, layout: torch.memory_format) -> None:
    """Lay out the 4-dimensional weights; their values stay."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _circumstances(device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """What bit-for-bit equality depends on besides the seed."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "ranks": ranks.count,
    }
