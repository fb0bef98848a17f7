"""An attacker's simulation of a client: equal to the client, and differentiable."""

from dataclasses import replace

import pytest
import torch

from fl.client import simulate
from fl.hooks import ClientDefense
from fl.models import materialise
from fl.types import LocalTraining


def run(federation, state, images, labels, *, kind, local, defense=None):
    return simulate(
        images,
        labels,
        state,
        torch.Generator(),
        task=federation.data.info.task,
        image=federation.architecture.image,
        local=local,
        kind=kind,
        build=materialise,
        defense=defense,
    )


class InOrder(ClientDefense):
    def sampler(self, n, batch_size, epochs, stream):
        for _ in range(epochs):
            yield from torch.arange(n).split(batch_size)


@pytest.fixture
def setting(make_data, make_federation, model_plugin):
    """A federation whose clients take their batches in order."""

    def make(**spec):
        federation = make_federation(
            data=make_data(size=9, mean=(0.3,), std=(0.2,)), model=model_plugin("convnet", width=1), **spec
        )
        object.__setattr__(federation.defense, "for_client", lambda context: InOrder())
        return federation

    return make


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
@pytest.mark.parametrize(
    "spec",
    [
        {"algorithm": "fedsgd", "batch_size": 6},
        {"algorithm": "fedavg", "batch_size": 4, "local_epochs": 2, "lr": 0.2},
        {"algorithm": "fedavg", "batch_size": 4, "local_steps": 3, "lr": 0.2},
    ],
)
@pytest.mark.parametrize("differentiable", [True, False])
def test_a_simulated_client_sends_what_the_client_sends(spec, batch_norm, differentiable, setting):
    federation = setting(batch_norm=batch_norm, **spec)
    start = federation.initial()
    sent = federation.client_update(start, 0).update
    held, local = federation.client(0).data, federation.client(0).local(0)
    images = held.images.clone().requires_grad_(differentiable)
    simulated = run(federation, start.model, images, held.labels, kind=sent.kind, local=local)

    assert simulated.kind == sent.kind
    assert simulated.n_images == sent.n_images == 6
    assert simulated.tensors["head.bias"].requires_grad == differentiable
    for name, tensor in sent.tensors.items():
        torch.testing.assert_close(simulated.tensors[name].detach(), tensor, rtol=1e-5, atol=1e-7)
    assert set(simulated.buffers) == set(sent.buffers)
    for name, tensor in sent.buffers.items():
        torch.testing.assert_close(simulated.buffers[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_the_update_s_derivative_agrees_with_finite_differences(kind, make_federation):
    federation = make_federation()
    state = federation.initial().model
    state = replace(state, tensors={name: t.double() for name, t in state.tensors.items()})
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(2, 3, generator=generator, dtype=torch.float64).softmax(1).requires_grad_()
    weights = {n: torch.randn(t.shape, generator=generator).double() for n, t in state.tensors.items()}
    local = LocalTraining(lr=0.5, steps=3, batch_size=1, epochs=2)

    def objective(images, labels):
        update = run(federation, state, images, labels, kind=kind, local=local)
        return sum((weights[name] * tensor).sum() for name, tensor in update.tensors.items())

    assert torch.autograd.gradcheck(objective, (images, labels))


def test_the_known_defense_is_applied(setting):
    class Double(ClientDefense):
        def perturb_batch(self, step, batch):
            return replace(batch, images=batch.images * 0.5)

        def protect(self, update, step):
            noise = torch.rand(1, generator=step.stream)
            return replace(update, tensors={n: 2 * t + 0 * noise for n, t in update.tensors.items()})

    federation = setting(algorithm="fedsgd")
    state, held = federation.initial().model, federation.client(0).data
    local = federation.client(0).local(0)
    images = held.images.clone().requires_grad_()
    defended = run(federation, state, images, held.labels, kind="gradient", local=local, defense=Double())
    plain = run(federation, state, held.images * 0.5, held.labels, kind="gradient", local=local)
    (gradient,) = torch.autograd.grad(defended.tensors["head.weight"].sum(), images)

    assert gradient.any()
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(defended.tensors[name].detach(), 2 * tensor)


def test_neither_state_nor_module_are_touched(setting):
    federation = setting(algorithm="fedavg", batch_norm="train", lr=0.5)
    state, held = federation.initial().model, federation.client(0).data
    module = materialise(state)
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    for _ in range(2):
        simulate(
            held.images,
            held.labels,
            state,
            torch.Generator(),
            task=federation.data.info.task,
            image=federation.architecture.image,
            local=federation.client(0).local(0),
            kind="delta",
            build=lambda _: module,
        )

    assert all(torch.equal(t, before[name]) for name, t in state.tensors.items())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_a_rehearsed_step_leaves_the_unrolled_training_unchanged(setting):
    class Rehearse(ClientDefense):
        def gradients(self, step, batch):
            taken = step.trainer.snapshot()
            rehearsed = super().gradients(step, batch)
            step.trainer.descend(rehearsed)
            super().gradients(step, batch)
            step.trainer.restore(taken)
            return super().gradients(step, batch)

    federation = setting(algorithm="fedavg", batch_norm="train", lr=0.5)
    state, held = federation.initial().model, federation.client(0).data
    local = federation.client(0).local(0)
    images = held.images.clone().requires_grad_()
    rehearsed, plain = (
        run(federation, state, images, held.labels, kind="delta", local=local, defense=defense)
        for defense in (Rehearse(), None)
    )

    for name, tensor in plain.tensors.items():
        assert torch.equal(rehearsed.tensors[name], tensor)
    for name, tensor in plain.buffers.items():
        assert torch.equal(rehearsed.buffers[name], tensor)
