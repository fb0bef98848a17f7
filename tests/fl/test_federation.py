"""Rounds: chunks in any order, equal bits, batch norm, the release hook, utility, and real digits."""

from dataclasses import dataclass, replace

import pytest
import torch

from defenses.base import Defense
from fl.data import DATASETS, load
from fl.errors import UsageError
from fl.hooks import ClientDefense, PrivacySpent, ServerDefense
from fl.seeds import Streams
from fl.specs import NoConfig, Plugin
from fl.types import Wrapper

FEDAVG = {"algorithm": "fedavg", "lr": 0.3, "batch_size": 2, "local_epochs": 2}


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def last(federation, start=None):
    return list(federation.run(start))[-1][0]


@pytest.mark.parametrize("spec", [{}, FEDAVG], ids=["fedsgd", "fedavg"])
def test_a_round_is_the_weighted_mean_of_the_clients_updates(spec, make_data, make_federation):
    federation = make_federation(
        data=make_data(images=23), **{"lr": 0.3, **spec, "clients": 5, "chunk": 2, "rounds": 1}
    )
    start = federation.initial()
    updates = [federation.client_update(start, c).update for c in range(5)]
    sizes = [update.n_images for update in updates]
    rate = 1.0 if spec else -0.3

    assert sizes == ([5, 5, 5, 4, 4] if spec else [4] * 5)
    for name, tensor in last(federation).model.tensors.items():
        stacked = torch.stack([n * u.tensors[name] for n, u in zip(sizes, updates, strict=True)])
        mean = stacked.double().sum(0) / sum(sizes)
        expected = start.model.tensors[name].double() + rate * mean
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


def test_any_pool_of_workers_gives_the_same_bits(make_data, make_federation):
    """Chunks on other federation objects, in another order, some twice, as after a worker's death."""
    settings = {**FEDAVG, "clients": 7, "chunk": 2, "participation": 0.8, "rounds": 3}
    workers = [make_federation(data=make_data(images=31), **settings) for _ in range(3)]
    server = make_federation(data=make_data(images=31), **settings)
    checkpoint = server.initial()
    for _ in range(3):
        chunks = server.chunks(checkpoint.round)
        workers[1].train_chunk(checkpoint, chunks[-1])
        results = [workers[i % 3].train_chunk(checkpoint, chunk) for i, chunk in enumerate(reversed(chunks))]
        checkpoint, record = server.finish_round(checkpoint, results)

    end, inline = list(make_federation(data=make_data(images=31), **settings).run())[-1]
    assert equal(end.model.tensors, checkpoint.model.tensors)
    assert inline == record


def test_chunk_sums_are_those_of_the_updates_sent(make_federation):
    federation = make_federation(**FEDAVG, chunk=3)
    start = federation.initial()
    result = federation.train_chunk(start, federation.chunks(0)[0])
    updates = [federation.client_update(start, c).update for c in range(3)]

    for name, total in result.sums.items():
        by_hand = updates[0].tensors[name] * updates[0].n_images
        for update in updates[1:]:
            by_hand = by_hand.add(update.tensors[name], alpha=update.n_images)
        assert torch.equal(total, by_hand)
    assert [c.client for c in result.clients] == [0, 1, 2]
    flat = torch.cat([t.flatten().double() for t in updates[1].tensors.values()])
    assert result.clients[1].norm == pytest.approx(flat.norm().item(), rel=1e-9)


def test_results_of_another_round_or_a_missing_chunk_are_refused(make_federation):
    federation = make_federation(chunk=1)
    start = federation.initial()
    results = [federation.train_chunk(start, chunk) for chunk in federation.chunks(0)]

    with pytest.raises(ValueError, match="expected results"):
        federation.finish_round(start, results[1:])
    with pytest.raises(ValueError, match="expected results"):
        federation.finish_round(replace(start, round=1), results)


def test_training_resumes_from_a_checkpoint(make_federation):
    settings = {**FEDAVG, "rounds": 4, "participation": 0.5}
    whole = [checkpoint for checkpoint, _ in make_federation(**settings).run()]
    resumed = last(make_federation(**settings), whole[1])

    assert [checkpoint.round for checkpoint in whole] == [1, 2, 3, 4]
    assert equal(resumed.model.tensors, whole[-1].model.tensors)


def test_seeds_decide_everything(make_federation):
    ends = [last(make_federation(**FEDAVG, seed=seed)).model.tensors for seed in (3, 3, 4)]

    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


def test_the_global_generator_is_neither_used_nor_changed(make_federation):
    before = torch.random.get_rng_state()
    first = last(make_federation(**FEDAVG)).model.tensors
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert equal(first, last(make_federation(**FEDAVG)).model.tensors)


class NoOp(Defense):
    """Every hook is there and changes nothing."""

    def for_client(self, context):
        class Client(ClientDefense):
            def sampler(self, n, batch_size, epochs, stream):
                yield from super().sampler(n, batch_size, epochs, stream)

            def perturb_batch(self, step, batch):
                torch.rand(5, generator=step.stream)
                return replace(batch, images=batch.images.clone())

            def gradients(self, step, batch):
                taken = step.trainer.snapshot()
                loss = self.loss(step, batch)
                step.trainer.restore(taken)
                del loss
                return super().gradients(step, batch)

            def protect(self, update, step):
                return replace(update, tensors={n: t.clone() for n, t in update.tensors.items()})

        return Client()

    def for_server(self):
        class Server(ServerDefense):
            def release(self, mean, context):
                return replace(mean)

        return Server()


@pytest.mark.parametrize("spec", [{}, FEDAVG], ids=["fedsgd", "fedavg"])
def test_hooks_that_do_nothing_change_no_bit(spec, make_data, make_federation, model_plugin):
    settings = {"data": make_data(size=9), "model": model_plugin("convnet", width=1), "batch_norm": "train"}
    ends = [last(make_federation(**settings, **spec, defense=d)) for d in (NoOp(NoConfig()), None)]

    assert equal(ends[0].model.tensors, ends[1].model.tensors)


def test_running_statistics_are_averaged_by_images(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(images=10, size=9),
        model=model_plugin("convnet", width=1),
        batch_norm="train",
        **{**FEDAVG, "clients": 3, "rounds": 1, "batch_size": 4},
    )
    start = federation.initial()
    buffers = [federation.client_update(start, c).update.buffers for c in range(3)]
    end = last(federation).model.tensors

    for name in buffers[0]:
        expected = (4 * buffers[0][name] + 3 * buffers[1][name] + 3 * buffers[2][name]) / 10
        torch.testing.assert_close(end[name], expected)
    assert end["body.norm1.num_batches_tracked"] == 0
    assert not torch.equal(end["body.norm1.running_mean"], start.model.tensors["body.norm1.running_mean"])


def test_running_statistics_stay_in_eval_mode(make_data, make_federation, model_plugin):
    federation = make_federation(data=make_data(size=9), model=model_plugin("convnet", width=1), **FEDAVG)
    start, end = federation.initial().model.tensors, last(federation).model.tensors

    assert all(torch.equal(start[n], end[n]) for n in start if "running" in n)
    assert not torch.equal(start["body.norm1.weight"], end["body.norm1.weight"])


def test_the_server_s_defense_sees_each_update_and_releases_the_mean(make_federation):
    seen = []

    class Server(ServerDefense):
        def per_update(self, update):
            return replace(update, tensors={n: t / 2 for n, t in update.tensors.items()})

        def release(self, mean, context):
            seen.append((context.round, context.participants, torch.rand(1, generator=context.stream).item()))
            return replace(mean, tensors={n: 2 * t for n, t in mean.tensors.items()})

    class Central(Defense):
        def for_server(self):
            return Server()

    central, plain = last(make_federation(defense=Central(NoConfig()))), last(make_federation())

    assert [(r, n) for r, n, _ in seen] == [(0, 4), (1, 4)]
    assert seen[0][2] != seen[1][2]
    assert equal(central.model.tensors, plain.model.tensors)  # halving and doubling are exact


class Counting(Defense):
    """Keeps the number of its own rounds, and scales by it."""

    def for_client(self, context):
        class Client(ClientDefense):
            rounds = torch.zeros(1)

            def state_dict(self):
                return {"rounds": self.rounds}

            def load_state_dict(self, state):
                self.rounds = state["rounds"]

            def protect(self, update, step):
                self.rounds = self.rounds + 1
                return replace(update, tensors={n: self.rounds * t for n, t in update.tensors.items()})

        return Client()


def test_client_state_survives_between_a_client_s_rounds(make_federation):
    federation = make_federation(defense=Counting(NoConfig()), rounds=6, participation=0.5, lr=0.01)
    drawn = [federation.participants(r) for r in range(6)]
    checkpoints = [federation.initial(), *(checkpoint for checkpoint, _ in federation.run())]
    observed = federation.client_update(checkpoints[5], drawn[5][0])

    for number in range(7):
        counts = {c: sum(c in d for d in drawn[:number]) for c in range(4)}
        states = checkpoints[number].defense_states
        assert {c: int(s["rounds"]) for c, s in states.items()} == {c: n for c, n in counts.items() if n}
    assert observed.defense_state["rounds"].item() == sum(drawn[5][0] in d for d in drawn)


def test_the_record_counts_bytes_norms_and_the_worst_epsilon(make_federation):
    @dataclass(frozen=True)
    class Accounted(Defense):
        def guarantee(self, context):
            assert context.steps == 3
            return PrivacySpent(context.rounds + context.client / 10, 1e-5, "example", "test")

    federation = make_federation(
        defense=Accounted(NoConfig()), participation=0.5, **{**FEDAVG, "local_epochs": 1}
    )
    (first, record), (_, second) = federation.run()
    size = 4 * sum(t.numel() for t in first.model.tensors.values())

    assert (record.participants, record.refused) == (2, ())
    assert record.bytes_up == record.bytes_down == 2 * size
    assert record.privacy == PrivacySpent(1.3, 1e-5, "example", "test")
    assert second.privacy.epsilon == 2.3
    assert len(record.update_norms) == 2
    assert next(make_federation().run())[1].privacy is None


class _Gate(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.head = model, model.head
        self.gate = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.gate(self.model(x))


class Wrapping(Defense):
    def wrapper(self):
        return Wrapper("gate", {})

    def wrap_model(self, model):
        return _Gate(model)


def test_a_wrapper_keeps_the_model_s_weights_and_draws_its_own(make_federation):
    plain, wrapped = make_federation(), make_federation(defense=Wrapping(NoConfig()), **FEDAVG)
    inner, outer = plain.initial().model, wrapped.initial().model
    again = make_federation(defense=Wrapping(NoConfig())).initial().model

    assert outer.architecture.wrappers == (Wrapper("gate", {}),)
    assert all(torch.equal(t, outer.tensors[f"model.{n}"]) for n, t in inner.tensors.items())
    assert torch.equal(outer.tensors["gate.weight"], again.tensors["gate.weight"])
    assert outer.tensors["gate.weight"].abs().max() <= 3**-0.5
    assert not torch.equal(last(wrapped).model.tensors["gate.weight"], outer.tensors["gate.weight"])


def test_predictions_use_running_statistics_and_leave_training_alone(
    make_data, make_federation, model_plugin
):
    federation = make_federation(
        data=make_data(size=9, mean=(0.5,), std=(0.25,)),
        model=model_plugin("convnet", width=1),
        batch_norm="train",
        **FEDAVG,
    )
    end = last(federation)
    logits, labels = federation.predict(end, batch_size=7)
    module = federation.build(end.model).eval()
    part = federation.data.part("test")
    with torch.no_grad():
        expected = module((part.images() - 0.5) / 0.25)

    torch.testing.assert_close(logits, expected)
    assert torch.equal(labels, part.labels)
    assert equal(last(federation).model.tensors, end.model.tensors)


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_sigmoid_tasks_train(kind, make_data, make_federation):
    data = make_data(kind=kind, classes=2 if kind == "binary" else 3)
    records = [record for _, record in make_federation(data=data, rounds=15, **FEDAVG).run()]

    assert records[-1].train_loss < records[0].train_loss


def test_too_few_images_are_refused(make_data, make_federation):
    with pytest.raises(UsageError, match=r"lower federation\.clients"):
        make_federation(data=make_data(images=3), clients=4)


def test_real_digits_are_learnt(make_federation, model_plugin):
    card = DATASETS.get("digits")
    federation = make_federation(
        data=load(Plugin("digits", card.version, card.config())),
        model=model_plugin(convs=2, activation="relu", init="default"),
        algorithm="fedavg",
        partition={"name": "dirichlet", "alpha": 0.5},
        clients=10,
        rounds=5,
        participation=0.5,
        batch_size=8,
        local_epochs=3,
        lr=0.1,
    )
    logits, labels = federation.predict(last(federation))

    assert (logits.argmax(1) == labels).float().mean() > 0.8
    held = sorted(i for c in range(10) for i in federation.client(c).data.image_ids)
    assert held == sorted(federation.data.part("private").ids)


def test_streams_do_not_name_defenses(make_federation):
    a, b = make_federation(), make_federation(defense=NoOp(NoConfig()))

    assert equal(a.initial().model.tensors, b.initial().model.tensors)
    assert a.client(1).data.image_ids == b.client(1).data.image_ids
    assert a.participants(1) == b.participants(1)
    assert a.streams == Streams(0)
