"""What differs between two experiments' results, trial by trial: bit for bit, or beyond a tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.results import AXES, Results
from harness.store.schema import PROVENANCE, TableName

if TYPE_CHECKING:
    import pandas as pd

COST = ("wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts")
"""What an equal trial may cost otherwise elsewhere."""
UNSAID = ("experiment", "name", "error", "traceback")
"""Words about a trial, not what came of it."""
MADE = tuple(column.name for column in PROVENANCE if column.name not in ("spec", "finished"))
"""How a trial was computed: explains differences, is none."""
KEYS: dict[TableName, tuple[str, ...]] = {
    "trials": ("trial_id",),
    "reconstructions": ("trial_id", "target_id", "reconstruction_index"),
    "traces": ("trial_id", "target_id", "restart", "iteration"),
    "rounds": ("federation_key", "round"),
}


class ColumnDifference(NamedTuple):
    """A column whose values differ.

    Attributes:
        table: Its table.
        column: Its name; `(rows)` for rows that only one side has.
        rows: In how many rows.
        largest: Largest absolute difference; None where values are no numbers or missing on one side.
        first: The first such row's key: trial or federation.
    """

    table: str
    column: str
    rows: int
    largest: float | None
    first: str


@dataclass(frozen=True)
class Differences:
    """How two experiments' results differ.

    Attributes:
        common: How many trials are in both.
        only_first: Ids of trials that only the first has.
        only_second: Ids of trials that only the second has.
        columns: Columns of trials in both that differ.
        made: Columns that say how trials were computed and differ.
    """

    common: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    columns: tuple[ColumnDifference, ...]
    made: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs but cost and how it was computed."""
        return not (self.only_first or self.only_second or self.columns)


def differences(first: Results, second: Results, *, tolerance: float = 0.0) -> Differences:
    """Compare two experiments.

    Cost, names, words of errors and how trials were computed do not count.

    Args:
        first: With images if pictures are to be compared.
        second: Likewise.
        tolerance: Numbers closer than this are equal; 0 compares bit for bit, pictures included. With a
            tolerance pictures are left out.
    """
    ids = [set(results.trials["trial_id"]) for results in (first, second)]
    common = ids[0] & ids[1]
    trials = [_of(results.trials, "trial_id", common) for results in (first, second)]
    federations = set(trials[0]["federation_key"].dropna()) & set(trials[1]["federation_key"].dropna())
    found: list[ColumnDifference] = []
    for table in KEYS:
        key, owners = KEYS[table][0], federations if table == "rounds" else common
        sides = [_keyed(_of(getattr(results, table), key, owners), table) for results in (first, second)]
        found += _table_differences(table, sides[0], sides[1], tolerance)
    one, other = (_keyed(frame, "trials") for frame in trials)
    made = [each.column for each in _columns("trials", one, other, MADE, 0.0)]
    return Differences(
        len(common),
        tuple(sorted(ids[0] - common)),
        tuple(sorted(ids[1] - common)),
        tuple(found),
        tuple(made),
    )


def _of(frame: pd.DataFrame, key: str, owners: set[str]) -> pd.DataFrame:
    return frame[frame[key].isin(owners)]


def _keyed(frame: pd.DataFrame, table: TableName) -> pd.DataFrame:
    """Return the rows indexed by their key, sorted; the axes that come from their trials are left out."""
    keys = list(KEYS[table])
    if table != "trials":
        frame = frame.drop(columns=[axis for axis in AXES if axis not in keys], errors="ignore")
    nth = frame.groupby(keys, dropna=False).cumcount()
    return frame.assign(nth=nth).set_index([*keys, "nth"]).sort_index()


def _table_differences(
    table: TableName, first: pd.DataFrame, second: pd.DataFrame, tolerance: float
) -> Iterator[ColumnDifference]:
    lonely = first.index.symmetric_difference(second.index)
    if len(lonely):
        yield ColumnDifference(table, "(rows)", len(lonely), None, str(lonely[0][0]))
    skipped = {*COST, *UNSAID, *MADE, "finished"} if table == "trials" else set()
    names = [*first.columns, *(name for name in second.columns if name not in first.columns)]
    pictures = {"png", "original"} if tolerance else set()
    compared = [name for name in names if name not in skipped | pictures]
    yield from _columns(table, first, second, compared, tolerance)


def _columns(
    table: TableName, first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str], tolerance: float
) -> Iterator[ColumnDifference]:
    index = first.index.intersection(second.index)
    first, second = first.reindex(index), second.reindex(index)
    for name in names:
        if name not in first or name not in second:
            held = (first if name in first else second)[name]
            if held.notna().any():
                yield ColumnDifference(
                    table, name, int(held.notna().sum()), None, str(index[held.notna().to_numpy()][0][0])
                )
            continue
        unequal, largest = _unequal(first[name], second[name], tolerance)
        if unequal.any():
            yield ColumnDifference(table, name, int(unequal.sum()), largest, str(index[unequal][0][0]))


def _unequal(one: pd.Series[Any], other: pd.Series[Any], tolerance: float) -> tuple[Any, float | None]:
    """Return where two columns differ, and by how much at most where they hold numbers."""
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    missing = one.isna().to_numpy() != other.isna().to_numpy()
    known = (one.notna() & other.notna()).to_numpy()
    unequal = missing.copy()
    if all(is_numeric_dtype(column) and not is_bool_dtype(column) for column in (one, other)):
        apart = np.zeros(len(one))
        apart[known] = _distance(*(column[known].to_numpy(dtype=np.float64) for column in (one, other)))
        unequal |= apart > tolerance
        return unequal, float(apart.max()) if (apart > tolerance).any() else None
    unequal[known] = [a != b for a, b in zip(one[known], other[known], strict=True)]
    return unequal, None


def _distance(one: Any, other: Any) -> Any:
    """Return |one - other|, 0 for equal infinite values."""
    import numpy as np

    equal = one == other
    return np.where(equal, 0.0, np.abs(np.where(equal, 0.0, one) - np.where(equal, 0.0, other)))
