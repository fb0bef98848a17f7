"""Attackers and others get images of their own classes; shared ones are divided by the number of clients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data import Part
from fl.data.partition import assign
from fl.data.partition_sides import deal
from fl.errors import UsageError
from fl.seeds import Streams
from fl.specs import Dirichlet, FederationSpec, Iid, Shards, Sizes, Task


def stream(seed=0):
    return Streams(seed).numpy("partition")


def part(labels):
    ids = tuple(map(str, range(len(labels))))
    return Part(ids, torch.as_tensor(labels), None, lambda chosen: torch.zeros(len(chosen), 1, 1, 1))


def hands_of(labels, *, seed=0, classes=10, **spec):
    return deal(FederationSpec(**spec), part(labels), task=Task("multiclass", classes), stream=stream(seed))


def images_of(labels, classes):
    return {i for i, label in enumerate(labels) if label in classes}


label_lists = st.lists(st.integers(0, 5), min_size=60, max_size=150)
label_sets = st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(label_lists, label_sets, st.one_of(st.none(), label_sets), st.integers(1, 3), st.data())
def test_every_image_goes_where_its_class_says(labels, own, others, attackers, data):
    clients = data.draw(st.integers(attackers + 1, 6))
    attacker = {"clients": attackers, "labels": own, "others": others}
    rest = set(range(6)) if others is None else set(others)
    shared = images_of(labels, set(own) & rest)
    only_own, only_rest = images_of(labels, set(own) - rest), images_of(labels, rest - set(own))
    try:
        hands = hands_of(labels, clients=clients, attacker=attacker, classes=6)
    except UsageError as error:
        assert "of the classes of the" in str(error)  # noqa: PT017  a side without enough images
        return

    assert len(hands) == clients
    assert all((np.diff(hand) > 0).all() for hand in hands)
    mine = set(np.concatenate(hands[:attackers]).tolist())
    theirs = set(np.concatenate(hands[attackers:]).tolist())
    assert sum(map(len, hands)) == len(mine) + len(theirs)
    assert mine & theirs == set()
    assert only_own <= mine <= only_own | shared
    assert only_rest <= theirs <= only_rest | shared
    assert mine | theirs == only_own | only_rest | shared
    assert abs(len(mine & shared) - len(shared) * attackers / clients) <= 0.5


def test_shared_classes_are_divided_at_random_over_all_of_them():
    labels = np.arange(4000) % 4
    attacker = {"labels": [0, 1, 2, 3]}
    (hand, *_) = hands_of(labels, clients=10, attacker=attacker)
    counts = np.bincount(labels[hand], minlength=4)

    assert counts.sum() == 400
    assert ((counts > 70) & (counts < 130)).all()  # hypergeometric, standard deviation 8.2
    assert len(set(counts.tolist())) > 1


def test_each_side_is_dealt_by_the_partition_among_its_clients():
    labels = np.arange(3000) % 10
    spec = {"clients": 6, "attacker": {"clients": 2, "labels": [5, 6, 7, 8, 9], "others": [0, 1, 2, 3, 4]}}
    even = hands_of(labels, **spec)
    shards = hands_of(labels, **spec, partition=Shards(shards=2))
    sizes = hands_of(labels, **spec, partition=Sizes(sizes=(3, 4, 5, 6, 7, 8)))

    assert [len(hand) for hand in even] == [750, 750, 375, 375, 375, 375]
    assert max(len(set(labels[hand])) for hand in shards[2:]) < 5
    assert [len(hand) for hand in sizes] == [3, 4, 5, 6, 7, 8]
    for hands in (even, shards, sizes):
        for client, hand in enumerate(hands):
            assert set(labels[hand]) <= ({5, 6, 7, 8, 9} if client < 2 else {0, 1, 2, 3, 4})


def test_equal_streams_deal_equally():
    labels = np.arange(500) % 10
    spec = {"clients": 5, "attacker": {"labels": [3, 4, 5], "others": [0, 1, 2, 3, 4]}}
    for partition in (Iid(), Dirichlet(alpha=0.3), Shards()):
        first, again, other = (hands_of(labels, **spec, partition=partition, seed=s) for s in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(), Shards(), Sizes(sizes=(5,) * 7)])
def test_without_an_attacker_nothing_changes(partition):
    labels = np.arange(300) % 10
    dealt = hands_of(labels, clients=7, partition=partition)
    plain = assign(partition, labels, clients=7, stream=stream())

    assert all(np.array_equal(a, b) for a, b in zip(dealt, plain, strict=True))


@pytest.mark.parametrize(
    ("attacker", "task", "message"),
    [
        (
            {"labels": [10]},
            Task("multiclass", 10),
            r"classes of 0 to 9 in federation\.attacker\.labels, got 10",
        ),
        ({"labels": [1], "others": [0, 12]}, Task("multiclass", 10), r"attacker\.others, got 12"),
        ({"labels": [1]}, Task("binary", 2), "expected a multiclass data set"),
        ({"labels": [1]}, Task("multilabel", 4), "expected a multiclass data set"),
        ({"labels": [1], "others": [8]}, Task("multiclass", 10), "of the classes of the others, .* got 0"),
        (
            {"labels": [9], "others": [0, 1]},
            Task("multiclass", 10),
            "of the classes of the attackers, .* got 0",
        ),
    ],
)
def test_what_cannot_be_dealt_is_told(attacker, task, message):
    spec = FederationSpec(clients=4, attacker=attacker)
    with pytest.raises(UsageError, match=message):
        deal(spec, part(np.arange(80) % 8 * (np.arange(80) % 2)), task=task, stream=stream())
