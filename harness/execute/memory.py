"""The process's memory: kept between allocations while there is enough, given back when there is not."""

from __future__ import annotations

import contextlib
import ctypes
import gc

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""

KEPT_BYTES = 2**30
"""The most that is kept for the next allocation, and the largest block that is."""


def keep_freed_memory() -> None:
    """Tell glibc not to give memory back at every free; elsewhere do nothing."""
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        allocator.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_memory() -> None:
    """Free what a failed computation left behind, so that a smaller one finds room in this process."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was not used
    give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Have glibc give back what is free, also in between: else a process grows with its bundles."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
