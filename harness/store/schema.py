"""The four tables of an experiment, column by column: typed here, never inferred from values.

`trials/` has the columns below, the ones that metrics declare (`harness.metrics.catalog`) and one per
parameter of the matrix, typed by the plug-ins' configurations. Every column may be null. Files say which
version of this layout they have; files of every version stay readable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Bumped when a column of the tables below changes its name, type or meaning; new ones need no bump."""

Kind = Literal["int", "float", "bool", "str", "time", "png"]
TableName = Literal["reconstructions", "traces", "rounds", "trials"]
TABLES: tuple[TableName, ...] = ("reconstructions", "traces", "rounds", "trials")
"""In the order in which they are written: a trial's row in `trials/` is its commit."""


class Column(NamedTuple):
    """A column: its name, what it holds, and what that means."""

    name: str
    kind: Kind
    about: str


IDS = (
    Column("trial_id", "str", "hash of the trial's spec, its plug-ins' versions and the engine's version"),
    Column("experiment", "str", "name of the experiment that computed it"),
    Column("name", "str", "name of its cell in the matrix"),
    Column("federation_key", "str", "its federation; joins with `rounds`"),
)
AXES = (
    Column("dataset", "str", "data set"),
    Column("model", "str", "architecture"),
    Column("defense", "str", "defense, `none` included"),
    Column("noise_budget", "float", "the defense's strength in its unit; 0 for `none`"),
    Column("attack", "str", "attack"),
    Column("attacker", "str", "`static`, or `adaptive`: it knows the defense"),
    Column("round", "int", "the observed round"),
    Column("targets", "int", "targets asked for"),
    Column("seed", "int", "the matrix's seed value"),
)
STATUS = (
    Column("status", "str", "`complete`, `failed` or `not_applicable`"),
    Column("error", "str", "why it failed or is not applicable"),
    Column("traceback", "str", "the failure's traceback"),
    Column("attempts", "int", "how often it was tried"),
)
UTILITY = (
    Column("accuracy", "float", "share of right predictions on the test part"),
    Column("balanced_accuracy", "float", "mean recall over classes"),
    Column("macro_f1", "float", "mean F1 over classes"),
    Column("auroc", "float", "area under the ROC curve, mean over classes"),
    Column("loss", "float", "mean task loss on the test part"),
)
PRIVACY = (
    Column("epsilon", "float", "differential privacy spent, where the defense gives any"),
    Column("delta", "float", "the delta of that epsilon"),
    Column("privacy_unit", "str", "what the guarantee protects"),
    Column("accountant", "str", "how the epsilon was computed"),
)
COST = (
    Column("wall_s", "float", "seconds that attacking and scoring took"),
    Column("cpu_s", "float", "CPU seconds of that"),
    Column("gpu_s", "float", "seconds that a GPU was held for it"),
    Column("peak_mem_mib", "float", "peak memory in MiB: the device's on a GPU, else the process's"),
    Column("gradient_evaluations", "int", "gradients of the model that the attack computed"),
    Column("lane_iterations", "int", "optimizer iterations, which share out a bundle's cost"),
    Column("bytes_up", "int", "bytes that clients sent until the last round"),
    Column("refused_targets", "int", "targets whose client refused the model it received"),
    Column("update_domain", "str", "what was observed: `gradient` or `delta`"),
    Column(
        "patient_overlap",
        "bool",
        "whether images of one patient or source lie on more than one client; null where unknown",
    ),
)
PROVENANCE = (
    Column("device", "str", "`cpu` or `cuda`"),
    Column("device_type", "str", "name of the GPU, or vendor and instruction set of the CPU"),
    Column("host", "str", "hash of the host's name"),
    Column("python_version", "str", "version of Python"),
    Column("torch_version", "str", "version of torch"),
    Column("engine", "str", "formulation of the solver"),
    Column("engine_version", "int", "version of the solver"),
    Column("engine_table", "str", "the table that chose the lane width"),
    Column("lane_width", "int", "tasks solved side by side"),
    Column("score_version", "int", "version of the scoring; `bench score` brings older rows up to date"),
    Column("finished", "time", "when the row was made"),
    Column("spec", "str", "the trial's canonical spec (JSON)"),
)
ROUNDS = (
    Column("federation_key", "str", "the federation; joins with `trials`"),
    Column("round", "int", "rounds trained so far; 0 is the initial model"),
    Column("seed", "int", "the matrix's seed value"),
    *UTILITY,
    Column("train_loss", "float", "mean loss of the participants before their step"),
    Column("participants", "int", "clients drawn"),
    Column("refused", "int", "of these, clients that refused the model they received"),
    Column("update_norm_mean", "float", "mean Euclidean norm of the updates sent"),
    Column("update_norm_max", "float", "largest norm"),
    *PRIVACY,
    Column("bytes_up", "int", "bytes that clients sent in this round"),
    Column("bytes_down", "int", "bytes that the server sent in this round"),
    Column("null_reasons", "str", "JSON: why columns are null, by column"),
)
PICTURES = (
    Column("png", "png", "the reconstruction: in the file, or its place in the private folder"),
    Column("original", "png", "the private image it was matched with; only where the data set is public"),
)
TRACES = (
    Column("trial_id", "str", "the trial"),
    Column("target_id", "str", "the target"),
    Column("iteration", "int", "iterations done, those of earlier restarts included"),
    Column("restart", "int", "which restart of the attack, from 0"),
    Column("objective", "str", "JSON: terms of the attack's objective, by name"),
    Column("best", "float", "best total objective so far, over all restarts"),
    Column("mse", "float", "mean over the private images: squared error of the current images"),
    Column("psnr_db", "float", "mean over the private images: PSNR of the current images"),
    Column("png", "png", "current images side by side"),
)


@dataclass(frozen=True)
class TableSchema:
    """The columns of one table of one experiment.

    Attributes:
        name: Its folder.
        core: Columns that every experiment has.
        parameters: Further columns by name, with their kinds.
    """

    name: TableName
    core: tuple[Column, ...]
    parameters: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The column whose values name the rows that are written and replaced together."""
        return "federation_key" if self.name == "rounds" else "trial_id"

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """Kinds by column, in the order of the files: ids, axes, parameters, then what was found."""
        kinds = {column.name: column.kind for column in self.core}
        added = sorted(set(self.parameters) - set(kinds))
        head = list(kinds)[: len(IDS) + len(AXES)] if self.name == "trials" else list(kinds)
        tail = [name for name in kinds if name not in head]
        return {
            name: kinds[name] if name in kinds else self.parameters[name] for name in [*head, *added, *tail]
        }

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        import pyarrow as pa

        return pa.schema([(name, arrow_type(kind)) for name, kind in self.kinds.items()])

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What every file says of itself; `huggingface` lets that project's `datasets` show the pictures."""
        pictures = {name: {"_type": "Image"} for name, kind in self.kinds.items() if kind == "png"}
        metadata = {"leakbench.schema_version": str(SCHEMA_VERSION), "leakbench.table": self.name}
        if pictures:
            metadata["huggingface"] = json.dumps({"info": {"features": pictures}}, sort_keys=True)
        return metadata

    def extended(self, parameters: Mapping[str, Kind]) -> TableSchema:
        """Return the schema with further columns; where both have one, the kind that holds both.

        Raises:
            ValueError: If a core column is declared with another kind.
        """
        core = {column.name: column.kind for column in self.core}
        merged = dict(self.parameters)
        for name, kind in parameters.items():
            if name in core and core[name] != kind:
                raise ValueError(f"expected column {name!r} of {self.name} to be {core[name]}, got {kind}")
            if name not in core:
                merged[name] = common_kind(merged.get(name, kind), kind)
        return TableSchema(self.name, self.core, merged)


def common_kind(one: Kind, other: Kind) -> Kind:
    """Return the kind that holds the values of both: numbers together are `float`, anything else `str`."""
    if one == other:
        return one
    return "float" if {one, other} == {"int", "float"} else "str"


def core_schema(table: TableName) -> TableSchema:
    """Return the columns that `table` has in every experiment, those of the installed metrics included."""
    return TableSchema(table, tuple(_core(table)))


def _core(table: TableName) -> Iterable[Column]:
    from harness.metrics.catalog import reconstruction_columns, trial_columns

    match table:
        case "trials":
            leakage = (Column(*column) for column in trial_columns())
            return (*IDS, *AXES, *STATUS, *leakage, *UTILITY, *PRIVACY, *COST, *PROVENANCE)
        case "reconstructions":
            metrics = (Column(*column) for column in reconstruction_columns())
            return (TRACES[0], *metrics, *PICTURES)
        case "rounds":
            return ROUNDS
        case "traces":
            return TRACES


def arrow_type(kind: Kind) -> pa.DataType:
    """Return the Arrow type of a column kind."""
    import pyarrow as pa

    match kind:
        case "int":
            return pa.int64()
        case "float":
            return pa.float64()
        case "bool":
            return pa.bool_()
        case "str":
            return pa.string()
        case "time":
            return pa.timestamp("us", tz="UTC")
        case "png":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def kind_of(arrow: pa.DataType) -> Kind | None:
    """Return the column kind of an Arrow type, or None if the store has no such columns."""
    kinds: tuple[Kind, ...] = ("int", "float", "bool", "str", "time", "png")
    return next((kind for kind in kinds if arrow_type(kind).equals(arrow)), None)
