"""A client's update against plain PyTorch written out by hand."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

from defenses.base import Defense
from fl.hooks import Batch, ClientDefense
from fl.models import materialise
from fl.specs import NoConfig, Task
from fl.trainers import LocalTrainer
from fl.types import LocalTraining, Refusal


class Hooked(Defense):
    """A defense that hands out one given client defense."""

    def __init__(self, client):
        super().__init__(NoConfig())
        object.__setattr__(self, "client", client)

    def for_client(self, context):
        self.client.context = context
        return self.client


def by_hand(federation, state, client, round_):
    """The module and the shuffled positions of a client, from the streams' documented names."""
    held = federation.client(client).data
    stream = federation.streams.at(client=client).torch("batches", round=round_)
    return materialise(state), held, [torch.randperm(len(held), generator=stream) for _ in range(5)]


def loss_of(federation, module, images, labels):
    logits = module(federation.architecture.image.normalise(images))
    return F.cross_entropy(logits, labels)


def test_fedsgd_sends_the_gradient_of_the_first_shuffled_batch(make_data, make_federation):
    data = make_data(mean=(0.4,), std=(0.3,))
    federation = make_federation(data=data, algorithm="fedsgd", batch_size=4)
    start = federation.initial()
    record = federation.client_update(start, 2)
    module, held, epochs = by_hand(federation, start.model, 2, 0)
    batch = epochs[0][:4]
    loss = loss_of(federation, module, held.images[batch], held.labels[batch])
    loss.backward()

    assert record.update.kind == "gradient"
    assert record.update.n_images == 4
    assert record.update.buffers == {}
    assert record.image_ids == tuple(held.image_ids[i] for i in batch)
    assert torch.equal(record.labels, held.labels[batch])
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(record.update.tensors[name], parameter.grad, rtol=1e-6, atol=1e-8)


def test_fedsgd_candidates_are_the_batches_of_the_epoch(make_data, make_federation):
    federation = make_federation(data=make_data(images=25), algorithm="fedsgd", batch_size=4, clients=4)
    start = federation.initial()
    records = [federation.client_update(start, 0, batch=j) for j in range(2)]

    assert federation.n_images(0) == 7
    assert federation.batch_sizes(0, 0) == (4, 3)
    assert [record.update.n_images for record in records] == [4, 3]
    assert {i for r in records for i in r.image_ids} == set(federation.client(0).data.image_ids)


@pytest.mark.parametrize(("epochs", "steps", "taken"), [(1, None, 2), (3, None, 6), (1, 5, 5), (1, 1, 1)])
def test_fedavg_sends_the_difference_that_plain_sgd_makes(epochs, steps, taken, make_federation):
    federation = make_federation(
        algorithm="fedavg", batch_size=4, lr=0.3, local_epochs=epochs, local_steps=steps
    )
    start = federation.initial()
    record = federation.client_update(start, 1)
    module, held, permutations = by_hand(federation, start.model, 1, 0)
    batches = [half for p in permutations for half in (p[:4], p[4:])][:taken]
    losses = []
    for batch in batches:
        module.zero_grad()
        loss = loss_of(federation, module, held.images[batch], held.labels[batch])
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.3 * parameter.grad)

    assert record.update.kind == "delta"
    assert record.update.n_images == 6
    assert record.loss == pytest.approx(sum(losses) / taken, rel=1e-5)
    assert set(record.image_ids) == {held.image_ids[i] for batch in batches for i in batch}
    for name, parameter in module.named_parameters():
        delta = parameter.detach() - start.model.tensors[name]
        torch.testing.assert_close(record.update.tensors[name], delta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("freeze", ["none", "batch_norm", "all_but_last", "middle"])
@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_frozen_parameters_are_absent_and_do_not_move(
    freeze, algorithm, make_data, make_federation, model_plugin
):
    federation = make_federation(
        data=make_data(size=9),
        model=model_plugin("convnet", width=1),
        algorithm=algorithm,
        freeze=freeze,
        batch_norm="train",
        rounds=1,
    )
    start = federation.initial()
    update = federation.client_update(start, 0).update
    [(end, _)] = federation.run()
    weights = {name for name, _ in federation.build(start.model).named_parameters()}
    moved = {n for n in weights if not torch.equal(start.model.tensors[n], end.model.tensors[n])}

    assert tuple(update.tensors) == start.model.trainable
    assert moved <= set(start.model.trainable)
    assert {"head.weight", "head.bias"} <= moved


def test_batch_norm_in_train_mode_sends_running_statistics(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9),
        model=model_plugin("convnet", width=1),
        algorithm="fedsgd",
        batch_norm="train",
    )
    start = federation.initial()
    record = federation.client_update(start, 0)
    module = materialise(start.model)
    part = federation.data.part("private")
    with torch.no_grad():
        x = module.body.conv1(part.images(part.positions(record.image_ids)))

    expected = 0.9 * torch.zeros(1) + 0.1 * x.mean(dim=(0, 2, 3))  # PyTorch's momentum 0.1
    torch.testing.assert_close(record.update.buffers["body.norm1.running_mean"], expected)
    assert len(record.update.buffers) == 16
    assert all(b.is_floating_point() for b in record.update.buffers.values())


def test_batch_norm_in_eval_mode_sends_no_statistics(make_data, make_federation, model_plugin):
    federation = make_federation(data=make_data(size=9), model=model_plugin("convnet", width=1))

    assert federation.client_update(federation.initial(), 0).update.buffers == {}


def test_hooks_are_called_in_order_with_their_own_streams(make_federation):
    calls, draws = [], []

    class Spy(ClientDefense):
        def note(self, name, step):
            calls.append((name, step.round, step.index))
            draws.append(torch.rand(1, generator=step.stream).item())

        def inspect(self, model, step):
            self.note("inspect", step)

        def perturb_batch(self, step, batch):
            self.note("perturb_batch", step)
            return batch

        def loss(self, step, batch):
            calls.append(("loss", step.round, step.index))
            return super().loss(step, batch)

        def protect(self, update, step):
            self.note("protect", step)
            return replace(update, n_images=99)

    federation = make_federation(algorithm="fedavg", batch_size=4, defense=Hooked(Spy()))
    record = federation.client_update(federation.initial(), 0)

    assert calls == [
        ("inspect", 0, 0),
        ("perturb_batch", 0, 0),
        ("loss", 0, 0),
        ("perturb_batch", 0, 1),
        ("loss", 0, 1),
        ("protect", 0, 2),
    ]
    assert len(set(draws)) == 4
    assert record.update.n_images == 99
    assert record.protected is None
    federation.client_update(federation.initial(), 0)
    assert draws[:4] == draws[4:]
    federation.client_update(federation.initial(), 1)
    assert not set(draws[:4]) & set(draws[8:])


def test_each_candidate_batch_has_its_own_noise(make_federation):
    class Noise(ClientDefense):
        def protect(self, update, step):
            noise = torch.rand(1, generator=step.stream)
            return replace(update, tensors={n: noise.expand_as(t) for n, t in update.tensors.items()})

    federation = make_federation(defense=Hooked(Noise()), batch_size=3)
    start = federation.initial()
    noise = [
        federation.client_update(start, c, batch=j).update.tensors["head.bias"][0].item()
        for c in (0, 1)
        for j in (0, 1, 0)
    ]

    assert noise[0] == noise[2]
    assert len(set(noise)) == 4


def test_protect_can_be_left_out(make_federation):
    class Zero(ClientDefense):
        def protect(self, update, step):
            return replace(update, tensors={k: torch.zeros_like(t) for k, t in update.tensors.items()})

    protected, plain = make_federation(defense=Hooked(Zero())), make_federation()
    start = plain.initial()
    clean = protected.client_update(start, 0, protect=False).update.tensors

    assert all(not t.any() for t in protected.client_update(start, 0).update.tensors.values())
    assert all(torch.equal(t, clean[n]) for n, t in plain.client_update(start, 0).update.tensors.items())


def test_changed_images_are_recorded_for_the_judge(make_federation):
    class Darken(ClientDefense):
        def perturb_batch(self, step, batch):
            return replace(batch, images=batch.images / 2)

    federation = make_federation(algorithm="fedavg", local_epochs=2, batch_size=4, defense=Hooked(Darken()))
    record = federation.client_update(federation.initial(), 3)
    part = federation.data.part("private")

    assert len(record.image_ids) == len(set(record.image_ids)) == 6
    assert torch.equal(record.protected, part.images(part.positions(record.image_ids)) / 2)


class Poisson(ClientDefense):
    """Poisson sampling; `pattern` says how many images each batch of the round gets."""

    def __init__(self, pattern):
        self.pattern = pattern

    def sampler(self, n, batch_size, epochs, stream):
        for size in self.pattern:
            yield torch.randperm(n, generator=stream)[:size]


def test_an_empty_poisson_batch_has_a_zero_gradient(make_federation):
    federation = make_federation(defense=Hooked(Poisson([0])))
    record = federation.client_update(federation.initial(), 0)

    assert record.image_ids == ()
    assert record.update.n_images == 0
    assert record.loss is None
    assert all(not t.any() for t in record.update.tensors.values())
    assert set(record.update.tensors) == set(federation.initial().model.trainable)


def test_an_empty_poisson_batch_is_a_step_that_changes_nothing(make_federation):
    fedavg = {"algorithm": "fedavg", "local_steps": 3}
    with_empty = make_federation(defense=Hooked(Poisson([2, 0])), **fedavg)
    without = make_federation(defense=Hooked(Poisson([2])), **fedavg)
    start = without.initial()
    updates = [f.client_update(start, 0).update.tensors for f in (with_empty, without)]

    assert all(torch.equal(updates[0][name], updates[1][name]) for name in updates[1])


@dataclass
class _Refusing(ClientDefense):
    def inspect(self, model, step):
        return Refusal("no") if step.received.tensors["head.bias"].abs().max() > 1 else None


def manipulate(state):
    return replace(state, tensors={**state.tensors, "head.bias": state.tensors["head.bias"] + 7})


def test_a_client_may_refuse_a_manipulated_model(make_federation):
    federation = make_federation(defense=Hooked(_Refusing()), manipulation=manipulate, rounds=1)
    start = federation.initial()
    record = federation.client_update(start, 0)
    [(end, summary)] = federation.run()

    assert record.update is None
    assert record.refusal == Refusal("no")
    assert record.image_ids == ()
    assert summary.refused == (0, 1, 2, 3)
    assert summary.train_loss is None
    assert all(torch.equal(t, start.model.tensors[name]) for name, t in end.model.tensors.items())


def test_a_manipulated_model_is_observed_while_training_stays_clean(make_federation):
    attacked = make_federation(manipulation=manipulate, rounds=1)
    honest = make_federation(rounds=1)
    start = honest.initial()
    changed = replace(start, model=manipulate(start.model))
    observed = attacked.client_update(start, 0).update.tensors
    expected = honest.client_update(changed, 0).update.tensors
    [(end, _)], [(honest_end, _)] = attacked.run(), honest.run()

    assert all(torch.equal(observed[name], expected[name]) for name in expected)
    assert all(torch.equal(t, honest_end.model.tensors[n]) for n, t in end.model.tensors.items())


def test_snapshot_and_restore_are_exact(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9), model=model_plugin("convnet", width=1), algorithm="fedavg", batch_norm="train"
    )
    state = federation.initial().model
    trainer = LocalTrainer(
        materialise(state), state, task=Task("multiclass", 3), local=LocalTraining(0.5, 1, 4, 1)
    )
    trainer.load(state)
    held = federation.client(0).data

    def step():
        loss = trainer.task_loss(trainer.forward(held.images), held.labels)
        gradients = torch.autograd.grad(loss, list(trainer.parameters.values()))
        trainer.descend(dict(zip(trainer.parameters, gradients, strict=True)))

    def everything():
        return {n: t.clone() for n, t in trainer.model.state_dict().items()}

    step()
    taken, expected = trainer.snapshot(), everything()
    step()
    after = everything()
    trainer.restore(taken)
    restored = everything()
    step()

    assert all(torch.equal(restored[name], expected[name]) for name in expected)
    assert not torch.equal(after["body.norm1.running_var"], expected["body.norm1.running_var"])
    assert all(torch.equal(everything()[name], after[name]) for name in after)


def test_a_defense_reads_its_own_client_s_images_only(make_federation):
    spy = ClientDefense()
    federation = make_federation(defense=Hooked(spy), algorithm="fedavg", participation=0.5)
    federation.client_update(federation.initial(), 1)
    held = federation.client(1).data
    images, labels = spy.context.read_images(held.image_ids[3:5])
    foreign = federation.client(0).data.image_ids[:1]

    assert torch.equal(images, held.images[3:5])
    assert torch.equal(labels, held.labels[3:5])
    assert (spy.context.client, spy.context.n_images, spy.context.local_steps) == (1, 6, 2)
    with pytest.raises(KeyError):
        spy.context.read_images(foreign)


def test_per_sample_losses_inside_vmap_do_not_disturb_the_trainer(make_federation):
    class PerSample(ClientDefense):
        def gradients(self, step, batch):
            trainer = step.trainer

            def one(weights, image, label):
                logits = torch.func.functional_call(trainer.model, weights, (image[None],))
                return trainer.task_loss(logits, label[None])

            weights = {name: p.detach() for name, p in trainer.parameters.items()}
            each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(
                weights, batch.images, batch.labels
            )
            return {name: g.mean(0) for name, g in each.items()}

    federation, plain = make_federation(defense=Hooked(PerSample())), make_federation()
    start = plain.initial()
    ours, theirs = (f.client_update(start, 0) for f in (federation, plain))

    assert ours.loss is None
    for name, gradient in theirs.update.tensors.items():
        torch.testing.assert_close(ours.update.tensors[name], gradient, rtol=1e-4, atol=1e-6)


def test_batch_counts_its_images():
    assert len(Batch(torch.empty(0, 1, 2, 2), torch.empty(0), ())) == 0
