"""An experiment's results for other tools: CSV files, or Parquet in folders named after what is in them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fl.errors import UsageError
from harness.results import Results
from harness.store.schema import PICTURES, TABLES, TableName, arrow_type

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Form = Literal["csv", "parquet"]
PICTURE_COLUMNS = tuple(column.name for column in PICTURES)
MAX_FOLDERS = 1000
"""More folders than this are no help to anyone."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: By table.
        pictures: Pictures of public data.
        private: Pictures of private data.
        left_out: Pictures of private data that were left out.
    """

    rows: Mapping[TableName, int]
    pictures: int
    private: int
    left_out: int


def export(
    results: Results,
    output: Path,
    *,
    form: Form,
    partition_by: Sequence[str] = (),
    include_private: bool = False,
) -> Exported:
    """Write all four tables to a new folder, which is there when it is complete.

    CSV: `<table>.csv` and `pictures/`, to which picture columns point. Parquet: `<table>/<column>=<value>/`,
    pictures inside as `{"bytes", "path"}` with a null path. A table is partitioned by those columns that it
    has. Pictures of results that were loaded without images are null.

    Args:
        results: The experiment.
        output: The folder; it may exist if it is empty.
        form: Which.
        partition_by: Columns of `trials/`, for Parquet.
        include_private: Whether pictures of private data are written; the folder then has mode 0700.

    Raises:
        UsageError: If the folder holds something or cannot be written, or a column is unknown or has too
            many values to be folders.
        StoreError: If a private picture is gone.
    """
    _check(results, output, form, partition_by)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
            folder = Path(scratch, output.name)
            folder.mkdir(mode=0o700 if include_private else 0o777)
            writer = _Writer(results, folder, include_private=include_private)
            for name in TABLES:
                writer.write(name, form, partition_by)
            if output.exists():
                output.rmdir()
            shutil.move(folder, output)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    rows = {name: len(getattr(results, name)) for name in reversed(TABLES)}
    return Exported(rows, writer.public, writer.private, writer.left_out)


def _check(results: Results, output: Path, form: Form, partition_by: Sequence[str]) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"expected a new or an empty folder, got {output}")
    if partition_by and form != "parquet":
        raise UsageError("--partition-by is for --format parquet; a CSV file has no folders")
    known = [name for name in results.trials.columns if name not in PICTURE_COLUMNS]
    for name in partition_by:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"expected a column of trials to partition by, got {name!r}{hint}")
    folders = len(results.trials[list(partition_by)].drop_duplicates()) if partition_by else 1
    if folders > MAX_FOLDERS:
        raise UsageError(
            f"expected columns with at most {MAX_FOLDERS:,} combinations to partition by, got {folders:,}"
        )


class _Writer:
    """Writes tables, and counts the pictures it meets."""

    def __init__(self, results: Results, folder: Path, *, include_private: bool) -> None:
        self._results = results
        self._folder = folder
        self._include_private = include_private
        self.public = self.private = self.left_out = 0

    def write(self, name: TableName, form: Form, partition_by: Sequence[str]) -> None:
        frame: pd.DataFrame = getattr(self._results, name)
        pictures = [column for column in PICTURE_COLUMNS if column in frame]
        contents = {column: [self._content(cell) for cell in frame[column]] for column in pictures}
        if form == "csv":
            frame = frame.copy(deep=False)
            for column in pictures:
                frame[column] = self._files(frame, column, contents[column])
            frame.to_csv(self._folder / f"{name}.csv", index=False, lineterminator="\n")
        else:
            self._parquet(name, frame, contents, [key for key in partition_by if key in frame])

    def _content(self, cell: Mapping[str, Any] | None) -> bytes | None:
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            return None
        if cell["path"] is None:
            self.public += 1
        elif self._include_private:
            self.private += 1
        else:
            self.left_out += 1
            return None
        return self._results.file(cell)

    def _files(self, frame: pd.DataFrame, column: str, contents: Sequence[bytes | None]) -> list[str | None]:
        """Write pictures as files; return where, relative to the folder."""
        places: list[str | None] = []
        number = "reconstruction_index" if "reconstruction_index" in frame else "iteration"
        rows = zip(frame["trial_id"], frame["target_id"], frame[number], contents, strict=True)
        for place, (trial, target, index, content) in enumerate(rows):
            if content is None:
                places.append(None)
                continue
            kind = "original" if column == "original" else number.partition("_")[0]
            file = f"pictures/{trial}/{_UNSAFE.sub('_', target)}-{kind}-{index}.png"
            path = self._folder / file
            if path.exists():  # two names that are alike once they are safe, or an iteration of two restarts
                path = path.with_stem(f"{path.stem}-{place}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            places.append(str(path.relative_to(self._folder)))
        return places

    def _parquet(
        self,
        name: TableName,
        frame: pd.DataFrame,
        contents: Mapping[str, Sequence[bytes | None]],
        keys: Sequence[str],
    ) -> None:
        import pyarrow as pa
        import pyarrow.dataset as ds

        arrays = {
            column: _pictures(contents[column]) if column in contents else _array(frame[column])
            for column in map(str, frame.columns)
        }
        table = pa.table(arrays)
        parts = ds.partitioning(pa.schema([table.schema.field(key) for key in keys]), flavor="hive")
        ds.write_dataset(
            table,
            self._folder / name,
            format="parquet",
            partitioning=parts if keys else None,
            basename_template="part-{i}.parquet",
            max_partitions=MAX_FOLDERS,
            use_threads=False,
        )


def _pictures(contents: Sequence[bytes | None]) -> pa.Array:
    import pyarrow as pa

    cells = [None if content is None else {"bytes": content, "path": None} for content in contents]
    return pa.array(cells, arrow_type("png"))


def _array(column: pd.Series[Any]) -> pa.Array:
    """Return a column in the type of the stored tables, whatever it holds."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.dtype, pd.StringDtype):
        return pa.array(column, arrow_type("str"), from_pandas=True)
    return pa.array(column, from_pandas=True)
