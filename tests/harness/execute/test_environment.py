"""What an attack is handed: no more than its threat model grants."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from attacks import ATTACKS
from attacks.base import Snapshot
from attacks.catalog import MEAN_IMAGE
from defenses import DEFENSES
from defenses.base import Defense
from defenses.catalog import NONE
from fl.cards import StageRequest
from fl.data import DATASETS, Dataset
from fl.data.digits import load as load_digits
from fl.types import Artifact
from harness.execute.bundle import solve_bundle
from harness.execute.environment import MAX_SNAPSHOTS, Environment, make_task
from harness.execute.federate import run_federation
from harness.execute.work import BundleItem, FederationItem
from harness.plan.keys import federation_key

DEFAULTS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 4%s}
  targets: 1
"""
FEDSGD = DEFAULTS % ""
FEDAVG = DEFAULTS % ", algorithm: fedavg, local_steps: 3, lr: 0.05"


@pytest.fixture
def only_task(workshop, trials_of):
    """A matrix's only trial and target: the trial, its target, its task, and the shop they are made in."""

    def make(text, shop=None):
        (trial,), shop = trials_of(text), shop or workshop()
        (seen,) = shop.materials.seen(trial.spec)
        return trial, seen, make_task(trial, seen, shop.materials), shop

    return make


@pytest.fixture
def task_of(only_task):
    """The task of a matrix's only trial and target."""
    return lambda text: only_task(text)[2]


def environment(timeout_s=None):
    return Environment(torch.device("cpu"), timeout_s=timeout_s)


@pytest.mark.parametrize("count", [1, 2, 59, 60, 61, 62, 120, 121, 1000, 4801])
def test_snapshots_are_thinned_evenly_and_the_first_and_latest_are_kept(count):
    env = environment()
    for iteration in range(count):
        env.record("task", Snapshot(iteration, {"matching": 1.0}, 1.0))
        env.record("other", Snapshot(iteration, {"matching": 2.0}, 2.0))
    taken = env.taken("task")
    kept = [snapshot.iteration for snapshot in taken]
    gaps = [after - before for before, after in pairwise(kept)]

    assert min(count, MAX_SNAPSHOTS // 2) <= len(kept) <= MAX_SNAPSHOTS + 1
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert len(set(gaps[:-1])) <= 1
    assert not gaps or 1 <= gaps[-1] <= gaps[0]
    assert {snapshot.best for snapshot in taken} == {1.0}
    assert env.taken("task") == []


def test_only_a_deadline_stops_an_attack():
    assert not environment().stopping("task")
    assert not environment(timeout_s=3600).stopping("task")
    assert environment(timeout_s=0).stopping("task")


@pytest.mark.parametrize("settings", [FEDSGD, FEDAVG])
def test_the_simulated_client_is_the_client(only_task, settings):
    """On the private batch it gives, to rounding, the update that was observed."""
    trial, seen, task, shop = only_task(settings + "matrix: {attack: [random_guess]}")
    part = shop.materials.dataset(trial.spec).part("private")
    positions = part.positions(seen.secret.image_ids)
    images, labels = part.images(positions), part.labels[positions]
    update = task.simulate(images, labels, task.observation.sent, task.streams.torch("simulation"))

    assert update.n_images >= 4
    for name, tensor in task.observation.update.tensors.items():
        torch.testing.assert_close(update.tensors[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_a_simulated_threshold_is_in_units_of_the_observed_difference(only_task, momentum):
    """Clipped deltas are lr x steps x bound long and divided by their reach, which momentum lengthens."""
    chain = "{chain: [label_smoothing, {name: clipping, bound: 1e-3}]}"
    text = FEDAVG.replace("lr: 0.05", f"lr: 0.05, momentum: {momentum}") + (
        f"matrix: {{attack: [mean_image], defense: [{chain}], attacker: [adaptive], "
        "observe.form: [parameter_difference]}"
    )
    _, _, task, _ = only_task(text)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    simulated = task.simulate(images, labels, task.observation.sent, task.streams.torch("simulation"))
    norms = [
        torch.cat([tensor.flatten() for tensor in update.tensors.values()]).norm().item()
        for update in (simulated, task.observation.update)
    ]

    assert task.defense is None
    assert norms[1] == pytest.approx(1e-3 if momentum == "0" else 1e-3 * 3 / (1 + 1.9 + 2.71), rel=1e-2)
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


def test_only_an_adaptive_attacker_knows_the_defense(task_of):
    text = FEDSGD + "matrix: {attack: [mean_image], defense: [{name: clipping, bound: 0.01}], attacker: [%s]}"
    static, adaptive = task_of(text % "static"), task_of(text % "adaptive")
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)

    def norm(task):
        update = task.simulate(images, labels, task.observation.sent, task.streams.torch("simulation"))
        return torch.cat([tensor.flatten() for tensor in update.tensors.values()]).norm().item()

    assert static.defense is None
    assert norm(static) > 0.02
    assert adaptive.defense is not None
    assert norm(adaptive) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("defense", "mirrored"),
    [
        ("{name: label_smoothing, epsilon: 0.5}", False),
        ("{chain: [label_smoothing, quantization]}", False),
        ("{chain: [pruning, quantization]}", True),
    ],
)
def test_a_defense_before_the_gradient_is_known_through_simulation(task_of, defense, mirrored):
    task = task_of(FEDSGD + f"matrix: {{attack: [mean_image], defense: [{defense}], attacker: [adaptive]}}")
    assert task.adaptive
    assert (task.defense is not None) is mirrored


class Reader(Defense):
    """Looks at its client's images."""

    def for_client(self, context):
        context.read_images(context.image_ids)
        return super().for_client(context)


def test_a_defense_that_reads_its_clients_images_finds_none_with_an_attacker(only_task, register):
    register(DEFENSES, replace(NONE, name="reader", implementation=f"{__name__}:Reader"))
    text = FEDSGD + "matrix: {attack: [random_guess], defense: [reader], attacker: [adaptive]}"
    _, _, task, _ = only_task(text)
    images, labels = torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)

    with pytest.raises(PermissionError, match="no private images"):
        task.simulate(images, labels, task.observation.sent, task.streams.torch("simulation"))


@pytest.mark.parametrize("granted", [True, False])
def test_public_images_and_hyperparameters_are_handed_over_where_granted(task_of, granted):
    knowledge = f"{{public_data: {str(granted).lower()}, local_hyperparameters: {str(granted).lower()}}}"
    task = task_of(FEDAVG + f"matrix: {{attack: [random_guess], threat_model: [{{knowledge: {knowledge}}}]}}")

    assert (task.public is not None) == granted
    assert (task.observation.knowledge.local_training is not None) == granted


def test_another_data_set_can_be_the_public_one(task_of):
    own = task_of(FEDSGD + "matrix: {attack: [random_guess]}")
    narrowed = task_of(
        FEDSGD + "matrix: {attack: [random_guess], public: [{name: digits, size: 8, public_labels: [3]}]}"
    )

    assert set(narrowed.public.labels.tolist()) == {3}
    assert len(own.public.images) > len(narrowed.public.images)


def test_the_label_to_recover_is_known_to_a_model_inversion(workshop, trials_of):
    (trial,) = trials_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 1, batch_size: 16}
          observe: {kind: global_model, rounds: [0, 1]}
          threat_model: {position: participant}
          targets: 3
        matrix: {attack: [random_guess]}
        """
    )
    shop = workshop()
    run_federation(shop.materials, shop.store, FederationItem(federation_key(trial.spec), trial.spec))
    tasks = [make_task(trial, seen, shop.materials) for seen in shop.materials.seen(trial.spec)]

    assert len({task.target_label for task in tasks}) == 3
    for task in tasks:
        assert task.task_id == f"{trial.trial_id}/label{task.target_label}"
        assert [view.update for view in task.observation.history] == [None, None]


def test_private_stages_stay_with_the_defense(only_task, workshop, register):
    def stages(config, spec):
        return [
            StageRequest(name, "prior", "nowhere:nothing", 1, {"name": name}, private=name == "shadow")
            for name in ("generator", "shadow")
        ]

    register(ATTACKS, replace(MEAN_IMAGE, name="staged", stages=stages))
    shop = workshop()
    for request in stages(None, None):
        artifact = Artifact({"weight": torch.ones(1)}, {"of": request.name})
        (shop.private if request.private else shop.store).put(request.key, artifact)
    _, _, task, _ = only_task(FEDSGD + "matrix: {attack: [staged]}", shop)

    assert {name: artifact.data["of"] for name, artifact in task.artifacts.items()} == {
        "generator": "generator"
    }


def load_lonely(config):
    digits = load_digits(config)
    nothing = replace(digits.part("public"), ids=(), labels=torch.empty(0, dtype=torch.int64))
    return Dataset(digits.info, {**digits.parts, "public": nothing})


def test_a_data_set_without_public_images_leaves_the_attacker_without(only_task, register):
    card = replace(DATASETS.get("digits"), name="lonely", implementation=f"{__name__}:load_lonely")
    register(DATASETS, card)
    trial, _, task, shop = only_task(
        FEDSGD.replace("digits", "lonely") + "matrix: {attack: [{name: inverting_gradients, iterations: 1}]}"
    )
    failures = solve_bundle(shop.materials, shop.store, shop.scorer, BundleItem((trial,)), shop.meter)

    assert task.public is None
    assert failures == {}
