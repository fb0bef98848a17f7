"""A long stage that was interrupted goes on from what it kept."""

from __future__ import annotations

import pytest
import torch

from harness.plan.stage_requests import stage_requests

STUDY = """
defaults:
  data: {name: digits, size: 16}
  model: lenet
  federation: {clients: 4, rounds: 0, batch_size: 1}
  defense: none
  targets: 2
matrix:
  attack: [{name: gias, prior: {width: 2, latent: 4, steps: 5, batch_size: 4}}]
"""


class KilledError(Exception):
    """In place of a signal."""


def test_a_killed_training_goes_on_where_it_was_and_leaves_one_artifact(workshop, trials_of, monkeypatch):
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 2)
    (trial,), here, elsewhere = trials_of(STUDY), workshop(), workshop("elsewhere")
    (request,) = stage_requests(trial.spec)
    shares = []

    def kill_at_the_third_step(share, words):
        if share > 0.5:
            raise KilledError

    with pytest.raises(KilledError):
        here.materials.run_stage(request, trial.spec, kill_at_the_third_step)
    assert not here.store.has(request.key)
    here.materials.run_stage(request, trial.spec, lambda share, words: shares.append(share))
    elsewhere.materials.run_stage(request, trial.spec, lambda share, words: None)
    assert shares == [0.6, 0.8, 1.0]
    resumed, whole = here.store.get(request.key), elsewhere.store.get(request.key)
    assert resumed.data == whole.data
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    assert not here.store.has(f"{request.key}-partial")


def test_a_row_names_the_engine_that_searched_the_generator(rows_of):
    quick = STUDY.replace("steps: 5", "steps: 2").replace(
        "}}]", "}, restarts: 1, latent_iterations: 3, parameter_iterations: 2}]"
    )
    (row,) = rows_of(quick).to_dict("records")
    assert row["status"] == "complete"
    assert row["gradient_evaluations"] > 0
