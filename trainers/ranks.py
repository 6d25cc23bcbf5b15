"""The ranks of a training on several devices: who this process is among them, and what they tell each other.

Each rank is a process with the whole network; it computes its contiguous part of every batch, and the mean of all
gradients moves the weights of all. A single process is :data:`ALONE` and talks to nobody.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from search_spaces.errors import ConfigError, LostRank, RunError
from trainers.sharing import advice

T = TypeVar("T")

STORE = "VERTEBRA_STORE"
"""Environment variable with the file through which ranks of one machine find each other; without it they meet at
torchrun's address, whose port other machines reach."""

# A rank waits while the first one computes metrics or writes a checkpoint; whoever starts the ranks notices a dead one
# long before.
_WAIT = timedelta(hours=1)
# Values in one message; a larger one only costs memory.
_BUCKET = 2**24


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train one network together.

    Args:
        rank: from 0; the first one writes files.
        count: of all.
        device: of tensors that are sent.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def part(self, size: int) -> tuple[int, int]:
        """Begin and end of this rank's part of ``size`` things in a row; parts differ by one thing at most."""
        return size * self.rank // self.count, size * (self.rank + 1) // self.count

    def total(self, number: int) -> int:
        """The sum of a number over all ranks."""
        if self.count == 1:
            return number
        found = torch.tensor(number, dtype=torch.int64, device=self.device)
        with _peers():
            dist.all_reduce(found)
        return int(found)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all ranks, the same bits on each; for :data:`ALONE` the tensor itself."""
        if self.count == 1:
            return values
        found = values.clone()
        with _peers():
            dist.all_reduce(found)
        return found / self.count

    def gathered(self, values: Tensor) -> Tensor:
        """Tensors of one shape, those of all ranks stacked in their order."""
        found = [torch.empty_like(values) for _ in range(self.count)]
        with _peers():
            dist.all_gather(found, values.contiguous())
        return torch.stack(found)

    def all_of(self, thing: T) -> list[T]:
        """What every rank has, in their order; pickled between our own processes."""
        if self.count == 1:
            return [thing]
        found: list[T | None] = [None] * self.count
        with _peers():
            dist.all_gather_object(found, thing)
        return found  # type: ignore[return-value]

    def of_first(self, thing: T) -> T:
        """What the first rank has; pickled between our own processes."""
        if self.count == 1:
            return thing
        held: list[Any] = [thing if self.first else None]
        with _peers():
            dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until all have come here."""
        self.total(0)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every parameter the mean of its gradient over all ranks; one without any keeps None.

        Not ``DistributedDataParallel``: it wants to know before the backward pass which weights will get a gradient,
        and gives zeros to those that do not. In a supernet they are others in every step, and weights off the path
        have to keep None, for momentum and decay move what has zeros. Here ranks first agree on which gradients exist
        anywhere, so that none waits for a message that nobody sends; a rank without one (no object in its images)
        contributes zeros. What DDP saves by sending while the backward pass runs is lost.
        """
        if self.count == 1:
            return
        exists = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        share = self.mean(exists).tolist()
        moved = [one for one, found in zip(parameters, share, strict=True) if found]
        for one in moved:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        for bucket in _buckets([one.grad for one in moved if one.grad is not None]):
            flat = self.mean(torch.cat([one.flatten() for one in bucket]))
            parts = torch.split(flat, [one.numel() for one in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))


ALONE = Ranks()
"""The one rank of an ordinary training."""


def require_share(batch_size: int, count: int, accumulate: int = 1) -> None:
    """Every rank takes the same number of images of each of a step's ``accumulate`` micro-batches.

    Raises:
        ConfigError: it cannot.
    """
    if batch_size % (accumulate * count):
        parts = f" in {accumulate} micro-batches (train.accumulate)" if accumulate > 1 else ""
        raise ConfigError(
            f"train.batch_size: found {batch_size}, the images of all ranks together, which {count} ranks cannot "
            f"share equally{parts}; take a multiple of {accumulate * count}"
            f"{advice(batch_size, count, accumulate)}"
        )


def started_by_torchrun(environment: Mapping[str, str] | None = None) -> int:
    """Of how many ranks this process is one, by the variables that torchrun sets; 1 where it set none."""
    environment = os.environ if environment is None else environment
    if "RANK" not in environment or "LOCAL_RANK" not in environment:
        return 1
    return int(environment.get("WORLD_SIZE", "1"))


def ranks_here(ranks: Ranks) -> int:
    """How many of them are processes of this machine, as torchrun and Ray Train say; all where they do not."""
    return min(ranks.count, int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count)))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among the ranks that torchrun or Ray Train started, or :data:`ALONE`.

    Args:
        device: name, as recipes have it; a GPU is the one of this rank's number on its machine.

    Raises:
        ConfigError: the machine has fewer GPUs than ranks, or one GPU is named for all of them.
        RunError: the others do not answer.
    """
    if dist.is_available() and dist.is_initialized():
        # By Ray Train, or further out in this process.
        yield _here(device)
        return
    if started_by_torchrun() == 1:
        yield ALONE
        return
    place = rank_device(device, int(os.environ["LOCAL_RANK"]))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store = os.environ.get(STORE)
    try:
        dist.init_process_group(
            "nccl" if place.type == "cuda" else "gloo",
            init_method="env://" if store is None else f"file://{store}",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=_WAIT,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not reach the others: "
            f"{str(error).splitlines()[0]}. Start them with torchrun, which sets RANK, WORLD_SIZE, LOCAL_RANK, "
            "MASTER_ADDR and MASTER_PORT"
        ) from error
    try:
        yield _here(device)
    finally:
        dist.destroy_process_group()


def rank_device(name: str, local_rank: int) -> torch.device:
    """The device of one of several ranks.

    Args:
        name: as recipes have it.
        local_rank: number of the rank on its machine.

    Raises:
        ConfigError: see :func:`joined`.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and gpus == 0):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(
            f"device: found {name!r} for several ranks; allowed are auto, cpu, and cuda, where every rank takes a GPU "
            "of its own"
        )
    if local_rank >= gpus:
        raise ConfigError(
            f"device: found {name!r}, but rank {local_rank} of this machine has no GPU of its own (there are {gpus}); "
            "start fewer ranks, or set device to cpu"
        )
    return torch.device("cuda", local_rank)


def _here(device: str) -> Ranks:
    place = rank_device(device, int(os.environ.get("LOCAL_RANK", dist.get_rank())))
    return Ranks(rank=dist.get_rank(), count=dist.get_world_size(), device=place)


@contextmanager
def _peers() -> Iterator[None]:
    """A message that fails means that a rank is gone."""
    try:
        yield
    except RuntimeError as error:
        raise LostRank(
            f"another rank of this training is gone ({str(error).splitlines()[0][:200]}); what was reached by the last "
            "checkpoint is kept"
        ) from error


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients of one type each, in their order, about ``_BUCKET`` values together."""
    found: list[list[Tensor]] = []
    size = 0
    for one in gradients:
        if not found or size + one.numel() > _BUCKET or one.dtype != found[-1][0].dtype:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one.numel()
    return found
