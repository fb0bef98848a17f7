from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from harness.store.rows import conform, stored_kinds, to_arrow
from harness.store.schema import TABLES, arrow_type, common_kind, core_schema

SCRIPTED = {
    "trial_id",
    "dataset",
    "model",
    "defense",
    "noise_budget",
    "attack",
    "attacker",
    "round",
    "seed",
    "status",
    "error",
    "mse",
    "psnr_db",
    "ssim",
    "lpips",
    "success_rate",
    "identification_top1",
    "label_accuracy",
    "accuracy",
    "macro_f1",
    "auroc",
    "balanced_accuracy",
    "wall_s",
    "cpu_s",
    "gpu_s",
    "peak_mem_mib",
    "gradient_evaluations",
}
SPREAD = ("mse", "psnr_db", "ssim", "lpips", "feature_distance")


def trials(**parameters):
    return core_schema("trials").extended(parameters)


def test_columns_that_scripts_rely_on():
    kinds = core_schema("trials").kinds
    assert kinds.keys() >= SCRIPTED
    for metric in SPREAD:
        assert all(
            kinds[f"{metric}_{part}"] == "float" for part in ("ci_low", "ci_high", "median", "p95", "max")
        )
        assert all(kinds[f"{part}_{metric}"] == "float" for part in ("floor", "ceiling", "shuffled"))
    assert kinds["trial_id"] == "str"
    assert kinds["seed"] == "int"
    assert kinds["noise_budget"] == "float"


def test_types_do_not_depend_on_values():
    empty = to_arrow(trials(attack_lr="float"), [{"trial_id": "a"}])
    full = to_arrow(trials(attack_lr="float"), [{"trial_id": "a", "attack_lr": 1, "lpips": 0.5, "seed": 3}])
    assert empty.schema == full.schema
    assert pa.types.is_float64(empty.schema.field("lpips").type)
    assert full.to_pylist()[0]["attack_lr"] == 1.0


def test_parameters_stand_behind_the_axes():
    names = list(trials(defense_sigma="float", attack_lr="float").kinds)
    at = names.index("seed")
    assert names[at : at + 4] == ["seed", "attack_lr", "defense_sigma", "status"]


def test_every_kind_survives():
    schema = trials(whole="int", number="float", truth="bool", words="str")
    moment = datetime(2026, 11, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    row = {
        "trial_id": "a",
        "whole": 2**62,
        "number": math.inf,
        "truth": False,
        "words": "ü",
        "finished": moment,
    }
    back = to_arrow(schema, [row]).to_pylist()[0]
    assert {name: back[name] for name in row} == {**row, "finished": datetime(2026, 11, 1, 10, tzinfo=UTC)}
    text = to_arrow(schema, [{"trial_id": "a", "finished": "2026-11-01T12:00:00+02:00"}])
    assert text.column("finished").to_pylist() == [datetime(2026, 11, 1, 10, tzinfo=UTC)]


def test_not_a_number_is_null_and_structures_are_json():
    row = {
        "trial_id": "a",
        "lpips": math.nan,
        "null_reasons": {"b": 1, "a": [None]},
        "error": "bad \udcff byte",
    }
    back = to_arrow(trials(), [row]).to_pylist()[0]
    assert back["lpips"] is None
    assert back["null_reasons"] == '{"a":[null],"b":1}'
    assert back["error"] == "bad ? byte"


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"trial_id": "a", "wrong": 1}, "columns of trials, got also wrong"),
        ({"status": "complete"}, "expected a trial_id in every row of trials"),
        ({"trial_id": "a", "seed": 1.5}, r"int values in column trials.seed, got 1.5"),
        ({"trial_id": "a", "seed": True}, "int values"),
        ({"trial_id": "a", "seed": 2**64}, "int values"),
        ({"trial_id": "a", "mse": "0.5"}, r"float values in column trials.mse"),
        ({"trial_id": "a", "truth": 1}, "bool values"),
        ({"trial_id": "a", "finished": datetime(2026, 1, 1)}, "with its zone"),  # noqa: DTZ001
        ({"trial_id": "a", "finished": "yesterday"}, "time values"),
    ],
)
def test_wrong_rows_are_refused(row, match):
    with pytest.raises(ValueError, match=match):
        to_arrow(trials(truth="bool"), [row])


def test_a_picture_has_bytes_and_path():
    schema = core_schema("reconstructions")
    row = {"trial_id": "a", "png": {"bytes": b"x", "path": None}}
    assert to_arrow(schema, [row]).column("png").to_pylist() == [row["png"]]
    with pytest.raises(ValueError, match="png values"):
        to_arrow(schema, [{"trial_id": "a", "png": b"x"}])


def test_a_parameter_cannot_change_a_core_column():
    assert trials(seed="int").kinds == trials().kinds
    with pytest.raises(ValueError, match="expected column 'seed' of trials to be int, got str"):
        trials(seed="str")


def test_common_kinds():
    assert common_kind("int", "int") == "int"
    assert common_kind("int", "float") == common_kind("float", "int") == "float"
    assert common_kind("bool", "float") == common_kind("int", "bool") == common_kind("str", "int") == "str"
    schema = trials(k="int").extended({"k": "float"})
    assert schema.kinds["k"] == "float"


def test_conform_resolves_what_is_new_and_converts_what_changed():
    old = to_arrow(trials(k="int", same="str"), [{"trial_id": "a", "spec": "s1", "k": 3, "same": "x"}])
    calls = []

    def resolve(spec):
        calls.append(spec)
        return {"lr": 0.5, "k": 99, "same": "y"}

    wide = trials(k="str", same="str", lr="float", nowhere="int")
    assert conform(old, wide, resolve).select(["k", "same", "lr", "nowhere", "spec"]).to_pylist() == [
        {"k": "3", "same": "x", "lr": 0.5, "nowhere": None, "spec": "s1"}
    ]
    assert calls == ["s1"]
    assert conform(old, wide, None).column("lr").null_count == 1


@pytest.mark.parametrize("table", TABLES)
def test_kinds_are_read_back_from_arrow(table):
    schema = core_schema(table)
    assert stored_kinds(schema.arrow) == schema.kinds
    assert all(arrow_type(kind) == schema.arrow.field(name).type for name, kind in schema.kinds.items())
    assert stored_kinds(pa.schema([("a", pa.int8())])) is None


def test_the_readme_explains_every_column():
    words = set(
        re.findall(r"`([a-z0-9_]+)`", (Path(__file__).parents[3] / "results" / "README.md").read_text())
    )
    derived = re.compile(
        r"(floor|ceiling|shuffled|oracle_constant|aligned)_.+|.+_(ci_low|ci_high|median|p95|max)"
    )
    for table in TABLES:
        kinds = core_schema(table).kinds
        assert [name for name in kinds if name not in words and not derived.fullmatch(name)] == []
