"""What an evaluator measures of model inversion, against brute force, scipy and cases known by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from fl.errors import NotApplicableError
from harness.metrics import METRICS, inversion_coverage
from harness.metrics.inversion import Inversion, Views
from harness.metrics.inversion_accuracy import attack_top1, attack_top5, hits
from harness.metrics.inversion_coverage import coverage, density, precision, recall
from harness.metrics.inversion_distance import centre_distance, knn_distance, pairwise_distance
from harness.metrics.inversion_frechet import evaluator_fid, frechet_distance

CLASSES = 8


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def views(features, labels, probabilities=None):
    labels = torch.as_tensor(labels)
    if probabilities is None:
        probabilities = torch.nn.functional.one_hot(labels, CLASSES).double()
    return Views(labels, torch.as_tensor(features, dtype=torch.float64), probabilities)


def inversion(made, real, images=None, finite=None):
    images = torch.zeros(len(made), 1, 2, 2) if images is None else images
    finite = torch.ones(len(made), dtype=torch.bool) if finite is None else finite
    return Inversion(images, finite, made, real)


def sets(n=30, m=50, d=6, gap=0.5):
    made, real = draw(n, d, seed=1) + gap, draw(m, d, seed=2)
    return inversion(views(made, torch.arange(n) % 3), views(real, torch.arange(m) % 3))


def of_features(one, other):
    return inversion(views(one, [0] * len(one)), views(other, [0] * len(other)))


# accuracy


def test_accuracy_by_hand():
    probabilities = torch.tensor(
        [
            [0.30, 0.20, 0.15, 0.12, 0.10, 0.06, 0.04, 0.03],
            [0.30, 0.20, 0.15, 0.12, 0.10, 0.06, 0.04, 0.03],
            [0.30, 0.20, 0.15, 0.12, 0.10, 0.06, 0.04, 0.03],
            [0.30, 0.20, 0.15, 0.12, 0.10, 0.06, 0.04, 0.03],
        ]
    ).double()
    made = views(draw(4, 2), [0, 4, 5, 0], probabilities)
    finite = torch.tensor([True, True, True, False])
    found = inversion(made, made, finite=finite)
    assert hits(found).tolist() == [True, False, False, False]
    assert attack_top1(found) == 1 / 4
    assert attack_top5(found) == 2 / 4


def test_top5_of_five_classes_says_nothing():
    made = views(draw(4, 2), [0, 1, 2, 3], torch.full((4, 5), 0.2).double())
    with pytest.raises(NotApplicableError, match="of 5 classes"):
        attack_top5(inversion(made, made))


# distances


def test_distances_by_hand():
    made = views([[0.0, 0.0], [1.0, 1.0], [9.0, 0.0]], [0, 0, 1])
    real = views([[0.0, 2.0], [3.0, 0.0], [0.1, 0.1], [9.0, 1.0]], [0, 0, 1, 1])
    found = inversion(made, real)
    # class 0: nearest of (0,2) and (3,0); class 1: (9,1), although (0.1,0.1) is nearer to the first two
    assert knn_distance(found) == pytest.approx((4 + 2 + 1) / 3)
    centre, other = (1.5, 1.0), (4.55, 0.55)
    expected = [
        1.5**2 + 1.0**2,
        (1 - centre[0]) ** 2 + (1 - centre[1]) ** 2,
        (9 - other[0]) ** 2 + (0 - other[1]) ** 2,
    ]
    assert centre_distance(found) == pytest.approx(np.mean(expected))


def test_distances_against_brute_force():
    found = sets()
    made, real = found.made, found.real
    nearest, centres = [], []
    for features, label in zip(made.features.numpy(), made.labels.tolist(), strict=True):
        own = real.features.numpy()[(real.labels == label).numpy()]
        nearest.append(min(((features - one) ** 2).sum() for one in own))
        centres.append(((features - own.mean(0)) ** 2).sum())
    assert knn_distance(found) == pytest.approx(np.mean(nearest), rel=1e-12)
    assert centre_distance(found) == pytest.approx(np.mean(centres), rel=1e-12)


def test_pairwise_distance_by_hand():
    images = torch.zeros(6, 1, 2, 2)
    images[1] = 0.5  # class 0: 0 and 0.5
    images[3, 0, 0, 0] = 1.0  # class 1: 0, one pixel of four, 1
    images[4] = 1.0
    made = views(draw(6, 2), [0, 0, 1, 1, 1, 2])
    one_pixel, all_but_one, whole = 0.25**0.5, 0.75**0.5, 1.0
    expected = (0.5 + (one_pixel + whole + all_but_one) / 3) / 2  # class 2 has one image
    assert pairwise_distance(inversion(made, made, images)) == pytest.approx(expected)
    without = torch.tensor([True, True, True, True, False, True])
    expected = (0.5 + one_pixel) / 2
    assert pairwise_distance(inversion(made, made, images, without)) == pytest.approx(expected)


def test_one_image_of_each_class_has_no_pairwise_distance():
    made = views(draw(3, 2), [0, 1, 2])
    with pytest.raises(NotApplicableError, match="no class has two"):
        pairwise_distance(inversion(made, made))


# Fréchet distance


def textbook(one, other):
    """Heusel et al. 2017, equation 6, with scipy's root of the product of covariances."""
    covariances = [np.cov(vectors.T) for vectors in (one, other)]
    root = sqrtm(covariances[0] @ covariances[1])
    return ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(
        covariances[0] + covariances[1] - 2 * root.real
    )


@pytest.mark.parametrize(("n", "m", "d"), [(60, 80, 6), (300, 40, 12), (25, 25, 20)])
def test_frechet_distance_of_full_rank(n, m, d):
    one, other = draw(n, d, seed=3) @ draw(d, d, seed=4), 0.7 * draw(m, d, seed=5) + 1
    assert frechet_distance(one, other) == pytest.approx(textbook(one.numpy(), other.numpy()), rel=1e-8)


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(2, 40), st.integers(0, 10**6))
def test_frechet_distance_of_few_vectors_by_eigenvalues(n, m, seed):
    one, other = draw(n, 10, seed=seed), draw(m, 10, seed=seed + 1) + 0.3
    a, b = (torch.cov(vectors.T) for vectors in (one, other))
    # the root of one, and the eigenvalues of root . other . root, which is symmetric
    values, basis = torch.linalg.eigh(a)
    root = basis @ torch.diag(values.clamp_min(0).sqrt()) @ basis.T
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    means = (one.mean(0) - other.mean(0)).square().sum()
    expected = float(means + a.trace() + b.trace() - 2 * shared)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_frechet_distance_of_a_set_to_itself_and_to_a_shifted_copy():
    one = draw(7, 20)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one.flip(0)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(4 * 20)
    assert frechet_distance(one, 3 * one - 2 * one.mean(0)) == pytest.approx(
        4 * float(torch.cov(one.T).trace())
    )


def test_a_gaussian_needs_two_images():
    with pytest.raises(NotApplicableError, match="at least two"):
        evaluator_fid(of_features(draw(1, 3), draw(9, 3)))


# precision, recall, density, coverage


def brute_force(made, real, k):
    """Definitions of Kynkäänniemi et al. 2019 and Naeem et al. 2020, ball by ball."""
    made, real = made.numpy(), real.numpy()
    reach_of = {}
    for name, side in (("made", made), ("real", real)):
        distances = cdist(side, side)
        reach_of[name] = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(distances)]
    between = cdist(real, made)
    inside_real = [[between[i, j] <= reach_of["real"][i] for j in range(len(made))] for i in range(len(real))]
    inside_made = [[between[i, j] <= reach_of["made"][j] for j in range(len(made))] for i in range(len(real))]
    inside_real, inside_made = np.array(inside_real), np.array(inside_made)
    return {
        "precision": inside_real.any(0).mean(),
        "recall": inside_made.any(1).mean(),
        "density": inside_real.sum() / (k * len(made)),
        "coverage": inside_real.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(30, 50, 5), (50, 7, 5), (4, 40, 3), (2, 2, 1), (40, 6, 5)])
@pytest.mark.parametrize("gap", [0.0, 0.8])
def test_overlap_against_brute_force(n, m, k, gap, monkeypatch):
    monkeypatch.setattr(inversion_coverage, "ROWS", 16)
    found = sets(n, m, gap=gap)
    expected = brute_force(found.made.features, found.real.features, k)
    for metric in (precision, recall, density, coverage):
        assert metric(found) == pytest.approx(expected[metric.__name__], abs=1e-12), metric.__name__


def test_a_set_overlaps_itself():
    found = of_features(draw(20, 4), draw(20, 4))
    assert (precision(found), recall(found), coverage(found)) == (1.0, 1.0, 1.0)
    # each is within its own ball, and every ball holds its k others besides
    assert density(found) == pytest.approx((5 + 1) / 5)


def test_far_sets_do_not_overlap():
    found = of_features(draw(20, 4) + 100, draw(20, 4))
    assert [metric(found) for metric in (precision, recall, density, coverage)] == [0, 0, 0, 0]


def test_one_image_made_many_times_is_precise_and_covers_little():
    real = draw(50, 4, seed=9)
    found = of_features(real[:1].expand(50, 4), real)
    assert precision(found) == 1
    assert recall(found) == 1 / 50  # balls of equal images hold nothing but themselves
    assert coverage(found) < 0.3


def test_overlap_needs_two_images_on_either_side():
    for one, other in ((1, 9), (9, 1)):
        for metric in (precision, recall, density, coverage):
            with pytest.raises(NotApplicableError, match="at least two"):
                metric(of_features(draw(one, 3), draw(other, 3)))


# directions


def test_recall_falls_with_the_spread_of_what_was_made():
    real, made = draw(60, 4, seed=21), draw(60, 4, seed=22)
    values = [recall(of_features(spread * made, real)) for spread in (1.0, 0.6, 0.3, 0.1)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5 > values[-1]


# single outliers enlarge the balls that recall counts by (Naeem et al. 2020, section 2)
LADDER = [card.name for card in METRICS if card.evaluated and card.name != "recall"]


@pytest.mark.parametrize("name", LADDER)
def test_directions_along_a_ladder_from_real_images_to_noise(name):
    """Ever more of the images are noise, taken for class 7, and ever more alike."""
    n, card = 60, METRICS.get(name)
    labels = torch.arange(n) % 3
    centres = 4 * draw(3, 5, seed=11)
    real = views(centres[labels] + draw(n, 5, seed=12), labels)
    pixels = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(13))
    values = []
    for spoilt in (0, 15, 30, 45, 60):
        features = centres[labels] + draw(n, 5, seed=14)
        features[:spoilt] = 12 + 0.1 * draw(spoilt, 5, seed=15)
        named = labels.clone()
        named[:spoilt] = 7
        probabilities = torch.nn.functional.one_hot(named, CLASSES).double()
        probabilities += torch.linspace(0.05, 0.0, CLASSES).flip(0)  # the classes attacked come last
        images = pixels.clone()
        images[:spoilt] = 0.5
        made = views(features, labels, probabilities / probabilities.sum(1, keepdim=True))
        values.append(METRICS.implementation(name)(inversion(made, real, images)))
    falling = values if card.leaks_more == "higher" else [-value for value in values]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > falling[-1]
    for value in values:
        assert card.lower <= value <= (float("inf") if card.upper is None else card.upper)
