"""Results for people: leakage and utility by what was compared, and single trials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fl.errors import UsageError
from harness.analysis.floors import with_floors
from harness.analysis.labels import with_labels
from harness.analysis.measures import SHOWN, seen
from harness.cli.findings import facts, print_findings
from harness.cli.output import console, duration, emit_json, table
from harness.metrics import METRICS
from harness.metrics.declare import PSNR_CAP_DB
from harness.results import AXES, Results, load
from harness.store.schema import core_schema

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

COMPARED = ("dataset", "model", "defense", "noise_budget", "attack", "attacker")
"""What every summary is grouped by."""
ALWAYS = ("defense", "noise_budget", "attack")
"""Of these, what is shown even where it is the same in all trials."""
SECTIONS = ("data_", "model_", "federation_", "defense_", "attack_", "observe_", "threat_model_")
MEASURES = {
    "psnr_db_median": ("median PSNR dB", "median", "{:.1f}"),
    "success_rate": ("success rate", "mean", "{:.2f}"),
    "lpips": ("LPIPS", "mean", "{:.3f}"),
    "floor_psnr_db": ("floor PSNR dB", "mean", "{:.1f}"),
    "ceiling_psnr_db": ("ceiling PSNR dB", "mean", "{:.1f}"),
    "attack_top1": ("attack top-1", "mean", "{:.2f}"),
    "attack_top5": ("attack top-5", "mean", "{:.2f}"),
    "ceiling_attack_top1": ("ceiling top-1", "mean", "{:.2f}"),
    "knn_distance": ("KNN distance", "mean", "{:.1f}"),
    "evaluator_fid": ("evaluator FID", "mean", "{:.1f}"),
    "accuracy": ("accuracy", "mean", "{:.3f}"),
}
"""Column of `trials/`: heading, how trials are taken together, and format."""
MADE_OF_AN_UPDATE = ("target_id", "image_id", "psnr_db", "ssim", "lpips", "label", "true_label")
MADE_OF_A_MODEL = (
    "target_id",
    "reconstruction_index",
    "true_label",
    "evaluator_label",
    "evaluator_confidence",
    "hit",
)
"""Columns of `reconstructions/` that are shown of one trial."""
MAX_REASONS = 10


def show(path: str, *, trial: str | None, as_json: bool) -> None:
    """Show an experiment, or one of its trials.

    Raises:
        StoreError: If there are no results, or a file is damaged.
        UsageError: If no trial, or more than one, has an id that begins with `trial`.
    """
    if trial is not None:
        _show_trial(load(path, tables={"reconstructions"}), trial, as_json=as_json)
        return
    results = load(path, tables={"rounds"})
    if as_json:
        statuses = results.trials["status"].value_counts().to_dict()
        summed = _plain(summary(results.trials))
        emit_json({"path": path, "trials": statuses, "summary": summed, **facts(results)})
    else:
        _print_summary(console(), results)


def print_summary(path: str) -> None:
    """Write the summary of an experiment.

    Raises:
        StoreError: If there are no results, or a file is damaged.
    """
    _print_summary(console(), load(path, tables={"rounds"}))


def summary(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of what was compared, over seeds, from complete trials.

    Its columns are those of `COMPARED`, then parameters that differ between trials alike in these, then
    `trials` and the columns of `MEASURES`.
    """
    complete = trials[trials["status"] == "complete"]
    keys = [*COMPARED, *_differing(complete)]
    groups = complete.groupby(keys, dropna=False)
    measured = groups.agg(trials=("trial_id", "size"), **{m: (m, how) for m, (_, how, _) in MEASURES.items()})
    return measured.reset_index().sort_values(keys, key=_none_first, ignore_index=True)


def _none_first(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.replace("none", "") if column.name == "defense" else column


def _differing(trials: pd.DataFrame) -> list[str]:
    """Return the parameters that differ between trials with the same `COMPARED`."""
    core = core_schema("trials").kinds
    own = [column for column in trials.columns if column.startswith(SECTIONS) and column not in core]
    named = [*own, "round", "targets"]
    parameters = [column for column in named if not column.endswith(("_key", "_version"))]
    distinct = trials.groupby(list(COMPARED), dropna=False)[parameters].nunique(dropna=False)
    return [column for column in parameters if (distinct[column] > 1).any()]


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain JSON, missing values as null."""
    records: list[dict[str, Any]] = json.loads(
        frame.to_json(orient="records", date_format="iso", double_precision=15)
    )
    return records


def _print_summary(out: Console, results: Results) -> None:
    trials = results.trials
    found = summary(trials)
    if len(found):
        keys = [key for key in COMPARED if key in ALWAYS or found[key].nunique(dropna=False) > 1]
        options = _options(found)
        measures = _telling(found)
        headings = [key.replace("_", " ") for key in keys] + ["options"] * any(options) + ["trials"]
        rows = [
            [
                *(_cell(row[key]) for key in keys),
                *([text] if any(options) else []),
                row["trials"],
                *(_cell(row[measure], MEASURES[measure][2]) for measure in measures),
            ]
            for row, text in zip(_plain(found), options, strict=True)
        ]
        measured = [MEASURES[measure][0] for measure in measures]
        out.print(table([*headings, *measured], rows, numbers=("noise budget", "trials", *measured)))
    print_findings(out, results)
    for status, words in (("failed", "failed"), ("not_applicable", "not applicable")):
        _print_reasons(out, trials.loc[trials["status"] == status, "error"], words)


def _telling(found: pd.DataFrame) -> list[str]:
    """Return the measures to show: of updates or of models what was seen of them.

    A ceiling of updates is shown only where a defense changed what clients trained on.
    """
    told = [measure for measure in MEASURES if measure != "accuracy"]
    of_models = told[told.index("attack_top1") :]
    of_updates = told[: told.index("attack_top1")]
    hidden = set() if (found["ceiling_psnr_db"] < PSNR_CAP_DB).any() else {"ceiling_psnr_db"}
    if found[of_models].isna().all(axis=None):
        hidden |= {*of_models}
    elif found[of_updates].isna().all(axis=None):
        hidden |= {*of_updates}
    return [measure for measure in MEASURES if measure not in hidden]


def _options(found: pd.DataFrame) -> list[str]:
    """Return, for each row of a summary, the parameters that tell it from others with the same `COMPARED`."""
    extra = [column for column in found.columns if column not in (*COMPARED, "trials", *MEASURES)]
    if not extra:
        return [""] * len(found)
    distinct = found.groupby(list(COMPARED), dropna=False)[extra].transform(lambda c: c.nunique(dropna=False))
    rows = zip(_plain(found), distinct.to_dict("records"), strict=True)
    return [
        ", ".join(f"{_short(c)}={_cell(row[c])}" for c in extra if row[c] is not None and counts[c] > 1)
        for row, counts in rows
    ]


def _short(column: str) -> str:
    """Return a parameter's name without its section."""
    section = next((section for section in SECTIONS if column.startswith(section)), "")
    return column.removeprefix(section)


def _print_reasons(out: Console, errors: pd.Series[str], words: str) -> None:
    if not len(errors):
        return
    counted = errors.fillna("no reason given").value_counts()
    out.print(f"\n{len(errors):,} trials {words}:", markup=False)
    for reason, count in counted.head(MAX_REASONS).items():
        out.print(f"  {count:>6,} x {reason}", markup=False)
    if len(counted) > MAX_REASONS:
        out.print(f"  and {len(counted) - MAX_REASONS} other reasons", markup=False)


def _show_trial(results: Results, prefix: str, *, as_json: bool) -> None:
    found = results.trials[results.trials["trial_id"].str.startswith(prefix)]
    if len(found) != 1:
        what = f"{len(found)} of them" if len(found) else "none"
        raise UsageError(
            f"expected the beginning of one trial's id in {results.path}, got {prefix!r}: {what} match"
        )
    row = _plain(found)[0]
    images = results.reconstructions[results.reconstructions["trial_id"] == row["trial_id"]]
    if as_json:
        emit_json(
            {**row, "spec": json.loads(row["spec"]), "reconstructions": _plain(images.drop(columns="png"))}
        )
        return
    out = console()
    out.print(f"[bold]{row['trial_id']}[/bold]  {row['status']}")
    _print_fields(out, "", {axis: row[axis] for axis in AXES})
    if row["error"]:
        out.print(f"\n{row['error']}\n{row['traceback'] or ''}", markup=False)
    if row["status"] != "complete":
        return
    inverted = seen(json.loads(row["spec"])["observe"]["kind"]) == "models"
    if inverted:
        _print_inversion(out, row, results.trials)
    else:
        _print_leakage(out, row)
    utility = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss", "epsilon", "delta")
    _print_fields(out, "utility", {name: row[name] for name in utility})
    cost = {"wall": duration(row["wall_s"]), "gradient_evaluations": row["gradient_evaluations"]}
    _print_fields(out, "cost", {**cost, "attempts": row["attempts"], "device": row["device"]})
    _print_fields(out, "engine", _engine(row))
    for column, reason in json.loads(row["null_reasons"] or "{}").items():
        out.print(f"  {column} is null: {reason}", markup=False)
    columns = MADE_OF_A_MODEL if inverted else MADE_OF_AN_UPDATE
    rows = [[_cell(image[column]) for column in columns] for image in _plain(images[[*columns]])]
    numbers = {*columns} - {"target_id", "image_id", "label", "true_label", "hit"}
    out.print("\n[bold]images[/bold]")
    out.print(table(columns, rows, numbers=numbers))


def _engine(row: dict[str, Any]) -> dict[str, Any]:
    """Return how a trial was solved; tables from before the solver had formulations tell nothing."""
    return {
        "formulation": row.get("engine"),
        "lane_width": row.get("lane_width"),
        "table": row.get("engine_table"),
        "version": row.get("engine_version"),
    }


def _print_leakage(out: Console, row: dict[str, Any]) -> None:
    rows = []
    for name in (card.column for card in METRICS if not card.evaluated):
        interval = [_cell(row.get(f"{name}_ci_{end}")) for end in ("low", "high")]
        compared = [_cell(row.get(f"{y}_{name}")) for y in ("floor", "ceiling", "shuffled")]
        rows.append(
            (
                name,
                _cell(row.get(name)),
                " to ".join(map(str, interval)),
                _cell(row.get(f"{name}_median")),
                *compared,
            )
        )
    out.print("\n[bold]leakage[/bold]")
    headings = ("metric", "mean", "95 % interval", "median", "floor", "ceiling", "shuffled")
    out.print(table(headings, rows, numbers=headings[1:]))


def _print_inversion(out: Console, row: dict[str, Any], trials: pd.DataFrame) -> None:
    """Write what the evaluator says, beside the floor that was run with it and real images."""
    floored = with_floors(with_labels(trials))
    (floor,) = _plain(floored[floored["trial_id"] == row["trial_id"]])
    rows = [
        (name, *(_cell(each) for each in (row[name], floor[f"floor_{name}"], row[f"ceiling_{name}"])))
        for name in SHOWN["models"]
    ]
    out.print("\n[bold]leakage[/bold]")
    headings = ("metric", "value", "floor", "ceiling")
    out.print(table(headings, rows, numbers=headings[1:]))
    _print_fields(out, "", {name: row[name] for name in ("evaluator_accuracy", "n_reconstructions")})


def _print_fields(out: Console, heading: str, fields: dict[str, Any]) -> None:
    known = [
        f"{name.replace('_', ' ')} {_cell(value)}" for name, value in fields.items() if value is not None
    ]
    if known:
        out.print(f"{heading + ': ' if heading else '  '}{', '.join(known)}", markup=False)


def _cell(value: Any, form: str = "{:.4g}") -> Any:
    return form.format(value) if isinstance(value, float) else value
