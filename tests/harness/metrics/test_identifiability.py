"""k-IIP against scikit-learn's cosines and lots drawn for ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fl.errors import NotApplicableError
from harness.metrics.identifiability import iip, iip_1, iip_3, iip_5
from harness.metrics.pairs import Embedding, Gallery, Instruments, Pairs, Unavailable

NONE = Unavailable("none")


def flat(images):
    return images.flatten(1)


def vectors(*rows):
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), 1, 1, -1)


def look_up(gallery, clients, guess, ids, features=flat):
    names = tuple(f"g{k}" for k in range(len(gallery)))
    found = Gallery(names, gallery, clients)
    return Pairs(guess, guess, ids, Instruments(NONE, Embedding(features), found))


def by_brute_force(gallery, clients, guess, client, k):
    """Average over every order of the gallery, in which the first of those that tie comes first."""
    cosines = [
        round(float(np.dot(a, guess) / (np.linalg.norm(a) * np.linalg.norm(guess))), 9) for a in gallery
    ]
    shares = []
    for order in itertools.permutations(range(len(gallery))):
        nearest = sorted(order, key=lambda index: -cosines[index])[:k]
        shares.append(sum(clients[index] == client for index in nearest) / k)
    return np.mean(shares)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_it_is_what_drawing_lots_for_ties_gives_on_average(k):
    gallery = vectors([1, 0, 0], [2, 0, 0], [1, 1, 0], [0, 1, 0], [3, 3, 0], [0, 0, 1])
    clients = (0, 1, 0, 1, 1, 0)
    guess = vectors([1, 0.1, 0], [1, 1, 0.2], [0.1, 0, 1])
    pairs = look_up(gallery, clients, guess, ("g0", "g1", "g5"))
    expected = [
        by_brute_force(gallery.flatten(1).numpy(), clients, one, client, k)
        for one, client in zip(guess.flatten(1).numpy(), (0, 1, 0), strict=True)
    ]
    assert iip(pairs, k).tolist() == pytest.approx(expected)


def test_the_named_metrics_are_those_of_their_k():
    gallery = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    clients = tuple(k % 3 for k in range(12))
    pairs = look_up(gallery, clients, gallery[:3] + 0.3, ("g0", "g1", "g2"))
    for metric, k in ((iip_1, 1), (iip_3, 3), (iip_5, 5)):
        assert torch.equal(metric(pairs), iip(pairs, k))


def test_only_the_direction_of_features_counts():
    gallery = vectors([1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9])
    bright = look_up(gallery, (0, 1, 0, 1), vectors([0.01, 0.0]), ("g0",))
    assert iip(bright, 2).tolist() == [1]


def test_what_cannot_be_told_is_undefined():
    gallery, one = vectors([1, 0], [0, 1]), vectors([1, 0])
    assert iip(look_up(gallery, (0, 1), one, ("stranger",)), 1).isnan().all()
    assert iip(look_up(gallery, (0, 1), one, ("g0",)), 3).isnan().all()
    assert iip(look_up(gallery, (None, 1), one, ("g0",)), 1).isnan().all()
    assert iip(look_up(gallery, (0, 1), one, ("g0",), lambda x: flat(x) * torch.inf), 1).isnan().all()
    with pytest.raises(NotApplicableError, match="which client"):
        iip(look_up(gallery, (), one, ("g0",)), 1)
    with pytest.raises(NotApplicableError, match="none"):
        iip(Pairs(one, one, ("g0",), Instruments(NONE, NONE, NONE)), 1)
