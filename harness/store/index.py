"""What a driver remembers of the stored tables: which file holds which trials, and their statuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.store.schema import TABLES, TableName
from harness.store.table import TableFiles

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Index:
    """Keys of the rows by table and file; `rounds` is keyed by federation, the others by trial.

    Attributes:
        statuses: Status by trial id.
        federations: Keys of the federations that trials belong to.
        rounds: Keys of the federations whose rounds are stored.
    """

    statuses: dict[str, str] = field(default_factory=dict)
    federations: set[str] = field(default_factory=set)
    rounds: set[str] = field(default_factory=set)
    _keys: dict[TableName, dict[str, pa.Array]] = field(default_factory=lambda: {name: {} for name in TABLES})

    def files(self, table: TableName) -> list[str]:
        """Return the files of a table, sorted."""
        return sorted(self._keys[table])

    def keys(self, table: TableName, file: str) -> list[str]:
        """Return the distinct keys of a file's rows."""
        return list(self._keys[table][file].to_pylist())

    def holding(self, table: TableName, keys: Collection[str]) -> list[str]:
        """Return the files that hold rows of any of `keys`, sorted."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(list(keys), pa.string())
        stored = self._keys[table]
        return [file for file in sorted(stored) if pc.any(pc.is_in(stored[file], value_set=wanted)).as_py()]

    def owners(self, table: TableName) -> set[str]:
        """Return the keys that rows of a table may have: those that `trials` knows."""
        return set(self.federations if table == "rounds" else self.statuses)

    def put(self, table: TableName, file: str, rows: pa.Table) -> None:
        """Note a file from its rows, which have at least the columns of `columns_read`."""
        columns = columns_read(table)
        self._keys[table][file] = rows.column(columns[0]).unique()
        if table == "rounds":
            self.rounds.update(self.keys(table, file))
        if table == "trials":
            trials, statuses, federations = (rows.column(name).to_pylist() for name in columns)
            self.statuses.update(zip(trials, statuses, strict=True))
            self.federations.update(key for key in federations if key is not None)

    def drop(self, table: TableName, file: str) -> None:
        """Forget a file that was removed; its trials are noted again by the files that replace it."""
        self._keys[table].pop(file, None)


def columns_read(table: TableName) -> tuple[str, ...]:
    """Return the columns that an index is made from; the first one is the key."""
    if table == "trials":
        return ("trial_id", "status", "federation_key")
    return ("federation_key",) if table == "rounds" else ("trial_id",)


def load_index(tables: Mapping[TableName, TableFiles]) -> Index:
    """Read the index of stored tables.

    Raises:
        StoreError: If a file is damaged.
    """
    index = Index()
    for name, table in tables.items():
        for file in table.files():
            index.put(name, file, table.read(file, columns_read(name)))
    return index
