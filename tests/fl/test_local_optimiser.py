"""Momentum, weight decay, the proximal term and schedules, against torch's SGD and losses written out."""

import pytest
import torch
from torch.nn import functional as F

from defenses.base import Defense
from fl.client import simulate
from fl.hooks import ClientDefense
from fl.models import materialise
from fl.specs import NoConfig
from fl.types import LocalTraining

FEDAVG = {"algorithm": "fedavg", "batch_size": 4, "local_epochs": 3, "lr": 0.2}
OPTIONS = [
    {"momentum": 0.9},
    {"weight_decay": 0.05},
    {"momentum": 0.5, "weight_decay": 0.1},
    {"algorithm": "fedprox", "mu": 0.7},
    {"algorithm": "fedprox", "mu": 0.3, "momentum": 0.8, "weight_decay": 0.02},
]


class InOrder(Defense):
    """Batches in the order of the client's images, as a simulated client takes them."""

    def for_client(self, context):
        class Client(ClientDefense):
            def sampler(self, n, batch_size, epochs, stream):
                for _ in range(epochs):
                    yield from torch.arange(n).split(batch_size)

        return Client()


def by_hand(federation, client, round_=0):
    """The weights after one round of torch's SGD on the loss plus mu/2 |w - w_received|^2."""
    spec, state = federation.spec, federation.initial().model
    module, held = materialise(state), federation.client(client).data
    received = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD(
        module.parameters(), lr=spec.lr_at(round_), momentum=spec.momentum, weight_decay=spec.weight_decay
    )
    normalise = federation.architecture.image.normalise
    for _ in range(spec.local_epochs):
        for chosen in torch.arange(len(held)).split(spec.batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(normalise(held.images[chosen])), held.labels[chosen])
            distance = sum((p - received[name]).square().sum() for name, p in module.named_parameters())
            (loss + (spec.mu or 0) / 2 * distance).backward()
            optimizer.step()
    return {name: p.detach() - received[name] for name, p in module.named_parameters()}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_client_steps_as_written_out(options, make_federation):
    federation = make_federation(defense=InOrder(NoConfig()), **{**FEDAVG, **options})
    sent = federation.client_update(federation.initial(), 1).update

    for name, expected in by_hand(federation, 1).items():
        torch.testing.assert_close(sent.tensors[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("differentiable", [True, False])
def test_an_attacker_simulates_it(options, differentiable, make_federation):
    federation = make_federation(defense=InOrder(NoConfig()), **{**FEDAVG, **options})
    start, client = federation.initial(), federation.client(1)
    sent = federation.client_update(start, 1).update
    simulated = simulate(
        client.data.images.clone().requires_grad_(differentiable),
        client.data.labels,
        start.model,
        torch.Generator(),
        task=federation.data.info.task,
        image=federation.architecture.image,
        local=client.local(0),
        kind="delta",
        build=materialise,
    )

    for name, tensor in sent.tensors.items():
        torch.testing.assert_close(simulated.tensors[name].detach(), tensor, rtol=1e-5, atol=1e-7)


def test_the_simulation_s_derivative_agrees_with_finite_differences(make_federation):
    federation = make_federation()
    state = federation.initial().model
    state = type(state)(
        state.architecture, {n: t.double() for n, t in state.tensors.items()}, state.trainable, "eval"
    )
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2])
    local = LocalTraining(0.5, 3, 1, 2, momentum=0.6, weight_decay=0.1, mu=0.4)

    def objective(images):
        update = simulate(
            images,
            labels,
            state,
            torch.Generator(),
            task=federation.data.info.task,
            image=federation.architecture.image,
            local=local,
            kind="delta",
            build=materialise,
        )
        return torch.stack([tensor.square().sum() for tensor in update.tensors.values()]).sum()

    assert torch.autograd.gradcheck(objective, (images,))


def test_no_velocity_outlives_a_round_or_a_client(make_federation):
    options = {**FEDAVG, "momentum": 0.9, "rounds": 1}
    together, alone = make_federation(**options), make_federation(**options)
    start = together.initial()
    first = together.client_update(start, 0).update
    second = together.client_update(start, 1).update
    again = together.client_update(start, 0).update
    fresh = alone.client_update(alone.initial(), 1).update

    assert all(torch.equal(first.tensors[n], again.tensors[n]) for n in first.tensors)
    assert all(torch.equal(second.tensors[n], fresh.tensors[n]) for n in second.tensors)


def test_a_rehearsed_step_leaves_momentum_where_it_was(make_federation):
    class Rehearse(Defense):
        def for_client(self, context):
            class Client(ClientDefense):
                def gradients(self, step, batch):
                    taken = step.trainer.snapshot()
                    step.trainer.descend(super().gradients(step, batch))
                    step.trainer.restore(taken)
                    return super().gradients(step, batch)

            return Client()

    options = {**FEDAVG, "algorithm": "fedprox", "mu": 0.1, "momentum": 0.9}
    updates = []
    for defense in (Rehearse(NoConfig()), None):
        federation = make_federation(defense=defense, **options)
        updates.append(federation.client_update(federation.initial(), 0).update.tensors)

    assert all(torch.equal(updates[0][name], updates[1][name]) for name in updates[1])


@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_a_scheduled_round_is_a_round_with_its_rate(algorithm, make_federation):
    settings = {"algorithm": algorithm, "lr": 0.4, "rounds": 2, "batch_size": 4}
    scheduled = make_federation(**settings, schedule={"name": "step", "milestones": (1,), "factor": 0.25})
    (first, _), (second, _) = scheduled.run()
    slow = make_federation(**{**settings, "lr": 0.1})
    (expected, _), *_ = slow.run(first)
    (unscheduled, _), *_ = make_federation(**settings).run()

    assert all(torch.equal(t, first.model.tensors[n]) for n, t in unscheduled.model.tensors.items())
    assert all(torch.equal(t, second.model.tensors[n]) for n, t in expected.model.tensors.items())


def test_what_clients_and_their_defenses_are_told_is_the_round_s(make_federation):
    seen = []

    class Told(Defense):
        def for_client(self, context):
            seen.append((context.client, context.lr, context.batch_size, context.local_steps))
            return ClientDefense()

    federation = make_federation(
        defense=Told(NoConfig()),
        algorithm="fedavg",
        clients=2,
        batch_sizes=(4, 12),
        lr=1.0,
        rounds=2,
        schedule={"name": "cosine", "final": 0.5},
        batch_size=1,
    )
    list(federation.run())

    assert seen == [(0, 1.0, 4, 3), (1, 1.0, 12, 1), (0, 0.75, 4, 3), (1, 0.75, 12, 1)]
    assert federation.batch_sizes(0, 0) == (4, 4, 4)
    assert federation.batch_sizes(0, 1) == (12,)


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 5), (0.9, 1), (0.9, 7), (0.5, 3)])
def test_reach_is_how_far_a_constant_gradient_moves_the_weights(momentum, steps):
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.3, momentum=momentum)
    for _ in range(steps):
        weight.grad = torch.ones((), dtype=torch.float64)
        optimizer.step()

    assert LocalTraining(0.3, steps, 1, 1, momentum=momentum).reach == pytest.approx(-weight.item())
