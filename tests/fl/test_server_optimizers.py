"""The server's adaptive steps against Algorithm 2 of Reddi et al. 2021 in float64, and resuming."""

import numpy as np
import pytest
import torch

from fl.checkpoints import Checkpoint
from fl.server import aggregate, server_step
from fl.server_optimizers import advance
from fl.specs import FederationSpec

FEDADAM = {"algorithm": "fedadam", "server_lr": 0.05, "beta1": 0.8, "beta2": 0.95, "tau": 1e-2}
FEDADAGRAD = {"algorithm": "fedadagrad", "server_lr": 0.05, "beta1": 0.3, "tau": 1e-2}
BOTH = pytest.mark.parametrize("options", [FEDADAM, FEDADAGRAD], ids=["fedadam", "fedadagrad"])


def written_out(options, deltas, start):
    """Every round's weights, by the paper's formulas."""
    tau, beta1 = options["tau"], options["beta1"]
    x, m, v = start.astype(np.float64), np.zeros_like(start, dtype=np.float64), np.full(start.shape, tau**2)
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        if options["algorithm"] == "fedadam":
            v = options["beta2"] * v + (1 - options["beta2"]) * delta**2
        else:
            v = v + delta**2
        x = x + options["server_lr"] * m / (np.sqrt(v) + tau)
        yield x


@BOTH
def test_the_step_is_the_paper_s(options):
    spec, generator = FederationSpec(**options), np.random.default_rng(3)
    deltas = [generator.normal(size=(4, 3)) * 10.0 ** generator.integers(-4, 1) for _ in range(6)]
    weights, state = {"w": torch.from_numpy(generator.normal(size=(4, 3))).float()}, {}
    expected = written_out(options, deltas, weights["w"].numpy())
    for delta, x in zip(deltas, expected, strict=True):
        weights, state = advance(spec, weights, {"w": torch.from_numpy(delta).float()}, state)
        np.testing.assert_allclose(weights["w"].numpy(), x, rtol=1e-4, atol=1e-5)


@BOTH
def test_a_federation_follows_it_round_by_round(options, make_data, make_federation):
    settings = {"data": make_data(images=23), "clients": 5, "chunk": 2, "rounds": 3, "lr": 0.2, **options}
    federation = make_federation(**settings)
    checkpoints = [federation.initial(), *(checkpoint for checkpoint, _ in federation.run())]
    name = "head.weight"
    deltas = [
        aggregate([federation.client_update(c, i).update for i in range(5)], federation.spec).tensors[name]
        for c in checkpoints[:-1]
    ]
    start = checkpoints[0].model.tensors[name].numpy()
    for checkpoint, x in zip(
        checkpoints[1:], written_out(options, [d.numpy() for d in deltas], start), strict=True
    ):
        np.testing.assert_allclose(checkpoint.model.tensors[name].numpy(), x, rtol=1e-4, atol=1e-5)


@BOTH
def test_the_state_is_in_the_checkpoint_and_training_resumes(options, make_federation):
    settings = {"rounds": 4, "participation": 0.5, **options}
    whole = [checkpoint for checkpoint, _ in make_federation(**settings).run()]
    stored = Checkpoint.from_artifact(whole[1].to_artifact())
    resumed = [checkpoint for checkpoint, _ in make_federation(**settings).run(stored)][-1]
    (forgotten, _), *_ = make_federation(**settings).run(Checkpoint(2, whole[1].model, {}))

    assert set(stored.server_state) == set(whole[1].server_state) != set()
    for found, expected in (
        (resumed.model.tensors, whole[-1].model.tensors),
        (resumed.server_state, whole[-1].server_state),
    ):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(forgotten.model.tensors["head.weight"], whole[2].model.tensors["head.weight"])


@BOTH
def test_any_pool_of_workers_gives_the_same_bits_and_state(options, make_data, make_federation):
    settings = {"clients": 7, "chunk": 2, "rounds": 3, **options}
    workers = [make_federation(data=make_data(images=31), **settings) for _ in range(3)]
    checkpoint = workers[0].initial()
    for _ in range(3):
        chunks = workers[0].chunks(checkpoint.round)
        stored = Checkpoint.from_artifact(checkpoint.to_artifact())
        results = [workers[i % 3].train_chunk(stored, chunk) for i, chunk in enumerate(reversed(chunks))]
        checkpoint, _ = workers[1].finish_round(stored, results)
    inline, _ = list(make_federation(data=make_data(images=31), **settings).run())[-1]

    for one, other in (
        (checkpoint.model.tensors, inline.model.tensors),
        (checkpoint.server_state, inline.server_state),
    ):
        assert set(one) == set(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_plain_algorithms_have_no_state_and_old_checkpoints_are_read(make_federation):
    (checkpoint, _), *_ = make_federation(algorithm="fedprox").run()
    artifact = checkpoint.to_artifact()

    assert checkpoint.server_state == {}
    assert not any(name.startswith("server/") for name in artifact.tensors)
    assert Checkpoint.from_artifact(artifact).server_state == {}


@BOTH
def test_frozen_weights_stay_and_have_no_moments(options, make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9),
        model=model_plugin("convnet", width=1),
        batch_norm="train",
        freeze="all_but_last",
        **options,
    )
    start = federation.initial()
    checkpoint, _ = list(federation.run())[-1]

    assert {name.split("/", 1)[1] for name in checkpoint.server_state} == {"head.weight", "head.bias"}
    for name, tensor in start.model.tensors.items():
        trained = name.startswith("head") or "running" in name
        assert torch.equal(tensor, checkpoint.model.tensors[name]) != trained


def test_a_round_s_rate_scales_the_step_of_fedsgd(model_plugin, make_info):
    from fl.models import architecture
    from fl.types import ModelState, Update

    spec = FederationSpec(lr=0.5, rounds=4, schedule={"name": "step", "milestones": (2,)})
    state = ModelState(architecture(model_plugin(), make_info()), {"w": torch.ones(1)}, ("w",), "eval")
    update = Update("gradient", {"w": torch.ones(1)}, {}, 1)
    ends = [server_step(state, update, spec, round_=r)[0].tensors["w"].item() for r in (0, 1, 2)]

    assert ends == pytest.approx([0.5, 0.5, 0.95])
