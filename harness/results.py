"""Results as pandas frames: `load("results/quickstart").trials`.

Text columns have dtype `str`, whole numbers `Int64` and truth values `boolean` (all three with missing
values), other numbers `float64` (missing: NaN), times `datetime64[us, UTC]`, and pictures are dictionaries
`{"bytes": PNG file or None, "path": place in the private folder or None}`. What each column means stands in
`results/README.md` and, for code, in `harness.store.schema`. Importing this module does not import torch.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fl.errors import StoreError, UsageError
from harness.store.experiment import Experiment
from harness.store.rows import conform
from harness.store.schema import TABLES, TableName, core_schema
from harness.store.storage import open_storage
from harness.store.table import TableFiles

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

AXES = ("dataset", "model", "defense", "noise_budget", "attack", "attacker", "round", "seed")
"""Columns of a trial that its reconstructions and traces carry too."""
FEDERATION_AXES = ("dataset", "model", "defense", "noise_budget", "seed")
"""Columns of the trials that their federation's rounds carry too, where all of them agree."""
PRIVATE = "private"


@dataclass(frozen=True, eq=False)
class Results:
    """An experiment's results.

    Attributes:
        path: The experiment's folder.
        manifest: What `manifest.json` says of the last run (`history`: of those before); empty if there is
            none.
        trials: One row per trial: ids, axes, parameters, status, leakage, utility, cost.
        reconstructions: One row per reconstructed image, with its trial's axes; joins on `trial_id`.
        rounds: One row per federation round, with its trials' axes; joins on `federation_key`.
        traces: One row per snapshot of an attack, with its trial's axes; joins on `trial_id`.
    """

    path: str
    manifest: Mapping[str, Any]
    trials: pd.DataFrame
    reconstructions: pd.DataFrame
    rounds: pd.DataFrame
    traces: pd.DataFrame

    def picture(self, png: Mapping[str, Any]) -> np.ndarray:
        """Return a picture's pixels, `H x W` (grey) or `H x W x 3`, uint8.

        Args:
            png: A cell of a `png` column; a private picture is read from the private folder.

        Raises:
            UsageError: If the results were loaded without images.
            StoreError: If the file is not in the private folder.
        """
        import numpy as np
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.file(png))))

    def file(self, png: Mapping[str, Any]) -> bytes:
        """Return a picture's PNG file.

        Args:
            png: A cell of a `png` column; a private picture is read from the private folder.

        Raises:
            UsageError: If the results were loaded without images.
            StoreError: If the file is not in the private folder.
        """
        content: bytes | None = png["bytes"]
        if content is None and png["path"] is None:
            raise UsageError("expected results that were loaded with images=True, got them without")
        if content is None:
            folder = (self.manifest.get("store") or {}).get(PRIVATE) or f"{self.path.rstrip('/')}/{PRIVATE}"
            content = open_storage(folder).read(png["path"].removeprefix(f"{PRIVATE}/"))
        return content


def load(path: str | Path, *, tables: Collection[TableName] = TABLES, images: bool = False) -> Results:
    """Load an experiment's results.

    Args:
        path: The experiment's folder, such as `results/quickstart`, or its URI.
        tables: Which tables to load; the frames of others are empty. `trials` is always loaded.
        images: Whether to load the PNG files that lie in the tables, which are most of their bytes.

    Raises:
        StoreError: If there is no experiment, or a file of it is damaged.
    """
    storage = open_storage(path)
    if not any(storage.names(table) for table in TABLES):
        raise StoreError(f"expected an experiment's results in {path}, got none; `bench run` makes them")
    frames = {
        name: _frame(TableFiles(storage, name), images=images, empty=name not in {*tables, "trials"})
        for name in reversed(TABLES)  # trials first: a trial stored meanwhile is left out whole
    }
    trials = frames["trials"]
    return Results(
        path=str(path),
        manifest=Experiment(storage).manifest() or {},
        trials=trials,
        reconstructions=_joined(frames["reconstructions"], trials[["trial_id", *AXES]]),
        rounds=_joined(frames["rounds"], _federations(trials)),
        traces=_joined(frames["traces"], trials[["trial_id", *AXES]]),
    )


def _frame(files: TableFiles, *, images: bool, empty: bool) -> pd.DataFrame:
    table = core_schema(files.name).arrow.empty_table()
    if not empty:
        table = files.steadily(lambda: _read(files, images=images))
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable)
    return frame


def _read(files: TableFiles, *, images: bool) -> pa.Table:
    """Return all rows of a table in the columns that any of its files has."""
    import pyarrow as pa

    schema = core_schema(files.name)
    names = files.files()
    for name in names:
        schema = schema.extended(files.kinds(name))
    parts = [schema.arrow.empty_table()]
    for name in names:
        kinds = files.kinds(name)
        wanted = [
            f"{column}.path" if kind == "png" and not images else column for column, kind in kinds.items()
        ]
        parts.append(conform(_with_bytes(files.read(name, wanted)), schema, None))
    return pa.concat_tables(parts)


def _with_bytes(table: pa.Table) -> pa.Table:
    """Give pictures that were read without their bytes null ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, entry in enumerate(table.schema):
        if pa.types.is_struct(entry.type) and entry.type.num_fields == 1:
            column = table.column(position).combine_chunks()
            without = pa.nulls(len(column), pa.binary())
            whole = pa.StructArray.from_arrays(
                [without, pc.struct_field(column, "path")], names=["bytes", "path"], mask=column.is_null()
            )
            table = table.set_column(position, entry.name, whole)
    return table


def _nullable(arrow: pa.DataType) -> Any:
    import pyarrow as pa

    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(arrow)


def _joined(frame: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Put the trials' columns behind the key; rows of trials that are not stored (yet) are left out."""
    key = trials.columns[0]
    added = [column for column in trials.columns if column not in frame.columns]
    joined = frame.merge(trials[[key, *added]], on=key, how="inner")
    return joined[[key, *added, *(column for column in frame.columns if column != key)]]


def _federations(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per federation; what differs between its trials is null."""
    known = trials[trials["federation_key"].notna()]
    groups = known.groupby("federation_key", sort=False)[list(FEDERATION_AXES)]
    alike = groups.nunique(dropna=False) == 1
    return groups.first().where(alike).reset_index()
