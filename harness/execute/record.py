"""Recomputing what a stored trial observed, and writing it as files that others can attack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import fl.recorded
from fl.errors import StoreError, UsageError
from fl.parameter_difference import returned_model
from fl.weight_files import write_weights
from harness.execute.lane import single_thread
from harness.execute.materials import Materials
from harness.plan.stored_specs import plugins_with_files, read_spec
from harness.store.artifacts import ArtifactStore
from harness.store.experiment import Experiment

if TYPE_CHECKING:
    from fl.specs import TrialSpec
    from harness.execute.materials import Seen

SENT, RETURNED, OBSERVATION = "sent.safetensors", "returned.safetensors", "observation.safetensors"


def find_trial(folder: Path, prefix: str) -> TrialSpec:
    """Return the trial of an experiment whose id begins with `prefix`.

    Raises:
        StoreError: If there are no results.
        UsageError: If no trial, or more than one, has such an id, or it cannot be recomputed.
    """
    experiment = Experiment.open(folder)
    found = [trial for trial in experiment.statuses() if trial.startswith(prefix)]
    if len(found) != 1:
        what = f"{len(found)} of them" if found else "none"
        raise UsageError(
            f"expected the beginning of one trial's id in {folder}, got {prefix!r}: {what} match"
        )
    row: Any = experiment.row(found[0])
    manifest = _manifest(experiment)
    matrices = [run["matrix"] for run in (manifest, *manifest["history"])]
    return read_spec(row["spec"], known=[plugin for run in matrices for plugin in plugins_with_files(run)])


def record_trial(folder: Path, spec: TrialSpec, output: Path, *, secret: bool) -> list[Path]:
    """Write a trial's observations, and where single updates are seen the checkpoints behind them.

    Each target gets a folder with `observation.safetensors` and, for `observe.kind: update`,
    `sent.safetensors` and `returned.safetensors`. Folders have mode 0700, files 0600.

    Args:
        folder: The experiment.
        spec: One of its trials.
        output: Where the targets' folders go.
        secret: Whether the observation names the images and labels behind it.

    Returns:
        The targets' folders.

    Raises:
        UsageError: If the trial has no federation or its data is not here.
        BenchError: If the federation's checkpoint is no longer stored.
        OSError: If a file cannot be written.
    """
    single_thread()
    materials = _materials(folder)
    shared = replace(spec, observe=spec.observe.model_copy(update={"form": "shared"}))
    written = []
    for seen, update in zip(materials.seen(spec), materials.seen(shared), strict=True):
        target = output / seen.target_id
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        fl.recorded.write(target / OBSERVATION, seen.observation, seen.secret if secret else None)
        if seen.observation.kind == "update" and not seen.refused:
            _write_pair(target, spec, update)
        written.append(target)
    return written


def _write_pair(target: Path, spec: TrialSpec, seen: Seen) -> None:
    assert spec.federation is not None
    observation = seen.observation
    sent = observation.sent.tensors
    lr = spec.federation.lr_at(spec.observe.round)
    write_weights(target / SENT, sent)
    write_weights(target / RETURNED, returned_model(sent, observation.update, lr=lr))


def _manifest(experiment: Experiment) -> dict[str, Any]:
    manifest = experiment.manifest()
    if manifest is None:
        raise StoreError("expected the folder of an experiment, got one without a manifest")
    return manifest


def _materials(folder: Path) -> Materials:
    chosen = _manifest(Experiment.open(folder))["matrix"].get("store") or {}
    artifacts = ArtifactStore(chosen.get("uri") or folder / "artifacts")
    private = ArtifactStore(chosen.get("private_uri") or folder / "private")
    return Materials(artifacts, private, torch.device("cpu"))
