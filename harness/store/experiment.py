"""An experiment's results folder: four tables, a manifest and a lock; one driver writes, anyone reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fl.errors import StoreError
from harness.store.lock import ExperimentLock
from harness.store.rows import Resolve, TrialRows
from harness.store.schema import SCHEMA_VERSION, Kind, TableName
from harness.store.storage import Storage, open_storage
from harness.store.tables import Tables

__all__ = ["Experiment", "TrialRows"]

MANIFEST = "manifest.json"
COMPACT_FILES = 1000


class Experiment:
    """The folder of one experiment.

    Reading (`statuses`, `row`, `manifest`) needs no lock and changes nothing. Writing happens under `lock`,
    after `recover`.
    """

    def __init__(
        self, storage: Storage, *, columns: Mapping[str, Kind] | None = None, resolve: Resolve | None = None
    ) -> None:
        self._storage = storage
        self._tables = Tables(storage, columns=columns or {}, resolve=resolve)
        self._lock: ExperimentLock | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        columns: Mapping[str, Kind] | None = None,
        resolve: Resolve | None = None,
    ) -> Experiment:
        """Return the experiment in `folder`, a path or URI; nothing is made before it is locked.

        Args:
            folder: `<results>/<name>`.
            columns: Columns of `trials/` besides those that every experiment has: the matrix's parameters.
            resolve: From a stored spec to parameter values, for rows from before a column was added.

        Raises:
            ValueError: If a column has the name of one that every experiment has, but another kind.
        """
        return cls(open_storage(folder), columns=columns, resolve=resolve)

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self._storage.uri

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the experiment's lock, which writing needs.

        Raises:
            LockHeldError: If another driver holds it.
            StoreError: If the folder cannot be written.
        """
        with ExperimentLock(self._storage) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None
                self._tables.forget()

    def statuses(self) -> dict[str, str]:
        """Return the status of every stored trial by trial id.

        Raises:
            StoreError: If a file is damaged.
        """
        if self._tables.index is not None:
            return dict(self._tables.index.statuses)
        tables = self._tables.files["trials"].read_all(["trial_id", "status"])
        return {
            trial: status
            for table in tables
            for trial, status in zip(*(column.to_pylist() for column in table.columns), strict=True)
        }

    def row(self, trial_id: str) -> dict[str, Any] | None:
        """Return a trial's row in `trials/` as plain values, or None if it is not stored.

        Raises:
            StoreError: If a file is damaged.
        """
        found = self._tables.files["trials"].find("trial_id", trial_id)
        return None if found is None else dict(found.to_pylist()[0])

    def rows(self, table: TableName, trials: Collection[str]) -> list[dict[str, Any]]:
        """Return the rows of some trials in a table but `rounds` as plain values, file by file.

        Raises:
            StoreError: If a file is damaged.
        """
        return self._tables.rows(table, trials)

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest, or None before the first run.

        Raises:
            StoreError: If it is damaged.
        """
        if not self._storage.exists(MANIFEST):
            return None
        try:
            return dict(json.loads(self._storage.read(MANIFEST)))
        except (ValueError, TypeError) as error:
            place = self._storage.locate(MANIFEST)
            raise StoreError(f"damaged file {place}: {error}. Delete it; the rows do not need it") from error

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of a run that begins; those of earlier runs move into its `history`.

        Args:
            manifest: Plain JSON: the resolved matrix, environment, versions, git state, data checksums.

        Raises:
            StoreError: If it cannot be written, or the one that is there is damaged.
        """
        self._verify()
        before = self.manifest() or {}
        history = before.pop("history", [])
        now = {
            **manifest,
            "schema_version": SCHEMA_VERSION,
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "history": [*history, before] if before else [],
        }
        self._storage.write(MANIFEST, json.dumps(now, indent=1).encode())

    def recover(self) -> None:
        """Finish what a driver that died has begun, and bring all files to this matrix's columns.

        An intent is carried out; temporary files are swept; rows of other tables that no row in `trials/`
        belongs to are dropped; files that lack a column are rewritten.

        Raises:
            LockHeldError: If another driver took over.
            StoreError: If a file is damaged, or the folder cannot be written.
        """
        self._verify()
        self._tables.recover()

    def commit(self, trials: Sequence[TrialRows]) -> None:
        """Store trials; those that have rows already have them replaced.

        A trial is stored once its row in `trials/` is, which is written last. A file is named by the hash of
        the sorted ids in it.

        Raises:
            LockHeldError: If another driver took over.
            StoreError: If a file cannot be written; what was stored is unharmed.
            ValueError: If a row has an unknown column or a value of the wrong kind, or two have one id.
        """
        self._verify()
        if trials:
            self._tables.commit(trials)

    def compact_if_needed(self, files: int = COMPACT_FILES) -> None:
        """Merge the small files of every table that has more than `files` of them.

        Raises:
            LockHeldError: If another driver took over.
            StoreError: If a file cannot be read or written; what was stored is unharmed.
        """
        self._verify()
        self._tables.compact(files)

    def _verify(self) -> None:
        assert self._lock is not None, "writing needs the lock"
        self._lock.verify()
