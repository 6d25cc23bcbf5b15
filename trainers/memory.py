"""How the C library handles memory that a training step frees."""

import ctypes
import sys

# Names and values of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> bool:
    """Ask glibc not to hand freed memory back to the system between steps; True where it agreed.

    Every step of a training allocates the same maps again. By default they are unmapped and faulted in anew,
    page by page, which took a quarter of a step's time on one CPU thread. For the whole process, for good;
    does nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(kept and library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
