"""Telling a lack of memory from other errors."""

from __future__ import annotations

import torch

CPU_ALLOCATOR = "DefaultCPUAllocator: "


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; on a CPU torch says so by a bare `RuntimeError`."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)
