"""Results for people: leakage and utility by what was compared, and single trials."""

from __future__ import annotations

import json
from math import isnan
from typing import TYPE_CHECKING, Any

from fl.errors import UsageError
from harness.analysis.labels import with_labels
from harness.analysis.leakage import leaks, worst
from harness.cli.output import console, duration, emit_json, table
from harness.metrics import METRICS
from harness.metrics.declare import PSNR_CAP_DB
from harness.results import AXES, Results, load

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from harness.analysis.leakage import Leak
    from harness.analysis.uncertainty import Estimate

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
    "accuracy": ("accuracy", "mean", "{:.3f}"),
}
"""Column of `trials/`: heading, how trials are taken together, and format."""
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
    trials = load(path, tables=()).trials
    if as_json:
        statuses = trials["status"].value_counts().to_dict()
        emit_json(
            {
                "path": path,
                "trials": statuses,
                "summary": _plain(summary(trials)),
                "leakage": [_facts(leak) for leak in leaks(with_labels(trials))],
            }
        )
    else:
        _print_summary(console(), trials)


def print_summary(path: str) -> None:
    """Write the summary of an experiment.

    Raises:
        StoreError: If there are no results, or a file is damaged.
    """
    _print_summary(console(), load(path, tables=()).trials)


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
    named = [*(c for c in trials.columns if c.startswith(SECTIONS)), "round", "targets"]
    parameters = [column for column in named if not column.endswith(("_key", "_version"))]
    distinct = trials.groupby(list(COMPARED), dropna=False)[parameters].nunique(dropna=False)
    return [column for column in parameters if (distinct[column] > 1).any()]


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain JSON, missing values as null."""
    records: list[dict[str, Any]] = json.loads(
        frame.to_json(orient="records", date_format="iso", double_precision=15)
    )
    return records


def _print_summary(out: Console, trials: pd.DataFrame) -> None:
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
    _print_findings(out, trials)
    for status, words in (("failed", "failed"), ("not_applicable", "not applicable")):
        _print_reasons(out, trials.loc[trials["status"] == status, "error"], words)


def _print_findings(out: Console, trials: pd.DataFrame) -> None:
    """Write what every defense leaks under its strongest attack, and how sure that is."""
    found = list(worst(leaks(with_labels(trials))).values())
    if not found:
        return
    several = len({leak.setting for leak in found}) > 1
    headings = [
        *(["data and model"] * several),
        "defense",
        "noise budget",
        "strongest attack",
        "SSIM above floor",
    ]
    headings += ["95 % interval", "finding", "against none"]
    rows = [
        [
            *([leak.setting] * several),
            leak.defense,
            f"{leak.noise_budget:g}",
            leak.attack if leak.attacker == "static" else f"{leak.attack}, {leak.attacker}",
            f"{leak.excess.mean:.2f}" if leak.excess.values else None,
            f"{leak.excess.low:.2f} to {leak.excess.high:.2f}" if leak.excess.known else None,
            leak.finding,
            leak.versus_none,
        ]
        for leak in found
    ]
    out.print()
    out.print(table(headings, rows, numbers=("noise budget", "SSIM above floor", "95 % interval")))


def _facts(leak: Leak) -> dict[str, Any]:
    """Return a leak as plain JSON."""
    return {
        **leak._asdict(),
        "excess": _estimate(leak.excess),
        "difference": None if leak.difference is None else _estimate(leak.difference),
        "metrics": {name: _estimate(estimate) for name, estimate in leak.metrics.items()},
        "floor": _number(leak.floor),
        "worst_psnr_db": _number(leak.worst_psnr_db),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {name: _number(value) for name, value in estimate._asdict().items()}


def _number(value: Any) -> Any:
    """Return a value for JSON, which has no NaN."""
    return None if isinstance(value, float) and isnan(value) else value


def _telling(found: pd.DataFrame) -> list[str]:
    """Return the measures to show: a ceiling only where a defense changed what clients trained on."""
    lowered = (found["ceiling_psnr_db"] < PSNR_CAP_DB).any()
    return [measure for measure in MEASURES if lowered or measure != "ceiling_psnr_db"]


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
    _print_leakage(out, row)
    utility = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss", "epsilon", "delta")
    _print_fields(out, "utility", {name: row[name] for name in utility})
    cost = {"wall": duration(row["wall_s"]), "gradient_evaluations": row["gradient_evaluations"]}
    _print_fields(out, "cost", {**cost, "attempts": row["attempts"], "device": row["device"]})
    _print_fields(out, "engine", _engine(row))
    for column, reason in json.loads(row["null_reasons"] or "{}").items():
        out.print(f"  {column} is null: {reason}", markup=False)
    columns = ["target_id", "image_id", "psnr_db", "ssim", "lpips", "label", "true_label"]
    rows = [[_cell(image[column]) for column in columns] for image in _plain(images[columns])]
    out.print("\n[bold]images[/bold]")
    out.print(table(columns, rows, numbers=columns[2:5]))


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
    for card in METRICS:
        name = card.column
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


def _print_fields(out: Console, heading: str, fields: dict[str, Any]) -> None:
    known = [
        f"{name.replace('_', ' ')} {_cell(value)}" for name, value in fields.items() if value is not None
    ]
    if known:
        out.print(f"{heading + ': ' if heading else '  '}{', '.join(known)}", markup=False)


def _cell(value: Any, form: str = "{:.4g}") -> Any:
    return form.format(value) if isinstance(value, float) else value
