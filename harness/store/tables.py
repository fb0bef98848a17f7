"""Writing the four tables: committing trials, and one operation to replace, widen and merge what is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fl.errors import StoreError
from harness.store.index import Index, columns_read, load_index
from harness.store.replacement import PENDING, Replacement, finish
from harness.store.rows import Resolve, Row, TrialRows, conform, to_arrow
from harness.store.schema import TABLES, Kind, TableName, core_schema
from harness.store.storage import Storage, sweep
from harness.store.table import TableFiles, encode, file_name

if TYPE_CHECKING:
    import pyarrow as pa

COMPACT_BYTES = 64 * 2**20
"""Compaction merges files until they are about this large, and leaves those of half the size alone."""


class Tables:
    """The tables of one experiment, as its driver writes them.

    Args:
        storage: The experiment's folder.
        columns: Columns of `trials/` besides those that every experiment has.
        resolve: From a stored spec to their values, for rows from before a column was added.
    """

    def __init__(self, storage: Storage, *, columns: Mapping[str, Kind], resolve: Resolve | None) -> None:
        self.storage = storage
        self._resolve = resolve
        self._schemas = {name: core_schema(name) for name in TABLES}
        self._schemas["trials"] = self._schemas["trials"].extended(columns)
        self._index: Index | None = None
        self.files = {name: TableFiles(storage, name) for name in TABLES}

    @property
    def index(self) -> Index | None:
        """What is stored; None before `recover` and after a write that failed."""
        return self._index

    def forget(self) -> None:
        """Forget what is stored, which another driver may change from now on."""
        self._index = None

    def recover(self) -> None:
        """Finish an intent, sweep, drop rows without a trial, and bring all files to the present columns.

        Raises:
            StoreError: If a file is damaged or cannot be written.
        """
        self._index = None
        finish(self.storage)
        self._sweep()
        outdated = {name: self._widen(name) for name in TABLES}
        index = load_index(self.files)
        revision = Revision(self, index)
        for name in TABLES:
            owners = index.owners(name)
            for file in index.files(name):
                keys = index.keys(name, file)
                kept = [key for key in keys if key in owners]
                owners.difference_update(kept)  # should two drivers ever store one trial, one row stays
                if len(kept) < len(keys) or file in outdated[name]:
                    revision.rewrite(name, file, keep=kept)
        revision.apply()
        self._index = index

    def commit(self, trials: Sequence[TrialRows]) -> None:
        """Store trials, replacing the rows of those that are stored already.

        Raises:
            StoreError: If a file cannot be written; what was stored is unharmed.
            ValueError: If a row has an unknown column or a value of the wrong kind, or two have one id.
        """
        with self._changing() as index:
            made = self._arrow(trials, index)
            ids = made["trials"].column("trial_id").to_pylist()
            replaced = {trial for trial in ids if trial in index.statuses}
            revision = Revision(self, index)
            for name in TABLES:
                if name in made:
                    revision.add(name, made[name])
                for file in index.holding(name, replaced) if replaced and name != "rounds" else ():
                    keys = index.keys(name, file)
                    revision.rewrite(name, file, keep=[key for key in keys if key not in replaced])
            revision.apply()

    def compact(self, files: int) -> None:
        """Merge the small files of every table that has more than `files` of them.

        Raises:
            StoreError: If a file cannot be read or written; what was stored is unharmed.
        """
        for name in TABLES:
            with self._changing() as index:
                if len(index.files(name)) > files:
                    revision = Revision(self, index)
                    for group in self._groups(name, index.files(name)):
                        revision.merge(name, group)
                    revision.apply()

    def rows(self, name: TableName, trials: Collection[str]) -> list[dict[str, Any]]:
        """Return the rows of some trials as plain values.

        Raises:
            StoreError: If a file is damaged.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        files = self.files[name]
        names = files.files() if self._index is None else self._index.holding(name, trials)
        wanted = pa.array(list(trials), pa.string())
        parts = (files.read(file) for file in names)
        return [
            row
            for part in parts
            for row in part.filter(pc.is_in(part.column("trial_id"), value_set=wanted)).to_pylist()
        ]

    def read(self, name: TableName, file: str) -> pa.Table:
        """Return the rows of a file in the present columns."""
        return conform(self.files[name].read(file), self._schemas[name], self._resolve)

    def encoded(self, name: TableName, rows: pa.Table) -> tuple[str, bytes]:
        """Return the name and the content of the file that holds `rows`."""
        schema = self._schemas[name]
        return file_name(rows.column(schema.key).to_pylist()), encode(rows, schema)

    @contextmanager
    def _changing(self) -> Iterator[Index]:
        """Give the index for a change; if it fails half-way, the next change recovers first."""
        if self._index is None:
            self.recover()
        assert self._index is not None
        index, self._index = self._index, None
        yield index
        self._index = index

    def _sweep(self) -> None:
        sweep(self.storage)
        for table in TABLES:
            sweep(self.storage, table)
            for name in self.storage.names(table):
                if name.startswith(".") and name.endswith(PENDING):
                    self.storage.delete(f"{table}/{name}")

    def _widen(self, name: TableName) -> set[str]:
        """Take the stored columns into the schema and return the files that differ from it."""
        stored = {file: self.files[name].kinds(file) for file in self.files[name].files()}
        for file, kinds in stored.items():
            try:
                self._schemas[name] = self._schemas[name].extended(kinds)
            except ValueError as error:
                place = self.storage.locate(self.files[name].path(file))
                raise StoreError(f"{place}: {error}. Use another experiment name") from error
        return {file for file, kinds in stored.items() if kinds != self._schemas[name].kinds}

    def _arrow(self, trials: Sequence[TrialRows], index: Index) -> dict[TableName, pa.Table]:
        rows: dict[TableName, list[Row]] = {
            "reconstructions": [row for trial in trials for row in trial.reconstructions],
            "traces": [row for trial in trials for row in trial.traces],
            "rounds": list(_new_rounds(trials, stored=index.rounds)),
            "trials": [trial.trial for trial in trials],
        }
        if len({row.get("trial_id") for row in rows["trials"]}) < len(trials):
            raise ValueError("expected one row per trial, got two with one trial id")
        return {name: to_arrow(self._schemas[name], rows[name]) for name in TABLES if rows[name]}

    def _groups(self, name: TableName, files: Iterable[str]) -> Iterator[list[str]]:
        """Yield groups of small files that together make a large one."""
        group: list[str] = []
        total = 0
        for file in files:
            size = self.storage.size(self.files[name].path(file))
            if size < COMPACT_BYTES // 2:
                group.append(file)
                total += size
            if total >= COMPACT_BYTES:
                yield group
                group, total = [], 0
        if len(group) > 1:
            yield group


class Revision:
    """A change of files, collected and then made as one; the index follows."""

    def __init__(self, tables: Tables, index: Index) -> None:
        self._tables = tables
        self._index = index
        self._replacement = Replacement(tables.storage)
        self._gone: list[tuple[TableName, str]] = []
        self._come: list[tuple[TableName, str, pa.Table]] = []
        self._new: list[tuple[TableName, pa.Table]] = []

    def add(self, name: TableName, rows: pa.Table) -> None:
        """Add rows of new keys."""
        self._new.append((name, rows))

    def rewrite(self, name: TableName, file: str, *, keep: Sequence[str]) -> None:
        """Replace a file by its rows of the keys `keep`, in the present columns."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._remove(name, file)
        if keep:
            rows = self._tables.read(name, file)
            key = rows.column(columns_read(name)[0])
            self._replace(name, rows.filter(pc.is_in(key, value_set=pa.array(keep, pa.string()))))

    def merge(self, name: TableName, files: Sequence[str]) -> None:
        """Replace files by one that holds the rows of all."""
        import pyarrow as pa

        for file in files:
            self._remove(name, file)
        self._replace(name, pa.concat_tables(self._tables.read(name, file) for file in files))

    def apply(self) -> None:
        """Make the change: with an intent if a file goes, else by writing `trials/` last."""
        for name, rows in self._new:
            if self._gone:
                self._replace(name, rows)
            else:
                file, content = self._tables.encoded(name, rows)
                self._tables.storage.write(f"{name}/{file}", content)
                self._come.append((name, file, rows))
        if self._gone:
            self._replacement.apply()
        for name, file in self._gone:
            self._index.drop(name, file)
        for name, file, rows in self._come:
            self._index.put(name, file, rows)

    def _remove(self, name: TableName, file: str) -> None:
        self._replacement.remove(f"{name}/{file}")
        self._gone.append((name, file))

    def _replace(self, name: TableName, rows: pa.Table) -> None:
        file, content = self._tables.encoded(name, rows)
        self._replacement.add(f"{name}/{file}", content)
        self._come.append((name, file, rows.select(columns_read(name))))


def _new_rounds(trials: Iterable[TrialRows], *, stored: Collection[str]) -> Iterator[Row]:
    """Yield the rows of each federation that is not stored, from the first trial that brings them."""
    taken = set(stored)
    for trial in trials:
        yield from (row for row in trial.rounds if row.get("federation_key") not in taken)
        taken.update(row.get("federation_key", "") for row in trial.rounds)
