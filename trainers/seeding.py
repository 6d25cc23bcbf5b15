"""Torch's random numbers inside a block, without touching those outside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def torch_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside the block every torch draw is a function of ``seed``; afterwards the generators are as before.

    For code that draws from torch's own generators and takes no other: weight initialisation, dropout,
    torchvision's proposal samplers.

    Args:
        seed: any integer of 63 bits.
        device: a GPU whose generator is seeded and restored too.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class DrawsOfPart(TorchFunctionMode):
    """Inside, ``torch.rand`` for each image of a part of a batch gives what it gives for them in the whole batch.

    So that a backbone, which knows nothing of ranks, drops the branches that one process would drop.

    Args:
        begin: of the part.
        end: of it.
        size: of the batch.
    """

    def __init__(self, begin: int, end: int, size: int) -> None:
        super().__init__()
        self._begin, self._end, self._size = begin, end, size

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Every call of torch inside the block."""
        del types
        if func is torch.rand and args:
            shape = args if isinstance(args[0], int) else tuple(args[0])
            if shape[0] == self._end - self._begin:
                drawn = func((self._size, *shape[1:]), **(kwargs or {}))
                return drawn[self._begin : self._end]
        return func(*args, **(kwargs or {}))
