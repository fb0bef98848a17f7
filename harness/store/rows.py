"""Rows as plain dictionaries, to Arrow tables of a given schema and from one schema to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Any

from fl.specs import canonical_json
from harness.store.schema import Kind, TableSchema, arrow_type, kind_of

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
Resolve = Callable[[str], Mapping[str, Any]]
"""From a trial's stored canonical spec to the values of its parameter columns."""


@dataclass(frozen=True)
class TrialRows:
    """Everything that one trial adds to the tables; rows hold values by column, missing ones are null.

    Attributes:
        trial: Its row in `trials/`; has `trial_id`, `status` and `spec`.
        reconstructions: Its rows in `reconstructions/`.
        traces: Its rows in `traces/`.
        rounds: Its federation's rows in `rounds/`; stored once per `federation_key`, so a trial whose
            federation is stored already may leave them out.
    """

    trial: Row
    reconstructions: Sequence[Row] = ()
    traces: Sequence[Row] = ()
    rounds: Sequence[Row] = ()


def to_arrow(schema: TableSchema, rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table of the schema; not-a-number becomes null.

    Raises:
        ValueError: If a row has a column that the schema lacks, lacks its key, or holds a value of the wrong
            kind.
    """
    import pyarrow as pa

    for row in rows:
        if unknown := row.keys() - schema.kinds.keys():
            raise ValueError(f"expected columns of {schema.name}, got also {', '.join(sorted(unknown))}")
        if not row.get(schema.key):
            raise ValueError(f"expected a {schema.key} in every row of {schema.name}, got none")
    columns = [
        _column(f"{schema.name}.{name}", kind, [row.get(name) for row in rows])
        for name, kind in schema.kinds.items()
    ]
    return pa.Table.from_arrays(columns, schema=schema.arrow)


def conform(table: pa.Table, schema: TableSchema, resolve: Resolve | None) -> pa.Table:
    """Return a stored table in the columns of `schema`, which has all of its columns.

    Args:
        table: Rows as stored.
        schema: The columns wanted.
        resolve: Gives the values of parameter columns that the table lacks, from each row's spec; columns it
            does not name are null.
    """
    import pyarrow as pa

    stored = set(table.column_names)
    lacking = set(schema.parameters) - stored
    resolved: list[Row] = []
    if resolve is not None and lacking and "spec" in stored:
        specs = table.column("spec").to_pylist()
        resolved = [{} if spec is None else resolve(spec) for spec in specs]
    columns = []
    for name, kind in schema.kinds.items():
        if name in stored:
            columns.append(_converted(table.column(name), name, kind))
        elif resolved and name in lacking:
            columns.append(_column(name, kind, [row.get(name) for row in resolved]))
        else:
            columns.append(pa.nulls(len(table), arrow_type(kind)))
    return pa.Table.from_arrays(columns, schema=schema.arrow)


def stored_kinds(schema: pa.Schema) -> dict[str, Kind] | None:
    """Return the kinds of a stored file's columns, or None if it has columns that the store never writes."""
    kinds = {entry.name: kind_of(entry.type) for entry in schema}
    known = {name: kind for name, kind in kinds.items() if kind is not None}
    return known if len(known) == len(kinds) else None


def _converted(column: pa.ChunkedArray, name: str, kind: Kind) -> pa.ChunkedArray | pa.Array:
    if kind_of(column.type) == kind:
        return column
    return _column(name, kind, column.to_pylist())


def _column(name: str, kind: Kind, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    convert = _CONVERSIONS[kind]
    try:
        converted = [None if value is None else convert(value) for value in values]
        return pa.array(converted, arrow_type(kind))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected {kind} values in column {name}, got {error}") from error


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(repr(value))
    return value


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(repr(value))
    return None if isnan(value) else float(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(repr(value))
    return value


def _str(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text.encode(errors="replace").decode()  # a traceback may quote bytes that are no text


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise TypeError(f"{value!r} (a time with its zone is needed)")
    return moment


def _png(value: Any) -> dict[str, bytes | str | None]:
    if not isinstance(value, Mapping) or value.keys() != {"bytes", "path"}:
        raise TypeError(f"{type(value).__name__} (bytes and path are needed)")
    return dict(value)


_CONVERSIONS: Mapping[Kind, Callable[[Any], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "time": _time,
    "png": _png,
}
