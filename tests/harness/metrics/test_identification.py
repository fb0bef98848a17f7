import numpy as np
import pytest
import torch

from fl.errors import NotApplicableError
from harness.metrics.identification import GALLERY_SIZE, draw_gallery, identification_top1
from harness.metrics.pairs import Gallery, Instruments, Pairs, Unavailable


def draw(n, *, seed):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def identified(truth_ids, guess, gallery_ids, gallery):
    none = Unavailable("none")
    instruments = Instruments(none, none, Gallery(tuple(gallery_ids), gallery))
    return identification_top1(Pairs(guess, guess, tuple(truth_ids), instruments)).tolist()


def test_the_image_itself_is_identified_and_a_strangers_is_not():
    gallery = draw(20, seed=0)
    ids = [f"i{k}" for k in range(20)]
    assert identified(ids, gallery, ids, gallery) == [1.0] * 20
    assert identified(ids, gallery.roll(1, dims=0), ids, gallery) == [0.0] * 20


def test_agrees_with_a_nearest_neighbour_search():
    gallery, guess = draw(30, seed=1), draw(30, seed=2)
    ids = [f"i{k}" for k in range(30)]
    nearest = [int(np.argmin([np.mean((g - x).numpy().astype(float) ** 2) for x in gallery])) for g in guess]
    assert identified(ids, guess, ids, gallery) == [float(nearest[k] == k) for k in range(30)]


def test_ties_share_one_hit():
    gallery = torch.stack([torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    ids = ["a", "twin", "b"]
    assert identified(["a"], gallery[:1], ids, gallery) == [0.5]
    assert identified(["b"], gallery[:1], ids, gallery) == [0.0]


def test_an_image_outside_the_gallery_has_no_value():
    gallery = draw(3, seed=3)
    values = identified(["elsewhere", "a"], gallery[:2], ["x", "a", "y"], gallery)
    assert np.isnan(values[0])
    assert values[1] == 1.0


def test_without_a_gallery_there_is_a_reason(make_pairs):
    images = draw(1, seed=4)
    with pytest.raises(NotApplicableError, match="none"):
        identification_top1(make_pairs(images, images))


def test_gallery_holds_the_targets_and_strangers():
    private = [f"p{k}" for k in range(500)]
    gallery = draw_gallery(private, ["p400", "p7"], np.random.default_rng(0))
    assert len(set(gallery)) == GALLERY_SIZE
    assert {"p400", "p7"} <= set(gallery) <= set(private)
    assert gallery == draw_gallery(private, ["p7", "p400"], np.random.default_rng(0))
    assert gallery != draw_gallery(private, ["p400", "p7"], np.random.default_rng(1))


def test_trials_of_a_seed_meet_the_same_strangers():
    private = [f"p{k}" for k in range(500)]
    one, two = (
        set(draw_gallery(private, targets, np.random.default_rng(0))) for targets in (["p1"], ["p2", "p3"])
    )
    assert len(one & two) >= GALLERY_SIZE - 3


def test_gallery_of_a_small_or_a_crowded_federation():
    private = [f"p{k}" for k in range(30)]
    assert set(draw_gallery(private, private[:2], np.random.default_rng(0))) == set(private)
    crowd = [f"p{k}" for k in range(300)]
    assert set(draw_gallery(crowd, crowd[:200], np.random.default_rng(0))) == set(crowd[:200])
