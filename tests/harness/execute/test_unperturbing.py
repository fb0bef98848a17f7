"""Adaptive attackers who take out of a recovered batch what the defense put in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from attacks.problem import Problem
from fl.errors import BenchError
from fl.types import Artifact
from harness.execute.environment import Environment, make_task
from harness.execute.schedule import trials_filling
from harness.plan.stage_requests import attack_stages, defense_stages, stage_requests

STUDY = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 0, batch_size: 1}
  threat_model: {knowledge: {labels: known}}
  targets: 3
matrix:
  attack: [{name: dlg, iterations: 60, restarts: 2}]
  attacker: [%s]
  defense: [%s]
"""


@pytest.fixture(autouse=True)
def _offset(plugin):
    plugin("offset")


@pytest.fixture
def prepared(workshop, trials_of):
    """A matrix's only trial, with its stages computed, and the shop they lie in."""

    def make(text):
        (trial,), shop = trials_of(text), workshop()
        for request in stage_requests(trial.spec):
            shop.materials.run_stage(request, trial.spec, lambda share, word: None)
        return trial, shop

    return make


def test_who_knows_the_offset_sees_through_it(rows_of):
    rows = rows_of(STUDY % ("static, adaptive", "{name: offset, strength: 0.3}"))
    psnr = rows.set_index("attacker")["psnr_db"]
    assert psnr["static"] < 16  # 0.3 off at every pixel is 10.5 dB, and clamping takes part of it away
    assert psnr["adaptive"] > psnr["static"] + 20


@pytest.mark.parametrize(
    ("defense", "unperturbed", "mirrored", "simulated"),
    [
        ("offset", True, False, False),
        ("{chain: [offset, offset]}", True, False, False),
        ("{chain: [offset, {name: clipping, bound: 0.01}]}", True, True, False),
        ("input_noise", False, False, True),
        ("{name: clipping, bound: 0.01}", False, True, False),
    ],
)
def test_each_defense_is_accounted_for_in_one_way(prepared, defense, unperturbed, mirrored, simulated):
    trial, shop = prepared(STUDY % ("adaptive", defense))
    seen = shop.materials.seen(trial.spec)[0]
    task = make_task(trial, seen, shop.materials)
    problem = Problem.of(task, Environment(torch.device("cpu"), timeout_s=None), unroll=False)

    assert (task.unperturb is not None, task.defense is not None) == (unperturbed, mirrored)
    assert problem.simulated is simulated is task.simulates
    assert (trials_filling(trial.spec, "cpu") == 1) is simulated


def test_a_simulated_client_does_not_perturb_what_is_unperturbed(prepared):
    """What is searched for is the batch that was trained on, also with all local steps unrolled."""
    plain, shop = prepared(STUDY % ("adaptive", "none"))
    offset, _ = prepared(STUDY % ("adaptive", "{chain: [offset, {name: clipping, bound: 1e9}]}"))
    tasks = [make_task(t, shop.materials.seen(t.spec)[0], shop.materials) for t in (plain, offset)]
    images, labels = torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    updates = [
        task.simulate(images, labels, task.observation.sent, task.streams.torch("s")).tensors
        for task in tasks
    ]

    assert all(torch.equal(updates[0][name], updates[1][name]) for name in updates[0])


def test_a_chain_is_undone_from_its_end_and_calls_agree(prepared):
    trial, shop = prepared(STUDY % ("adaptive", "{chain: [offset, {name: offset, strength: 0.1}]}"))
    task = make_task(trial, shop.materials.seen(trial.spec)[0], shop.materials)
    pattern = shop.store.get(defense_stages(trial.spec)[0].key).tensors["pattern"]
    images, labels = torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)

    torch.testing.assert_close(task.unperturb(images, labels), images - 0.4 * pattern)
    assert torch.equal(task.unperturb(images, labels), task.unperturb(images, labels))


def test_each_link_of_a_chain_finds_its_own_artifacts(prepared):
    """Two links that ask for different stages under one name act, and are undone, each with its own."""
    chain = "{chain: [offset, {name: offset, strength: 0.1, inverted: true}, {name: clipping, bound: 1e9}]}"
    trial, shop = prepared(STUDY % ("adaptive", chain))
    seen = shop.materials.seen(trial.spec)[0]
    pattern, nudge, *_ = defense_stages(trial.spec)
    pattern = shop.store.get(pattern.key).tensors["pattern"]
    nudge = shop.private.get(nudge.key).tensors["nudge"]
    part = shop.materials.dataset(trial.spec).part("private")
    truth = part.images(part.positions(seen.secret.image_ids))
    unperturb = make_task(trial, seen, shop.materials).unperturb

    assert len({request.name for request in defense_stages(trial.spec)}) == 4
    torch.testing.assert_close(seen.protected, truth + (0.3 - 0.1) * (pattern + nudge))
    torch.testing.assert_close(unperturb(truth, seen.secret.labels), truth - (0.3 - 0.1) * pattern)


@pytest.mark.parametrize(("attacker", "expected"), [("static", set()), ("adaptive", {"pattern"})])
def test_private_stages_stay_with_the_clients(prepared, attacker, expected):
    trial, shop = prepared(STUDY % (attacker, "offset"))
    task = make_task(trial, shop.materials.seen(trial.spec)[0], shop.materials)

    assert set(task.simulate.artifacts) == expected
    assert (set() if task.unperturb is None else set(task.unperturb.artifacts)) == expected
    assert dict(task.artifacts) == {}  # the attack asked for nothing
    assert attack_stages(trial.spec) == []


@pytest.mark.parametrize("granted", [True, False])
def test_public_images_are_the_attackers_only_where_granted(prepared, granted):
    knowledge = f"knowledge: {{labels: known, public_data: {str(granted).lower()}}}"
    text = (STUDY % ("adaptive", "offset")).replace("knowledge: {labels: known}", knowledge)
    trial, shop = prepared(text)  # the stage gets them all the same
    task = make_task(trial, shop.materials.seen(trial.spec)[0], shop.materials)

    assert (task.unperturb.public is not None) is granted
    assert set(task.unperturb.artifacts) == {"pattern"}


def test_a_chain_with_a_link_that_must_be_simulated_is_not_applicable(write_matrix):
    from harness.config.matrix import load_matrix
    from harness.plan.planner import make_plan

    plan = make_plan(load_matrix(write_matrix(STUDY % ("adaptive", "{chain: [input_noise, offset]}"))), {})
    assert not plan.todo
    assert "cannot simulate it" in json.dumps(list(map(str, plan.not_applicable)))


def test_a_public_stage_takes_no_private_input(prepared):
    trial, shop = prepared(STUDY % ("static", "offset"))
    pattern, nudge = defense_stages(trial.spec)
    leaky = replace(pattern, version=2, inputs=(nudge.key,))

    with pytest.raises(BenchError, match="declare the stage private"):
        shop.materials.run_stage(leaky, trial.spec, lambda share, word: None)
    shop.store.put("elsewhere", Artifact({}, {}))
    assert not shop.store.has(nudge.key)
    assert shop.private.has(nudge.key)
