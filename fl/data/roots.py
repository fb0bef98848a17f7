"""Where the files of data sets lie that every user gets for themselves."""

from __future__ import annotations

import os
from pathlib import Path

from fl.errors import DataUnavailableError

VARIABLE = "LEAKBENCH_DATA"


def data_root(name: str, configured: str | None, *, get: str) -> Path:
    """Return the folder of a data set: as configured, or the folder of its name in `LEAKBENCH_DATA`.

    Args:
        name: The data set.
        configured: Its option `root`.
        get: What to get, from whom, and how its files lie in the folder, in words.

    Raises:
        DataUnavailableError: If there is no such folder; the message says what to get and where to put it.
    """
    parent = os.environ.get(VARIABLE)
    if configured is None and not parent:
        raise DataUnavailableError(
            f"{name}: expected its folder, got neither root: nor {VARIABLE}; {get}; then set root: of data: "
            f"{name} to that folder, or {VARIABLE} to the folder in which it is called {name}"
        )
    root = Path(configured) if configured is not None else Path(str(parent), name)
    root = root.expanduser()
    if not root.is_dir():
        where = "root:" if configured is not None else VARIABLE
        raise DataUnavailableError(
            f"{name}: expected its folder at {root} ({where}), got no folder there; {get}"
        )
    return root
