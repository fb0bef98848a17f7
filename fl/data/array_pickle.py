"""Reading NumPy arrays out of a pickle without running foreign code."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np


def read_arrays(path: Path, *, encoding: str = "ASCII") -> Any:
    """Return the arrays in plain containers that a pickle holds.

    Args:
        path: The file.
        encoding: What the texts of a pickle by Python 2 are decoded with; `latin1` where it holds arrays.

    Raises:
        pickle.UnpicklingError: If it refers to anything but arrays; other errors if it is damaged.
    """
    with path.open("rb") as file:
        return _ArraysOnly(file, encoding=encoding).load()


class _ArraysOnly(pickle.Unpickler):
    """Refuses every global that arrays do not need."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return importlib.import_module("numpy._core.multiarray")._reconstruct
        raise pickle.UnpicklingError(f"a reference to {module}.{name}, which is not an array")
