"""Partitions are disjoint, complete, of known sizes, and functions of their stream."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.partition import assign
from fl.data.partition_bounds import smallest_client
from fl.errors import UsageError
from fl.seeds import Streams
from fl.specs import Dirichlet, Iid


def stream(seed=0):
    return Streams(seed).numpy("partition")


partitions = st.one_of(
    st.just(Iid()),
    st.builds(Dirichlet, alpha=st.floats(1e-3, 1e3, allow_subnormal=False), min_images=st.just(1)),
)


@settings(deadline=None)
@given(partitions, st.lists(st.integers(0, 6), min_size=1, max_size=200), st.data())
def test_clients_hold_everything_once_and_equally(partition, labels, data):
    clients = data.draw(st.integers(1, len(labels)))
    hands = assign(partition, labels, clients=clients, stream=stream(data.draw(st.integers(0, 99))))
    assert len(hands) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(hands)), np.arange(len(labels)))
    assert all((np.diff(hand) > 0).all() for hand in hands)
    sizes = [len(hand) for hand in hands]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) == smallest_client(partition, len(labels), clients) >= max(sizes) - 1


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(alpha=0.3)])
def test_equal_streams_deal_equally(partition):
    labels = np.arange(300) % 10
    first, again, other = (assign(partition, labels, clients=7, stream=stream(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def own_shares(alpha, *, clients=100, classes=10, images=200):
    """Class shares of each client, `clients x classes`, with every class as common as the others."""
    labels = np.arange(clients * images) % classes
    hands = assign(Dirichlet(alpha=alpha), labels, clients=clients, stream=stream())
    return np.stack([np.bincount(labels[hand], minlength=classes) for hand in hands]) / images


def test_dirichlet_spread_is_that_of_the_distribution():
    # a share of Dir(a, ..., a) over C classes has variance (1/C)(1 - 1/C) / (C a + 1); images add multinomial
    # noise, and classes that run out pull towards the mean a little
    classes, images = 10, 200
    for alpha in (0.5, 5.0):
        spread = (1 / classes) * (1 - 1 / classes) / (classes * alpha + 1)
        noise = (1 / classes) * (1 - 1 / classes) / images
        found = own_shares(alpha, classes=classes, images=images).var()
        assert found == pytest.approx(spread + noise, rel=0.3)


def test_large_alpha_is_alike_and_small_alpha_is_not():
    assert own_shares(1e4).max() < 0.25
    assert np.median(own_shares(0.01).max(axis=1)) > 0.8


def test_rare_classes_stay_rare_for_everyone():
    labels = np.repeat([0, 1], [990, 10])
    hands = assign(Dirichlet(alpha=1e4), labels, clients=10, stream=stream())
    assert max(int(labels[hand].sum()) for hand in hands) < 10


def test_binary_and_named_labels_are_classes():
    for labels in (torch.tensor([[0.0], [1.0]] * 10), np.array(["cat", "dog"] * 10)):
        hands = assign(Dirichlet(), labels, clients=4, stream=stream())
        assert sum(len(hand) for hand in hands) == 20


@pytest.mark.parametrize(
    ("partition", "images", "clients", "message"),
    [
        (Iid(), 3, 4, r"at least 4 private images for 4 clients \(1 each\), got 3"),
        (Dirichlet(min_images=5), 19, 4, r"at least 20 private images for 4 clients \(5 each\), got 19"),
        (Iid(), 0, 1, "got 0"),
    ],
)
def test_too_few_images_are_refused(partition, images, clients, message):
    with pytest.raises(UsageError, match=message):
        assign(partition, np.zeros(images, dtype=int), clients=clients, stream=stream())


def test_dirichlet_needs_one_class_per_image():
    with pytest.raises(UsageError, match="iid"):
        assign(Dirichlet(), torch.zeros(10, 3), clients=2, stream=stream())
    assert len(assign(Iid(), torch.zeros(10, 3), clients=2, stream=stream())) == 2
