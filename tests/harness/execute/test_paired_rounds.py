"""Global models of different rounds are attacked for the same labels with the same draws."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from harness.execute.environment import make_task
from harness.execute.federate import run_federation
from harness.execute.work import FederationItem
from harness.metrics import METRICS
from harness.plan.keys import federation_key
from harness.results import load

TEXT = """
seeds: [0, 1]
defaults:
  data: {name: digits, size: 16}
  model: {name: lenet, convs: 2, init: default}
  federation: {clients: 4, rounds: 2, batch_size: 16, algorithm: fedavg, lr: 0.1}
  observe: {kind: global_model}
  threat_model: {position: participant}
  targets: 3
matrix:
  attack:
    - {name: gmi, samples: 2, iterations: 5, prior: {width: 2, latent: 8, steps: 2, batch_size: 8}}
    - {name: random_prior, samples: 2, prior: {width: 2, latent: 8, steps: 2, batch_size: 8}}
  observe.round: [0, 2]
"""
CEILINGS = [f"ceiling_{card.column}" for card in METRICS if card.evaluated]


@pytest.fixture
def tasks_of(workshop, trials_of):
    """From a seed and a round to the tasks of an attack without stages."""
    shop, head = workshop(), TEXT.partition("matrix:")[0]
    trials = trials_of(f"{head}matrix: {{attack: [random_guess], observe.round: [0, 2]}}")

    def find(seed, round_):
        (trial,) = (t for t in trials if (t.spec.seed, t.spec.observe.round) == (seed, round_))
        spec = trial.spec
        run_federation(shop.materials, shop.store, FederationItem(federation_key(spec), spec))
        return [make_task(trial, seen, shop.materials) for seen in shop.materials.seen(spec)]

    return find


def test_every_round_hands_out_the_same_labels_in_the_same_order_with_the_same_streams(tasks_of):
    first, last = tasks_of(0, 0), tasks_of(0, 2)
    for one, other in zip(first, last, strict=True):
        assert (one.target_label, one.streams) == (other.target_label, other.streams)
        assert one.task_id != other.task_id
        sent = (task.observation.sent.tensors["head.weight"] for task in (one, other))
        assert not torch.equal(*sent)
    for one, other in combinations([*first, *tasks_of(1, 0)], 2):
        assert one.streams.entropy("first_latents") != other.streams.entropy("first_latents")


def pictures(frame):
    """Return pictures in the order of targets, so that rounds can be laid side by side."""
    return [png["bytes"] for png in frame.sort_values(["target_id", "position"])["png"]]


@pytest.mark.usefixtures("hasty_judge")
def test_what_does_not_look_at_the_model_is_the_same_at_every_round(rows_of, folder):
    rows_of(TEXT)
    results = load(folder, images=True)
    trials = results.trials
    assert trials["trial_id"].nunique() == 8
    images = results.reconstructions.rename(columns={"reconstruction_index": "position"})
    starts = results.traces[results.traces["iteration"] == 0].assign(position=0)
    assert (len(images), len(starts)) == (8 * 3 * 2, 4 * 3)
    for seed in (0, 1):
        at = [
            (frame["seed"] == seed) & (frame["round"] == round_)
            for frame in (trials, images, starts)
            for round_ in (0, 2)
        ]
        ceilings = [trials[rows][CEILINGS].drop_duplicates() for rows in at[:2]]
        assert [len(found) for found in ceilings] == [1, 1]
        assert ceilings[0]["ceiling_attack_top1"].notna().all()
        assert ceilings[0].reset_index(drop=True).equals(ceilings[1].reset_index(drop=True))
        floor, gmi = (images["attack"] == name for name in ("random_prior", "gmi"))
        assert pictures(images[at[2] & floor]) == pictures(images[at[3] & floor])
        assert pictures(starts[at[4]]) == pictures(starts[at[5]])
        assert pictures(images[at[2] & gmi]) != pictures(images[at[3] & gmi])
