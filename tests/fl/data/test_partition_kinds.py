"""Shards, whole patients, explicit sizes: against the definitions, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.partition import assign, shares_groups
from fl.data.partition_bounds import images_held, shortage, smallest_client
from fl.errors import UsageError
from fl.seeds import Streams
from fl.specs import ByPatient, Dirichlet, Iid, Shards, Sizes


def stream(seed=0):
    return Streams(seed).numpy("partition")


def deal(partition, labels, clients, *, groups=None, seed=0):
    return assign(partition, labels, clients=clients, stream=stream(seed), groups=groups)


def disjoint(hands):
    together = np.concatenate(hands)
    return len(set(together.tolist())) == len(together)


@settings(deadline=None)
@given(st.data())
def test_shards_hold_everything_once_and_the_bound_is_kept(data):
    shards, clients = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    images = data.draw(st.integers(shards * clients, 200))
    labels = data.draw(st.lists(st.integers(0, 5), min_size=images, max_size=images))
    hands = deal(Shards(shards=shards), labels, clients, seed=data.draw(st.integers(0, 9)))

    assert sorted(np.concatenate(hands).tolist()) == list(range(images))
    bound = smallest_client(Shards(shards=shards), images, clients)
    assert bound <= min(map(len, hands))
    assert max(map(len, hands)) <= bound + shards


def test_two_shards_of_ten_equal_classes_are_at_most_two_classes_and_not_always_the_same():
    """McMahan et al. 2017: 100 clients, 200 shards of one class each."""
    labels = np.arange(6000) % 10
    hands = deal(Shards(shards=2), labels, 100)
    kinds = [set(labels[hand]) for hand in hands]

    assert {len(hand) for hand in hands} == {60}
    assert max(map(len, kinds)) == 2
    assert len({frozenset(kind) for kind in kinds}) > 20
    assert not all(
        np.array_equal(a, b) for a, b in zip(hands, deal(Shards(), labels, 100, seed=1), strict=True)
    )


def test_sizes_are_those_asked_for_and_the_rest_belongs_to_nobody():
    sizes = (8, 32, 128, 1)
    hands = deal(Sizes(sizes=sizes), np.zeros(200, dtype=int), 4)

    assert tuple(map(len, hands)) == sizes
    assert disjoint(hands)
    assert images_held(Sizes(sizes=sizes), 200) == 169
    assert smallest_client(Sizes(sizes=sizes), 200, 4) == 1


def test_balanced_sizes_have_classes_that_differ_by_one():
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    sizes = (7, 30, 100, 1)
    hands = deal(Sizes(sizes=sizes, balanced=True), labels, 4)

    assert tuple(map(len, hands)) == sizes
    assert disjoint(hands)
    for hand in hands:
        counts = np.bincount(labels[hand], minlength=3)
        assert counts.max() - counts.min() <= 1


def test_a_class_that_runs_out_is_made_up_for_by_the_others():
    labels = np.repeat([0, 1], [3, 97])
    hands = deal(Sizes(sizes=(10, 50), balanced=True), labels, 2)

    assert np.bincount(labels[hands[0]]).tolist() == [3, 7]
    assert len(hands[1]) == 50


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.data())
def test_a_patient_belongs_to_one_client(members, data):
    groups = [f"p{member}" for member in members]
    distinct = len(set(groups))
    clients = data.draw(st.integers(1, distinct))
    hands = deal(
        ByPatient(), np.zeros(len(groups)), clients, groups=groups, seed=data.draw(st.integers(0, 9))
    )

    assert sorted(np.concatenate(hands).tolist()) == list(range(len(groups)))
    assert shares_groups(hands, groups) is False
    bound = smallest_client(ByPatient(), len(groups), clients, distinct)
    assert 1 == bound <= min(map(len, hands))
    largest = max(groups.count(group) for group in groups)
    assert max(map(len, hands)) - min(map(len, hands)) <= largest


def test_too_few_patients_are_spread_only_where_that_is_allowed():
    groups = ["a"] * 30 + ["b"] * 30 + ["c"] * 3
    with pytest.raises(UsageError, match=r"at least 5 patients for 5 clients, got 3.*allow_overlap: true"):
        deal(ByPatient(), np.zeros(63), 5, groups=groups)
    hands = deal(ByPatient(allow_overlap=True), np.zeros(63), 5, groups=groups)

    assert sorted(map(len, hands)) == [12, 12, 13, 13, 13]
    assert smallest_client(ByPatient(allow_overlap=True), 63, 5, 3) == 12
    assert disjoint(hands)
    assert shares_groups(hands, groups) is True
    per_client = [len({groups[i] for i in hand}) for hand in hands]
    assert sum(per_client) <= 5 + 2  # each of the two borders between patients cuts at most one client in two
    whole = deal(ByPatient(allow_overlap=True), np.zeros(63), 3, groups=groups)
    assert shares_groups(whole, groups) is False


def test_overlap_is_found_under_every_partition_and_unknown_without_groups():
    groups = [f"volume{i // 20}" for i in range(60)]
    hands = deal(Iid(), np.arange(60) % 3, 4, groups=groups)

    assert shares_groups(hands, groups) is True
    assert shares_groups(hands, None) is None
    assert shares_groups(deal(Iid(), np.zeros(60), 1, groups=groups), groups) is False
    assert shares_groups((np.array([0, 1]), np.array([2])), ["x", "x", "y"]) is False


@pytest.mark.parametrize(
    ("partition", "images", "clients", "groups", "message"),
    [
        (ByPatient(), 60, 2, None, "knows its patients"),
        (ByPatient(), 60, 3, 2, r"at least 3 patients for 3 clients, got 2"),
        (Sizes(sizes=(50, 20)), 60, 2, None, r"at least 70 private images for 2 clients, got 60"),
        (Shards(shards=3), 11, 4, None, r"at least 12 private images for 4 clients \(3 each\), got 11"),
        (Dirichlet(min_images=4), 11, 3, None, r"at least 12 private images"),
        (ByPatient(allow_overlap=True), 3, 4, 2, r"at least 4 private images for 4 clients"),
    ],
)
def test_what_cannot_be_dealt_is_refused_before_and_while_dealing(
    partition, images, clients, groups, message
):
    names = None if groups is None else [f"p{i % groups}" for i in range(images)]
    reason = shortage(partition, images, clients, groups)

    assert reason is not None
    with pytest.raises(UsageError, match=message):
        deal(partition, np.zeros(images, dtype=int), clients, groups=names)
    with pytest.raises(UsageError) as raised:
        deal(partition, np.zeros(images, dtype=int), clients, groups=names)
    assert str(raised.value) == reason


@pytest.mark.parametrize("partition", [Shards(), Sizes(sizes=(4, 4), balanced=True)])
def test_classes_are_needed_where_they_are_dealt(partition):
    with pytest.raises(UsageError, match="use partition: iid"):
        deal(partition, torch.zeros(10, 3), 2)
    assert len(deal(partition, torch.tensor([[0.0], [1.0]] * 5), 2)) == 2
