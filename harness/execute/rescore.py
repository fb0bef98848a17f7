"""Scoring stored reconstructions: metrics that came later, or whose definition changed, without attacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fl.errors import BenchError, StoreError
from harness.execute.answers import answers_key, load_answers
from harness.execute.lane import single_thread
from harness.execute.materials import Materials
from harness.execute.results import SCORE_VERSION, Row
from harness.execute.score import Scorer
from harness.execute.work import Trial, Usage
from harness.metrics import METRICS
from harness.metrics.catalog import trial_columns
from harness.metrics.pairs import on_request
from harness.plan.stage_requests import judge_stages
from harness.plan.stored_specs import plugins_with_files, read_spec
from harness.store.artifacts import ArtifactStore
from harness.store.experiment import Experiment, TrialRows
from harness.store.schema import Kind, core_schema
from harness.store.storage import open_storage
from harness.store.table import TableFiles

if TYPE_CHECKING:
    from fl.specs import Plugin

BATCH = 100
"""Trials that are stored together."""
NOT_KEPT = "its reconstructions are not stored (any more)"


@dataclass
class Rescored:
    """What became of an experiment's complete trials.

    Attributes:
        complete: How many there are.
        lacking: Of these, how many lacked something.
        changed: Of these, how many have new rows.
        failed: Why others could not be scored, and how many.
    """

    complete: int = 0
    lacking: int = 0
    changed: int = 0
    failed: Counter[str] = field(default_factory=Counter)


def rescore(
    folder: Path, *, every: bool = False, progress: Callable[[int, int], None] = lambda done, all: None
) -> Rescored:
    """Score the complete trials that lack a metric or were scored by an earlier version.

    Rows are replaced a batch of trials at a time, each batch at once. Pictures, snapshots, utility and cost
    stay as they are.

    Args:
        folder: The experiment.
        every: Score all complete trials, for metrics that were null for a reason which holds no more.
        progress: Called with the number of trials done and of all to score.

    Raises:
        StoreError: If there is no experiment, or a file of it is damaged.
        LockHeldError: If a driver is at work on it.
    """
    single_thread()
    if not (folder / "trials").is_dir():
        raise StoreError(f"expected an experiment's results in {folder}, got none; `bench run` makes them")
    experiment = Experiment.open(folder, columns=_stored_columns(folder))
    scoring = _Scoring.of(experiment, folder)
    result = Rescored()
    with experiment.lock():
        experiment.recover()
        complete = [trial for trial, status in experiment.statuses().items() if status == "complete"]
        rows = experiment.rows("trials", complete)
        wanted = [row for row in rows if every or lacks(row, scoring.metrics)]
        result.complete, result.lacking = len(rows), len(wanted)
        for start in range(0, len(wanted), BATCH):
            _rescore_batch(experiment, scoring, wanted[start : start + BATCH], result)
            progress(min(start + BATCH, len(wanted)), len(wanted))
    return result


def lacks(row: Row, metrics: Collection[str] = ()) -> bool:
    """Whether a trial was scored by another version, or a metric is null without a reason.

    What an evaluator measures needs none: it is null wherever updates were observed.

    Args:
        row: Its row in `trials/`.
        metrics: Metrics that the matrix asks for, so that not having asked is no reason.
    """
    if row.get("score_version") != SCORE_VERSION:
        return True
    reasons = json.loads(row.get("null_reasons") or "{}")
    asked = [card for card in METRICS if card.name in metrics]
    if any(reasons.get(f"*{card.column}*") == on_request(card.name).reason for card in asked):
        return True
    empty = (card.column for card in METRICS if row.get(card.column) is None and not card.evaluated)
    return not all(any(fnmatchcase(column, pattern) for pattern in reasons) for column in empty)


@dataclass(frozen=True)
class _Scoring:
    """What scoring needs besides rows."""

    materials: Materials
    scorer: Scorer
    known: Sequence[Plugin]
    metrics: tuple[str, ...]

    @classmethod
    def of(cls, experiment: Experiment, folder: Path) -> _Scoring:
        manifest = experiment.manifest() or {}
        chosen = (manifest.get("matrix") or {}).get("store") or {}
        private = chosen.get("private_uri") or str(folder / "private")
        artifacts = ArtifactStore(chosen.get("uri") or folder / "artifacts")
        materials = Materials(artifacts, ArtifactStore(private), torch.device("cpu"))
        matrices = [run["matrix"] for run in (manifest, *manifest.get("history", ())) if "matrix" in run]
        known = [plugin for matrix in matrices for plugin in plugins_with_files(matrix)]
        asked = tuple((manifest.get("matrix") or {}).get("metrics") or ())
        return cls(materials, Scorer(materials, private, asked), known, asked)

    def score(self, row: Row) -> tuple[Row, list[Row]]:
        """Return the leakage columns and the reconstructions of a trial.

        Raises:
            BenchError: If what it needs is not there.
        """
        trial = Trial(row["trial_id"], read_spec(row["spec"], known=self.known))
        store = self.materials.answers(trial.spec)
        if not store.has(answers_key(trial.trial_id)):
            raise StoreError(NOT_KEPT)
        answers = load_answers(store, trial.trial_id)
        for request in judge_stages(trial.spec):
            self.materials.run_stage(request, trial.spec, lambda share, words: None)
        seen = self.materials.seen(trial.spec)
        found = self.scorer.result(trial, seen, answers, {}, Usage(0.0, 0.0, 0.0, 0.0))
        leakage = {column.name for column in trial_columns()} | {"null_reasons"}
        columns = {name: value for name, value in found.columns.items() if name in leakage}
        images = [_stored({"trial_id": trial.trial_id, **image}) for image in found.reconstructions]
        return _stored(columns), images


def _rescore_batch(experiment: Experiment, scoring: _Scoring, rows: Sequence[Row], result: Rescored) -> None:
    ids = [row["trial_id"] for row in rows]
    images = _by_trial(experiment.rows("reconstructions", ids))
    traces = _by_trial(experiment.rows("traces", ids))
    made = []
    for row in rows:
        trial = row["trial_id"]
        try:
            columns, scored = scoring.score(row)
        except BenchError as error:
            result.failed[str(error)] += 1
            continue
        new = {**row, **columns, "score_version": SCORE_VERSION}
        if new != row or _unlike(scored, images.get(trial, [])):
            made.append(TrialRows(new, scored, traces.get(trial, [])))
    experiment.commit(made)
    result.changed += len(made)


def _stored(row: Row) -> Row:
    """Return a row as it is read back: not-a-number is null."""
    return {name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()}


def _unlike(scored: Sequence[Row], stored: Sequence[Row]) -> bool:
    """Whether scored images differ from stored ones, in the columns that scoring fills."""
    if len(scored) != len(stored):
        return True
    pairs = zip(sorted(scored, key=_place), sorted(stored, key=_place), strict=True)
    return any(new.get(name) != old.get(name) for new, old in pairs for name in new)


def _place(row: Row) -> tuple[str, int]:
    return row["target_id"], row["reconstruction_index"]


def _by_trial(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["trial_id"], []).append(row)
    return found


def _stored_columns(folder: Path) -> dict[str, Kind]:
    """Return the parameter columns that the stored trials have."""
    files = TableFiles(open_storage(folder), "trials")
    schema = core_schema("trials")
    for name in files.files():
        schema = schema.extended(files.kinds(name))
    return dict(schema.parameters)
