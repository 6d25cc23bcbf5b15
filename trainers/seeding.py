"""Torch's random numbers inside a block, without touching those outside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
