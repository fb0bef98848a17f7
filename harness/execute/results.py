"""What a solved and scored trial leaves in the artifact store: its part of the rows, before they are rows.

The driver reads it without torch. PNG files travel one after the other in a uint8 tensor; those that are
private are files of their own under the private store, and only their path is here.
"""

from __future__ import annotations

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
TABLES = ("reconstructions", "traces")
SCORE_VERSION = 2
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
    import torch

    contents = bytearray()
    tables = {table: [_without_pictures(row, contents) for row in getattr(result, table)] for table in TABLES}
    data: dict[str, Any] = {"columns": result.columns, "usage": asdict(result.usage), **tables}
    tensors = {"pictures": torch.frombuffer(contents, dtype=torch.uint8)} if contents else {}
    store.put(result_key(trial_id), Artifact(tensors, data))


def load_result(store: ArtifactStore, trial_id: str) -> TrialResult:
    """Return a stored result, without torch."""
    key = result_key(trial_id)
    data: Any = store.read_json(key)
    contents = store.read_bytes(key).get("pictures", b"")
    tables = {table: tuple(_with_pictures(row, contents) for row in data[table]) for table in TABLES}
    return TrialResult(data["columns"], **tables, usage=Usage(**data["usage"]))


def _without_pictures(row: Row, contents: bytearray) -> Row:
    """Move pictures to the end of `contents`, and say in the row where they begin and end there."""
    pictures: Row = {}
    for name in PICTURES & row.keys():
        picture = row[name]
        if picture is None:
            pictures[name] = None
        elif picture["bytes"] is None:
            pictures[name] = {"path": picture["path"]}
        else:
            start = len(contents)
            contents += picture["bytes"]
            pictures[name] = {"path": picture["path"], "at": [start, len(contents)]}
    return row | pictures


def _with_pictures(row: Row, contents: bytes) -> Row:
    pictures = {}
    for name in PICTURES & row.keys():
        picture = row[name]
        if picture is not None:
            content = contents[slice(*picture["at"])] if "at" in picture else None
            pictures[name] = {"bytes": content, "path": picture["path"]}
    return row | pictures
