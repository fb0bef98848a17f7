"""One table of an experiment: a folder of Parquet files with one schema.

Readers outside (pandas, DuckDB) take every `*.parquet` in the folder. Measured with pandas 3.1, pyarrow 26
and DuckDB 2.0: pandas skips names that begin with a dot, but DuckDB's glob does not, so files that are not
yet part of the table also end differently; pandas takes the columns of the first file and silently drops
those that only later files have, and DuckDB refuses a later file that lacks one, so all files share one
schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fl.errors import StoreError
from fl.specs import digest
from harness.store.rows import stored_kinds
from harness.store.schema import SCHEMA_VERSION, Kind, TableName, TableSchema
from harness.store.storage import MissingFileError, Storage

if TYPE_CHECKING:
    import pyarrow as pa

ResultT = TypeVar("ResultT")
SUFFIX = ".parquet"
_DICTIONARY_ROWS = 256
"""From here on repeated strings are worth a dictionary; in small files it only adds bytes."""
_READS = 5
"""How often a reader without the lock lists a table anew when a file vanished under it."""


def file_name(keys: Sequence[str]) -> str:
    """Return the name of the file that holds the rows of `keys`: a hash of the sorted, distinct keys."""
    return digest("\n".join(sorted(set(keys))))[:32] + SUFFIX


def encode(table: pa.Table, schema: TableSchema) -> bytes:
    """Return the Parquet file of a table; it says its schema version and nothing that varies."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=len(table) >= _DICTIONARY_ROWS,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,  # a second copy of the schema would double the size of small files
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(schema.metadata)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@dataclass(frozen=True)
class TableFiles:
    """The files of one table.

    Attributes:
        storage: The experiment's folder.
        name: The table.
    """

    storage: Storage
    name: TableName

    def path(self, file: str) -> str:
        """Return a file's path in the experiment's folder."""
        return f"{self.name}/{file}"

    def files(self) -> list[str]:
        """Return the names of the table's files, sorted."""
        names = self.storage.names(self.name)
        return [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]

    def kinds(self, file: str) -> dict[str, Kind]:
        """Return the columns of a file.

        Raises:
            StoreError: If it is damaged, was written by a newer version, or is no file of the store.
        """
        import pyarrow as pa

        with self.storage.open_arrow(self.path(file)) as source:
            try:
                schema = _parquet(source).schema_arrow
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(file, error) from error
        metadata = schema.metadata or {}
        version = metadata.get(b"leakbench.schema_version", b"").decode()
        kinds = stored_kinds(schema)
        if metadata.get(b"leakbench.table", b"").decode() != self.name or kinds is None:
            place = self.storage.locate(self.path(file))
            raise StoreError(f"expected rows of {self.name} in {place}, got another file; move it elsewhere")
        if int(version) > SCHEMA_VERSION:
            raise StoreError(
                f"{self.storage.locate(self.path(file))} has schema version {version}; this version of "
                f"leakbench reads up to {SCHEMA_VERSION}. Upgrade leakbench, or use another experiment name"
            )
        return kinds

    def read(self, file: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one file; columns it does not have are left out.

        Raises:
            MissingFileError: If it is gone.
            StoreError: If it is damaged.
        """
        import pyarrow as pa

        with self.storage.open_arrow(self.path(file)) as source:
            try:
                parquet = _parquet(source)
                return parquet.read(columns=list(columns) if columns is not None else None, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(file, error) from error

    def read_all(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        """Return the rows of all files, a table each, while a driver may be replacing some of them.

        Raises:
            StoreError: If a file is damaged, or files keep vanishing.
        """
        return self.steadily(lambda: [self.read(file, columns) for file in self.files()])

    def find(self, column: str, value: str) -> pa.Table | None:
        """Return the rows whose `column` is `value`, or None; a driver may be replacing files meanwhile.

        Raises:
            StoreError: If a file is damaged, or files keep vanishing.
        """
        return self.steadily(lambda: self._find(column, value))

    def _find(self, column: str, value: str) -> pa.Table | None:
        import pyarrow.compute as pc

        for file in self.files():
            found = pc.equal(self.read(file, [column]).column(column), value)
            if pc.any(found).as_py():
                return self.read(file).filter(found)
        return None

    def steadily(self, read: Callable[[], ResultT]) -> ResultT:
        """Return what `read` gives; it is called again when a file vanished after it was listed.

        Raises:
            StoreError: If files keep vanishing.
        """
        for _ in range(_READS):
            try:
                return read()
            except MissingFileError:
                continue
        place = self.storage.locate(self.name)
        raise StoreError(f"cannot read {place}: its files keep changing; run the command again")

    def _damaged(self, file: str, error: Exception) -> StoreError:
        lost = "its trials run again" if self.name == "trials" else "its rows are lost, the trials stay"
        place, why = self.storage.locate(self.path(file)), str(error).splitlines()[0]
        return StoreError(
            f"damaged file {place}: {why}. Restore it from a copy, or delete it ({lost}); nothing else is "
            "affected"
        )


def _parquet(source: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, page_checksum_verification=True)
