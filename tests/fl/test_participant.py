"""Clients that attack: what they hold, when they take part, and what is a target for them."""

import json

import pytest
import torch
from pydantic import ValidationError

from defenses.base import Defense
from fl.batch_bounds import smallest_batch
from fl.candidate_bounds import most_candidates
from fl.hooks import PrivacySpent
from fl.observe import draw_targets, observe
from fl.seeds import Streams
from fl.server import draw_participants
from fl.specs import ByPatient, FederationSpec, NoConfig, ObserveSpec, Sizes, ThreatModel
from fl.targets import candidates

ATTACKER = {"labels": [2, 3], "others": [0, 1, 2]}
PARTICIPANT = ThreatModel(position="participant")
LAST = ObserveSpec(kind="global_model", round=1)


@pytest.fixture
def four_classes(make_data):
    """80 private images of four classes."""
    return make_data(images=80, classes=4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attacker": {"labels": []}}, "at least 1 item"),
        ({"attacker": {}}, "Field required"),
        ({"attacker": {"labels": [1], "others": []}}, "at least 1 item"),
        ({"attacker": {"labels": [-1]}}, "classes of 0 or more, got -1"),
        ({"attacker": {"labels": [1], "clients": 0}}, "greater than or equal to 1"),
        ({"attacker": {"labels": [1], "clients": 4}}, r"fewer than 4 clients in attacker\.clients, got 4"),
        ({"attacker": {"labels": [1]}, "partition": ByPatient()}, "iid, dirichlet, shards or sizes"),
        (
            {"attacker": {"labels": [1]}, "partition": Sizes(sizes=(1, 1, 1))},
            r"partition\.sizes for each of 4 clients, got 3",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        FederationSpec(clients=4, **fields)


def test_label_spaces_are_sets():
    one, other = (FederationSpec(attacker={"labels": labels}) for labels in ([7, 5, 5], [5, 7]))

    assert one.canonical == other.canonical
    assert json.loads(one.canonical)["attacker"] == {"clients": 1, "labels": [5, 7], "others": None}
    assert FederationSpec.model_validate_json(one.canonical) == one


@pytest.mark.parametrize(
    ("clients", "participation", "attackers", "together"),
    [(10, 0.3, 1, 3), (10, 0.3, 2, 3), (10, 0.3, 4, 5), (10, 1.0, 9, 10), (100, 0.001, 1, 2)],
)
def test_attackers_never_miss_a_round_and_are_never_alone(clients, participation, attackers, together):
    attacker = {"clients": attackers, "labels": [0]}
    spec = FederationSpec(clients=clients, participation=participation, attacker=attacker)
    draws = [draw_participants(spec, Streams(3), round_) for round_ in range(200)]

    assert spec.participants == together
    assert all(list(d) == sorted(set(d)) and len(d) == together for d in draws)
    assert all(d[:attackers] == tuple(range(attackers)) for d in draws)
    others = [client for d in draws for client in d[attackers:]]
    assert set(others) <= set(range(attackers, clients))
    if together < clients <= 10:
        shares = [others.count(client) / 200 for client in range(attackers, clients)]
        assert shares == pytest.approx([spec.participation_of(clients - 1)] * len(shares), abs=0.12)


def test_shares_of_rounds():
    spec = FederationSpec(clients=10, participation=0.4, attacker={"clients": 2, "labels": [0]})

    assert [spec.participation_of(client) for client in (0, 1, 2, 9)] == [1.0, 1.0, 0.25, 0.25]
    assert FederationSpec(clients=10, participation=0.25).participation_of(3) == 0.25


def test_targets_are_the_classes_of_others_and_secrets_their_images(four_classes, make_federation):
    federation = make_federation(
        data=four_classes, algorithm="fedavg", rounds=1, clients=4, attacker=ATTACKER
    )
    start = federation.initial()
    ((end, _),) = federation.run()
    found = candidates(federation, LAST)
    part = four_classes.part("private")

    assert [target.label for target in found] == [0, 1, 2]
    held = {part.ids[position] for client in (1, 2, 3) for position in federation._held[client].tolist()}
    for target in draw_targets(federation, LAST, 3):
        seen = observe(federation, {0: start, 1: end}, target, PARTICIPANT)
        expected = {i for i, label in zip(part.ids, part.labels, strict=True) if label == target.label} & held
        assert set(seen.secret.image_ids) == expected
        assert set(seen.secret.labels) == {target.label}
    (shared,) = (t for t in found if t.label == 2)
    seen = observe(federation, {0: start, 1: end}, shared, PARTICIPANT)
    assert len(seen.secret.image_ids) == 15  # a quarter of the class is the attacker's


def test_an_attacker_trains_like_everybody(four_classes, make_federation):
    federation = make_federation(
        data=four_classes, algorithm="fedavg", rounds=1, clients=4, participation=0.5, attacker=ATTACKER
    )
    start = federation.initial()
    ((end, record),) = federation.run()
    first, other = federation.participants(0)
    updates = [federation.client_update(start, client).update for client in (first, other)]

    assert first == 0
    assert record.participants == 2
    weights = [update.n_images for update in updates]
    for name, tensor in end.model.tensors.items():
        mean = sum(w * u.tensors[name] for w, u in zip(weights, updates, strict=True)) / sum(weights)
        torch.testing.assert_close(tensor, start.model.tensors[name] + mean)


class Accounting(Defense):
    """Its guarantee tells whom it is for."""

    def guarantee(self, context):
        return PrivacySpent(context.participation, 0.0, str(context.client), "example")


def test_a_guarantee_is_for_those_who_are_attacked(four_classes, make_federation):
    spec = {"rounds": 1, "clients": 5, "participation": 0.6, "attacker": ATTACKER}
    federation = make_federation(data=four_classes, defense=Accounting(NoConfig()), **spec)
    ((_, record),) = federation.run()

    assert record.privacy.epsilon == 0.5
    assert record.privacy.unit == "1"


def test_bounds_hold(make_info):
    spec = FederationSpec(clients=4, attacker=ATTACKER)
    bounds = {"images_private": 80, "labels": 4}
    free = FederationSpec(clients=4, attacker={"labels": [3]})

    assert most_candidates(spec, LAST, **bounds) == 3
    assert most_candidates(free, LAST, **bounds) == most_candidates(FederationSpec(), LAST, **bounds) == 4
    info, sizes = make_info(images=80), Sizes(sizes=(3, 5, 6, 7))
    known = spec.model_copy(update={"partition": sizes, "batch_size": 4, "algorithm": "fedavg"})
    assert smallest_batch(spec, info, trained=4) is None  # classes may be of any size
    assert smallest_batch(known, info, trained=4) == 1
    assert smallest_batch(FederationSpec(clients=4), info, trained=4) == 1


def test_the_number_of_targets_is_never_underestimated(four_classes, make_federation):
    for attacker in (ATTACKER, {"labels": [0, 1, 2, 3]}, {"labels": [0], "others": [1, 2]}):
        federation = make_federation(data=four_classes, attacker=attacker, batch_size=3, participation=0.5)
        for observe_spec in (LAST, ObserveSpec(), ObserveSpec(kind="aggregate", clients=2)):
            bound = most_candidates(federation.spec, observe_spec, images_private=80, labels=4)
            assert len(candidates(federation, observe_spec)) <= bound
