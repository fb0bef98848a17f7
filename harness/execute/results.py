"""What a solved and scored trial leaves in the artifact store: its part of the rows, before they are rows.

The driver reads it without torch. PNG files travel as uint8 tensors; those that are private are files of
their own under the private store, and only their path is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fl.specs import digest
from fl.types import Artifact
from harness.execute.work import Usage

if TYPE_CHECKING:
    from harness.store.artifacts import ArtifactStore

Row = dict[str, Any]

PICTURES = frozenset({"png", "original"})
"""Columns that hold pictures."""
SCORE_VERSION = 1
"""Bumped when scoring changes results; part of the key of stored results."""


@dataclass(frozen=True)
class TrialResult:
    """One trial's leakage.

    Attributes:
        columns: Values for `trials/`: metrics, cost, where it ran.
        reconstructions: Rows for `reconstructions/`; pictures as `{"bytes": ..., "path": ...}`.
        traces: Rows for `traces/`, likewise.
        usage: What solving and scoring cost.
    """

    columns: Row
    reconstructions: tuple[Row, ...]
    traces: tuple[Row, ...]
    usage: Usage


def result_key(trial_id: str) -> str:
    """Return the content address of a trial's result."""
    return digest(f"result/{trial_id}/{SCORE_VERSION}")


def store_result(store: ArtifactStore, trial_id: str, result: TrialResult) -> None:
    """Store a result; the trial then counts as solved, whatever happens to the driver."""
    import numpy as np
    import torch

    tensors = {}
    data: dict[str, Any] = {"columns": result.columns, "usage": asdict(result.usage)}
    for table, rows in (("reconstructions", result.reconstructions), ("traces", result.traces)):
        data[table] = []
        for position, row in enumerate(rows):
            paths = dict(row)
            for name in PICTURES & row.keys():
                picture = row[name] or {"bytes": None, "path": None}
                if picture["bytes"] is not None:
                    content = np.frombuffer(picture["bytes"], np.uint8).copy()
                    tensors[_tensor(table, position, name)] = torch.from_numpy(content)
                paths[name] = picture["path"]
            data[table].append(paths)
    store.put(result_key(trial_id), Artifact(tensors, data))


def load_result(store: ArtifactStore, trial_id: str) -> TrialResult:
    """Return a stored result, without torch."""
    key = result_key(trial_id)
    data: Any = store.read_json(key)
    pngs = store.read_bytes(key)
    tables = {
        table: tuple(_with_pictures(row, table, position, pngs) for position, row in enumerate(data[table]))
        for table in ("reconstructions", "traces")
    }
    return TrialResult(data["columns"], tables["reconstructions"], tables["traces"], Usage(**data["usage"]))


def _with_pictures(row: Row, table: str, position: int, contents: Mapping[str, bytes]) -> Row:
    pictures = {}
    for name in PICTURES & row.keys():
        path, content = row[name], contents.get(_tensor(table, position, name))
        pictures[name] = None if path is None and content is None else {"bytes": content, "path": path}
    return {**row, **pictures}


def _tensor(table: str, position: int, name: str) -> str:
    return f"{table}/{position}" if name == "png" else f"{table}/{position}/{name}"
