"""Trials that are solved together: their rows are those they have alone, and a failure is one trial's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from attacks import ATTACKS
from attacks.base import Attack, Reconstruction, TaskFailure
from attacks.catalog import MEAN_IMAGE
from fl.specs import Config
from harness.execute.bundle import solve_bundle
from harness.execute.federate import run_federation
from harness.execute.results import PICTURES, TrialResult, load_result, result_key, store_result
from harness.execute.work import BundleItem, FederationItem, Usage
from harness.plan.keys import federation_key


def solve(shop, trials, **options):
    return solve_bundle(
        shop.materials, shop.store, shop.scorer, BundleItem(tuple(trials), **options), shop.meter
    )


def stored(shop, trial):
    """A trial's result, but for what it cost, as text: null equals null, and every bit counts."""
    result = asdict(load_result(shop.store, trial.trial_id))
    del result["usage"]
    rows = [row for table in ("reconstructions", "traces") for row in result[table]]
    pictures = [row.pop(name) for row in rows for name in sorted(PICTURES & row.keys())]
    return json.dumps(result, sort_keys=True), pictures


def solved(shop, trials):
    return [shop.store.has(result_key(trial.trial_id)) for trial in trials]


class PuppetConfig(Config):
    does: str = "answer"


class Puppet(Attack[PuppetConfig]):
    """Does with each task what its configuration says."""

    def solve(self, tasks, env):
        for task in tasks:
            shape = (task.observation.update.n_images, *task.observation.image.shape)
            match task.config.does:
                case "fail":
                    yield TaskFailure(task.task_id, "no idea", "where it went wrong")
                case "raise":
                    raise RuntimeError("out of ideas")
                case "ignore":
                    continue
                case "wait":
                    while not env.stopping(task.task_id):
                        pass
                    yield TaskFailure(task.task_id, "stopped")
                case "misshape":
                    yield answer(task, torch.zeros(shape[0], 1, 2, 2))
                case _:
                    yield answer(task, torch.full(shape, 0.5))


def answer(task, images):
    return Reconstruction(task.task_id, images, None, {}, 0, 1)


@pytest.fixture(autouse=True)
def _puppet(register):
    card = replace(MEAN_IMAGE, name="puppet", config=PuppetConfig, implementation=f"{__name__}:Puppet")
    register(ATTACKS, card)


@pytest.fixture
def puppets(trials_of):
    """One trial for each thing a puppet may do."""

    def make(*does):
        attacks = ", ".join(f"{{name: puppet, does: {one}}}" for one in dict.fromkeys(does))
        seeds = [does[:i].count(one) for i, one in enumerate(does)]
        trials = {
            (t.spec.attack.config.does, t.spec.seed): t
            for t in trials_of(f"seeds: {sorted(set(seeds))}\nmatrix: {{attack: [{attacks}]}}")
        }
        return [trials[one, seed] for one, seed in zip(does, seeds, strict=True)]

    return make


COMPANIONS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 2, lr: 0.1}
  targets: 2
matrix:
  defense: [none, gaussian]
  observe.round: [0, 1]
  attack: [%s]
"""


@pytest.mark.parametrize(
    "attack",
    [
        "{name: dlg, iterations: 1, restarts: 2}",
        "{name: inverting_gradients, iterations: 4}",
        "random_guess",
    ],
)
def test_companions_and_order_do_not_change_a_row(workshop, trials_of, attack):
    trials = trials_of(COMPANIONS % attack)
    assert len(trials) == 4
    together, backwards, alone = workshop("together"), workshop("backwards"), workshop("alone")
    for shop in (together, backwards, alone):
        for key, spec in {federation_key(t.spec): t.spec for t in trials}.items():
            run_federation(shop.materials, shop.store, FederationItem(key, spec))

    assert solve(together, trials) == {}
    assert solve(backwards, trials[::-1]) == {}
    for trial in trials:
        assert solve(alone, [trial]) == {}
    for trial in trials:
        expected = stored(alone, trial)
        assert stored(together, trial) == expected
        assert stored(backwards, trial) == expected
    assert len({stored(alone, trial)[0] for trial in trials}) > 1


def test_a_trial_that_fails_leaves_the_others_stored(workshop, puppets):
    trials, shop = puppets("answer", "fail", "answer"), workshop()
    failures = solve(shop, trials)

    assert list(failures) == [trials[1].trial_id]
    (failure,) = failures.values()
    assert (failure.kind, failure.traceback) == ("exception", "where it went wrong")
    assert "no idea" in failure.error
    assert solved(shop, trials) == [True, False, True]


def test_a_trial_without_an_answer_has_failed(workshop, puppets):
    trials, shop = puppets("ignore", "answer"), workshop()
    failures = solve(shop, trials)

    assert list(failures) == [trials[0].trial_id]
    assert "gave no answer for round0-client" in failures[trials[0].trial_id].error
    assert solved(shop, trials) == [False, True]


def test_a_trial_that_cannot_be_scored_has_failed(workshop, puppets):
    trials, shop = puppets("misshape", "answer"), workshop()
    failures = solve(shop, trials)

    assert list(failures) == [trials[0].trial_id]
    assert "expected reconstructions of shape 1 x 8 x 8, got 1 x 2 x 2" in failures[trials[0].trial_id].error
    assert solved(shop, trials) == [False, True]


def test_a_trial_that_cannot_be_prepared_has_failed(workshop, trials_of):
    """Its federation was not trained; nobody else's business."""
    trials, shop = trials_of("matrix: {attack: [puppet], observe.round: [0, 1]}"), workshop()
    failures = solve(shop, trials)

    assert list(failures) == [trials[1].trial_id]
    assert "checkpoint of round 1" in failures[trials[1].trial_id].error
    assert solved(shop, trials) == [True, False]


def test_an_attack_that_breaks_down_keeps_what_it_had(workshop, puppets):
    trials, shop = puppets("answer", "raise", "answer"), workshop()
    with pytest.raises(RuntimeError, match="out of ideas"):
        solve(shop, trials)

    assert solved(shop, trials) == [True, False, False]
    assert solve(shop, [trials[0], trials[2]]) == {}
    assert solved(shop, trials) == [True, False, True]


def test_out_of_time_is_a_failure_of_its_own_kind(workshop, puppets):
    trials, shop = puppets("answer", "wait"), workshop()
    failures = solve(shop, trials, timeout_s=0.05)

    assert list(failures) == [trials[1].trial_id]
    assert failures[trials[1].trial_id].kind == "timeout"
    assert "no result within 0.1 s" in failures[trials[1].trial_id].error
    assert solved(shop, trials) == [True, False]


def test_real_attacks_stop_at_their_deadline(workshop, trials_of):
    attacks = "[{name: dlg, patience: 100000, tolerance: 0, iterations: 100000}, inverting_gradients]"
    for trial in trials_of(f"matrix: {{attack: {attacks}}}"):
        shop = workshop(trial.spec.attack.name)
        failures = solve(shop, [trial], timeout_s=0.05)

        assert failures[trial.trial_id].kind == "timeout"
        assert solved(shop, [trial]) == [False]


def test_what_is_stored_is_not_solved_again(workshop, puppets):
    """A stored result stays as it is, and its attack, which would fail, is not asked."""
    trials, shop = puppets("fail", "answer"), workshop()
    kept = TrialResult({"psnr_db": 1.25}, (), (), Usage(wall_s=3.0))
    store_result(shop.store, trials[0].trial_id, kept)

    assert solve(shop, trials) == {}
    assert load_result(shop.store, trials[0].trial_id) == kept
    assert solved(shop, trials) == [True, True]


def test_a_result_survives_its_store(workshop, trials_of):
    """What the driver reads, without torch, is what the scorer said."""
    (trial,), shop = trials_of("matrix: {attack: [{name: inverting_gradients, iterations: 3}]}"), workshop()
    assert solve(shop, [trial]) == {}
    result = load_result(shop.store, trial.trial_id)

    assert len(result.reconstructions) == trial.spec.targets
    assert {row["target_id"] for row in result.traces} == {r["target_id"] for r in result.reconstructions}
    for row in (*result.reconstructions, *result.traces):
        assert row["png"]["bytes"].startswith(b"\x89PNG")
        assert row["png"]["path"] is None
    assert result.usage.wall_s > 0
    assert result.columns["gradient_evaluations"] == trial.spec.targets * 4


def test_trials_solved_side_by_side_share_the_cost_by_their_iterations(workshop, trials_of):
    text = "matrix: {attack: [{name: inverting_gradients, iterations: {grid: [3, 15]}}]}"
    trials, shop = trials_of(text), workshop()
    assert solve(shop, trials) == {}
    short, long = (load_result(shop.store, trial.trial_id) for trial in trials)
    ratio = long.columns["lane_iterations"] / short.columns["lane_iterations"]

    assert ratio == 4  # one evaluation more than iterations
    assert long.usage.cpu_s == pytest.approx(ratio * short.usage.cpu_s)
    assert long.usage.wall_s == pytest.approx(ratio * short.usage.wall_s)
