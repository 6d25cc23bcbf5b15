"""What a process that trains on a CPU sets once, before its first step (threads, memory), and when it looks
for no cycles."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1
_GROW_BY = 64 * 2**20


def prepare_process(threads: int) -> None:
    """Give this process so many threads and let it keep the memory that it frees; see :func:`keep_freed_memory`."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have the C library reuse freed memory instead of handing it back to the system.

    By default glibc takes every tensor above a threshold, at most 32 MiB, from the system and hands it back when it is
    freed, and does the same with the end of its heap. The next training step takes the same memory again, and the
    system must clear every page of it, which costs most in virtual machines (``benchmarks/kept_memory.py``). Values
    are the same to the bit; the process stays as large as it once was.

    Environment variables for glibc's malloc (``MALLOC_...``) are a person's own choice and win.

    Returns:
        Whether it was set: not so without glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _GROW_BY}
    accepted = [mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(accepted)


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python does not look for reference cycles; what nothing refers to goes at once, as ever.

    Around what makes many small objects that stay, as thousands of detections: every few hundred of them the collector
    may go through all objects of the process, of which a supernet has many.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
