"""Targets, and what an adversary sees of them."""

from dataclasses import replace

import pytest
import torch

from defenses.base import Defense
from fl.candidate_bounds import most_candidates
from fl.errors import NotApplicableError, UsageError
from fl.hooks import ClientDefense, ServerDefense
from fl.observe import batch_statistics, candidates, draw_targets, observe
from fl.specs import KnowledgeSpec, NoConfig, ObserveSpec, ThreatModel
from fl.types import LocalTraining


def knowing(**knowledge):
    return ThreatModel(knowledge=KnowledgeSpec(**knowledge))


def first(federation, spec, threat_model=None, *, checkpoints=None):
    target = draw_targets(federation, spec, 1)[0]
    return target, observe(
        federation, checkpoints or {0: federation.initial()}, target, threat_model or ThreatModel()
    )


@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize("kind", ["update", "aggregate", "global_model"])
@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("participation", [1.0, 0.5])
@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_the_planner_s_bounds_hold(
    *, algorithm, participation, round_, kind, alpha, make_data, make_federation
):
    partition = {"name": "iid"} if alpha is None else {"name": "dirichlet", "alpha": alpha}
    federation = make_federation(
        data=make_data(images=41),
        algorithm=algorithm,
        participation=participation,
        clients=9,
        batch_size=3,
        partition=partition,
    )
    spec = ObserveSpec(kind=kind, round=round_, clients=2)
    found = len(candidates(federation, spec))

    assert 0 < found <= most_candidates(federation.spec, spec, images_private=41, labels=3)


def test_candidates_of_fedsgd_before_training_are_all_batches(make_data, make_federation):
    federation = make_federation(data=make_data(images=9), clients=2, batch_size=2)
    found = candidates(federation, ObserveSpec())

    assert [t.id for t in found] == [
        *(f"round0-client0-batch{j}" for j in range(3)),
        *(f"round0-client1-batch{j}" for j in range(2)),
    ]
    assert [t.batch for t in candidates(federation, ObserveSpec(round=1))] == [None, None]


def test_the_first_k_of_n_targets_are_those_of_every_n(make_federation):
    federation = make_federation(clients=6, batch_size=1)
    draws = [draw_targets(federation, ObserveSpec(), n) for n in (1, 7, 24)]

    assert draws[2][:7] == draws[1]
    assert draws[1][:1] == draws[0]
    assert len(set(draws[2])) == 24
    assert draws[2] != candidates(federation, ObserveSpec())
    assert draws[2] != draw_targets(make_federation(clients=6, batch_size=1, seed=1), ObserveSpec(), 24)


def test_too_few_candidates_are_refused(make_federation):
    with pytest.raises(UsageError, match=r"expected at least 5 targets .* got 4; lower targets:"):
        draw_targets(make_federation(), ObserveSpec(round=1), 5)
    models = ObserveSpec(kind="global_model", rounds=(0, 1))
    with pytest.raises(UsageError, match=r"\(global_model, round 1\), got 3; .* images of more classes"):
        draw_targets(make_federation(), models, 4)


class Poisson(Defense):
    """Some first batches are empty."""

    def for_client(self, context):
        class Client(ClientDefense):
            def sampler(self, n, batch_size, epochs, stream):
                yield torch.arange(context.client % 2 * 2)
                yield torch.arange(1)

        return Client()


def test_empty_batches_are_no_targets_and_move_no_other(make_federation):
    poisson, plain = make_federation(defense=Poisson(NoConfig()), batch_size=3), make_federation(batch_size=3)
    ids = [target.id for target in draw_targets(poisson, ObserveSpec(), 6)]

    assert {"round0-client0-batch0", "round0-client2-batch0"}.isdisjoint(ids)
    shared = [t.id for t in draw_targets(plain, ObserveSpec(), 8) if t.id in ids]
    assert shared == ids


@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_an_observed_update_is_the_one_sent_in_training(algorithm, make_federation):
    federation = make_federation(algorithm=algorithm, rounds=3, participation=0.5, chunk=1)
    checkpoints = {c.round: c for c in [federation.initial(), *(c for c, _ in federation.run())]}
    target, seen = first(federation, ObserveSpec(round=2), checkpoints=checkpoints)
    [client] = target.clients
    [chunk] = [c for c in federation.chunks(2) if c.clients == (client,)]
    sums = federation.train_chunk(checkpoints[2], chunk).sums
    update = seen.observation.update

    assert all(torch.equal(sums[n], t * update.n_images) for n, t in update.tensors.items())
    assert seen.observation.sent is checkpoints[2].model
    assert seen.secret.image_ids
    assert set(seen.secret.image_ids) <= set(federation.client(client).data.image_ids)
    assert seen.secret.protected is None


def test_a_candidate_batch_is_the_secret_s(make_federation):
    federation = make_federation(batch_size=4)
    target, seen = first(federation, ObserveSpec(), knowing(labels="known"))
    record = federation.client_update(federation.initial(), target.clients[0], batch=target.batch)
    part = federation.data.part("private")

    assert seen.secret.image_ids == record.image_ids
    assert seen.secret.labels == tuple(part.labels[part.positions(record.image_ids)].tolist())
    assert seen.secret.labels == tuple(seen.observation.knowledge.labels.tolist())
    assert seen.secret.fingerprint == federation.data.info.fingerprint
    assert seen.observation.update.n_images == len(record.image_ids)


def test_knowledge_is_only_what_the_threat_model_grants(make_data, make_federation, model_plugin):
    federation = make_federation(
        data=make_data(size=9), model=model_plugin("convnet", width=1), batch_norm="train", batch_size=4
    )
    spec = ObserveSpec()
    _, nothing = first(federation, spec, knowing(local_hyperparameters=False, batch_norm="none"))
    _, running = first(federation, spec)
    _, exact = first(federation, spec, knowing(batch_norm="exact", labels="known"))
    part = federation.data.part("private")
    images = part.images(part.positions(exact.secret.image_ids))
    module = federation.build(federation.initial().model)
    with torch.no_grad():
        hidden = module.body.conv1(images)

    empty = nothing.observation.knowledge
    assert (empty.labels, empty.local_training, empty.batch_norm) == (None, None, None)
    assert nothing.observation.update.buffers == {}
    assert running.observation.knowledge.local_training == LocalTraining(1.0, 1, 4, 1)
    assert running.observation.knowledge.batch_norm["body.norm1.running_var"].tolist() == [1.0]
    assert len(running.observation.knowledge.batch_norm) == len(running.observation.update.buffers) == 16
    known = exact.observation.knowledge.batch_norm
    torch.testing.assert_close(known["body.norm1.running_mean"], hidden.mean((0, 2, 3)))
    torch.testing.assert_close(known["body.norm1.running_var"], hidden.var((0, 2, 3), correction=0))


def test_batch_statistics_follow_the_model_s_mode(make_data, make_federation, model_plugin):
    federation = make_federation(data=make_data(size=9), model=model_plugin("convnet", width=1))
    module = federation.build(federation.initial().model)
    inputs = torch.randn(5, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    by_mode = [batch_statistics(module.train(mode), inputs) for mode in (True, False)]

    assert torch.equal(by_mode[0]["body.norm1.running_var"], by_mode[1]["body.norm1.running_var"])
    assert not torch.allclose(by_mode[0]["body.norm2.running_var"], by_mode[1]["body.norm2.running_var"])


@pytest.mark.parametrize(("steps", "behind"), [(1, 2), (2, 4), (9, 5)])
def test_an_adversary_who_knows_the_local_steps_counts_the_images_they_take(
    steps, behind, make_data, make_federation
):
    federation = make_federation(
        data=make_data(images=10), clients=2, algorithm="fedavg", batch_size=2, local_steps=steps
    )
    granted = knowing(labels="known")
    _, observed = first(federation, ObserveSpec(), granted)

    assert observed.observation.update.n_images == 5  # the delta's weight: all the client's images
    assert observed.observation.n_images == behind == len(observed.secret.image_ids)
    assert len(observed.observation.knowledge.labels) == behind
    _, unknown = first(federation, ObserveSpec(), knowing(local_hyperparameters=False))
    assert unknown.observation.n_images == 5


def test_local_hyperparameters_of_fedavg(make_data, make_federation):
    federation = make_federation(
        data=make_data(images=26), algorithm="fedavg", local_epochs=3, batch_size=4, lr=0.2
    )
    knowledge = {
        target.clients: observe(federation, {0: federation.initial()}, target, ThreatModel())
        for target in candidates(federation, ObserveSpec())
    }

    assert [s.observation.knowledge.local_training.steps for s in knowledge.values()] == [6, 6, 6, 6]
    local = knowledge[(0,)].observation.knowledge.local_training
    assert local == LocalTraining(0.2, 6, 4, 3)


class Secure(Defense):
    """Halves each update before summing; single ones are not visible."""

    def for_server(self):
        class Server(ServerDefense):
            visible = "sum"

            def per_update(self, update):
                return replace(update, tensors={n: t / 2 for n, t in update.tensors.items()})

        return Server()


def test_an_aggregate_is_the_weighted_mean_of_disjoint_clients(make_data, make_federation):
    data = make_data(images=26)
    federation = make_federation(
        data=data, algorithm="fedavg", clients=7, batch_size=4, defense=Secure(NoConfig())
    )
    spec = ObserveSpec(kind="aggregate", clients=3)
    targets = candidates(federation, spec)
    target, seen = first(federation, spec)
    updates = [federation.client_update(federation.initial(), c).update for c in target.clients]
    total = sum(u.n_images for u in updates)

    assert len(targets) == 2
    assert len({c for t in targets for c in t.clients}) == 6
    assert seen.observation.clients == target.clients
    assert seen.observation.update.n_images == total == len(seen.secret.image_ids)
    for name, tensor in seen.observation.update.tensors.items():
        mean = sum(u.n_images * u.tensors[name] for u in updates) / total
        torch.testing.assert_close(tensor, mean / 2)


def test_under_secure_aggregation_single_updates_are_not_observable(make_federation):
    with pytest.raises(NotApplicableError, match="secure aggregation"):
        first(make_federation(defense=Secure(NoConfig())), ObserveSpec())


def test_a_participant_sees_models_only(make_federation):
    participant = ThreatModel(position="participant")
    federation = make_federation(rounds=3)
    checkpoints = {c.round: c for c in [federation.initial(), *(c for c, _ in federation.run())]}
    target, seen = first(
        federation, ObserveSpec(kind="global_model", round=2), participant, checkpoints=checkpoints
    )
    part = federation.data.part("private")

    with pytest.raises(NotApplicableError, match="a participant sees global models"):
        first(federation, ObserveSpec(), participant)
    assert [view.round for view in seen.observation.history] == [0, 1, 2]
    assert all(view.update is None for view in seen.observation.history)
    assert seen.observation.sent is checkpoints[2].model
    assert seen.observation.clients == ()
    assert seen.secret.labels == (target.label,) * 8
    assert part.labels[part.positions(seen.secret.image_ids)].tolist() == [target.label] * 8


def test_the_rounds_of_a_model_history_may_be_chosen(make_federation):
    spec = ObserveSpec(kind="global_model", rounds=(3, 0))
    targets = candidates(make_federation(), spec)

    assert [t.label for t in targets] == [0, 1, 2]
    assert {t.rounds for t in targets} == {(0, 3)}
    assert targets[1].id == "label1"


def test_all_rounds_of_a_seed_draw_the_same_labels_in_the_same_order(make_data, make_federation):
    def drawn(seed, round_):
        federation = make_federation(data=make_data(images=40, classes=10), seed=seed, rounds=5)
        return [t.label for t in draw_targets(federation, ObserveSpec(kind="global_model", round=round_), 4)]

    orders = {tuple(drawn(seed, 0)) for seed in range(6)}
    assert len(orders) > 4
    for seed in range(6):
        assert drawn(seed, 0) == drawn(seed, 1) == drawn(seed, 5)


@pytest.mark.parametrize(
    ("algorithm", "observed", "ids"),
    [
        ("fedavg", {"round": 0}, ["round0-client2", "round0-client7"]),
        ("fedavg", {"round": 1}, ["round1-client7", "round1-client6"]),
        ("fedsgd", {"round": 0}, ["round0-client2-batch0", "round0-client6-batch0"]),
        ("fedsgd", {"round": 0, "kind": "aggregate", "clients": 2}, ["round0-set1", "round0-set3"]),
        ("fedsgd", {"round": 1, "kind": "aggregate", "clients": 2}, ["round1-set2", "round1-set0"]),
    ],
)
def test_each_round_draws_its_own_updates(algorithm, observed, ids, make_federation):
    """Which targets a seed draws, and how their streams are called, is part of every stored result."""
    federation = make_federation(clients=8, algorithm=algorithm)
    assert [target.id for target in draw_targets(federation, ObserveSpec(**observed), 2)] == ids


@pytest.mark.parametrize(("kind", "labels"), [("binary", [0, 1]), ("multilabel", [0, 1, 2])])
def test_labels_of_sigmoid_tasks(kind, labels, make_data, make_federation):
    data = make_data(kind=kind, classes=len(labels))
    federation = make_federation(data=data)
    targets = candidates(federation, ObserveSpec(kind="global_model"))
    seen = observe(federation, {0: federation.initial()}, targets[1], ThreatModel())
    update = first(federation, ObserveSpec(), knowing(labels="known"))[1]

    assert [t.label for t in targets] == labels
    part = data.part("private")
    rows = part.labels[part.positions(seen.secret.image_ids)]
    assert (rows[:, 1 if kind == "multilabel" else 0] == 1).all()
    known = update.observation.knowledge.labels.long()
    expected = known.flatten().tolist() if kind == "binary" else [tuple(row) for row in known.tolist()]
    assert list(update.secret.labels) == expected


class Blurred(Defense):
    """Client 0 darkens its images."""

    def for_client(self, context):
        class Client(ClientDefense):
            def perturb_batch(self, step, batch):
                return batch if context.client else replace(batch, images=batch.images / 2)

        return Client()


def test_protected_batches_go_beside_the_observation(make_federation):
    federation = make_federation(defense=Blurred(NoConfig()), clients=2)
    target, seen = first(federation, ObserveSpec(kind="aggregate", clients=2))
    part = federation.data.part("private")
    clean = part.images(part.positions(seen.secret.image_ids))

    assert target.clients == (0, 1)
    assert torch.equal(seen.protected[:4], clean[:4] / 2)
    assert torch.equal(seen.protected[4:], clean[4:])


@pytest.mark.parametrize(
    ("sizes", "options"),
    [([3, 40], {"local_steps": 2}), ([8, 40], {"local_steps": 1, "batch_size": 1, "batch_sizes": [8, 4]})],
)
def test_known_labels_tell_how_many_images_are_behind_a_mean_of_unlike_clients(
    sizes, options, make_data, make_federation
):
    partition = {"name": "sizes", "sizes": sizes}
    federation = make_federation(
        data=make_data(images=48), algorithm="fedavg", clients=2, partition=partition, **options
    )
    _, seen = first(federation, ObserveSpec(kind="aggregate", clients=2), knowing(labels="known"))

    assert seen.observation.n_images == len(seen.secret.image_ids) == len(seen.observation.knowledge.labels)


@pytest.mark.parametrize(
    ("sizes", "options", "told"),
    [
        ([10, 10], {"local_steps": 1, "batch_size": 1, "batch_sizes": [4, 2]}, 6),
        ([3, 3], {"local_steps": 2, "batch_size": 1, "batch_sizes": [4, 1]}, 5),  # 3 and 2 x 1
        ([24, 24], {"local_steps": 2, "batch_size": 4}, 16),
        ([8, 40], {"local_epochs": 1, "batch_size": 1, "batch_sizes": [1, 40]}, 48),
        ([8, 40], {"local_steps": 1, "batch_size": 1, "batch_sizes": [8, 4]}, 12),
        ([3, 40], {"local_steps": 2, "batch_size": 4}, 16),  # 3 + 8, but only 43 in all is known
    ],
)
def test_images_behind_a_mean_of_deltas_are_counted_from_what_is_known(
    sizes, options, told, make_data, make_federation
):
    partition = {"name": "sizes", "sizes": sizes}
    federation = make_federation(
        data=make_data(images=48), algorithm="fedavg", clients=2, partition=partition, **options
    )
    _, seen = first(federation, ObserveSpec(kind="aggregate", clients=2))
    behind = len(seen.secret.image_ids)

    assert seen.observation.n_images == told
    assert (told == behind) == (sizes != [3, 40])
    blind = knowing(local_hyperparameters=False)
    _, unknown = first(federation, ObserveSpec(kind="aggregate", clients=2), blind)
    assert unknown.observation.n_images == sum(sizes)
