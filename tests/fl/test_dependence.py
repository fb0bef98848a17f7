"""Measures of dependence against their definitions, written out in numpy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.dependence import (
    ESTIMATORS,
    RIDGE,
    cka,
    kernel_matrix,
    largest_eigenvalue,
    median_rule,
    released_coco,
    released_hsic,
    spectral_coco,
    unbiased_hsic,
)
from fl.seeds import Streams

NAMES = sorted(ESTIMATORS)


def draws(n, *dimensions, seed=0):
    stream = Streams(seed).torch("draws")
    return [torch.randn(n, d, generator=stream, dtype=torch.float64) for d in dimensions]


def gaussian_by_hand(values, bandwidth):
    n, d = values.shape
    return np.array(
        [
            [np.exp(-((values[i] - values[j]) ** 2).sum() / (2 * bandwidth**2 * d)) for j in range(n)]
            for i in range(n)
        ]
    )


def kernels(n=6, *, seed=0):
    """Two Gaussian kernel matrices of independent draws, as numpy has them."""
    a, b = (x.numpy() for x in draws(n, 3, 4, seed=seed))
    return gaussian_by_hand(a, 1.0), gaussian_by_hand(b, 0.7)


def measured(measure, first, second):
    return float(measure(torch.from_numpy(first), torch.from_numpy(second)))


def centring(n):
    return np.eye(n) - np.ones((n, n)) / n


@pytest.mark.parametrize("bandwidth", [0.5, 5.0])
def test_gaussian_kernels_divide_squared_distances_by_the_dimension(bandwidth):
    (values,) = draws(5, 7)
    found = kernel_matrix(values.reshape(5, 1, 7), "gaussian", bandwidth)
    np.testing.assert_allclose(found.numpy(), gaussian_by_hand(values.numpy(), bandwidth), rtol=1e-12)


def test_linear_kernels_are_products_up_to_a_shift():
    (values,) = draws(5, 3)
    values = values + 10
    h = centring(5)
    found = kernel_matrix(values, "linear", 5.0).numpy()
    np.testing.assert_allclose(found, h @ (values @ values.T).numpy() @ h, atol=1e-10)


def test_imq_kernels_fall_with_the_squared_distance():
    (values,) = draws(4, 3)
    found = kernel_matrix(values, "imq", 5.0).numpy()
    expected = [[1 / np.sqrt(((a - b) ** 2).sum() + 1) for b in values.numpy()] for a in values.numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_median_is_that_of_the_batch_and_its_copy():
    for n, seed in ((4, 0), (5, 1), (2, 2)):
        values = draws(n, 3, seed=seed)[0].numpy()
        twice = np.concatenate([values, values])
        pairs = [((a - b) ** 2).sum() for a, b in itertools.combinations(twice, 2)]
        found = kernel_matrix(torch.from_numpy(values), "gaussian", 0.0).numpy()
        median = np.median(pairs)
        expected = [[np.exp(-((a - b) ** 2).sum() / (2 * median**2)) for b in values] for a in values]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_median_rule_falls_back_to_the_mean_and_to_a_smallest_value():
    apart = torch.zeros(4, 4, dtype=torch.float64)
    apart[3, :3] = apart[:3, 3] = 8.0  # 12 pairs of 28 are 8
    assert float(median_rule(apart)) == pytest.approx(12 * 8 / 28)
    assert float(median_rule(torch.zeros(3, 3, dtype=torch.float64))) == 0.01


@pytest.mark.parametrize("n", [2, 6])
def test_released_hsic_is_that_of_kernels_centred_on_one_side(n):
    first, second = kernels(n)
    products = []
    for kernel in (first, second):
        one_sided = kernel @ centring(n)
        products.append(one_sided @ np.linalg.inv(one_sided + RIDGE * n * np.eye(n)))
    expected = np.trace(products[0] @ products[1])
    assert measured(released_hsic, first, second) == pytest.approx(expected, rel=1e-8)
    assert 0 < expected < n - 1


def test_released_coco_has_the_frobenius_norm():
    first, second = kernels()
    h = centring(6)
    product = h @ first @ h @ h @ second @ h
    expected = np.sqrt(np.sqrt((product**2).sum())) / 6
    assert measured(released_coco, first, second) == pytest.approx(expected)
    assert measured(spectral_coco, first, second) <= expected


def test_coco_of_linear_kernels_is_the_largest_singular_value_of_the_cross_covariance():
    a, b = draws(7, 3, 2)
    covariance = (a - a.mean(0)).T @ (b - b.mean(0)) / 7
    expected = np.linalg.svd(covariance.numpy(), compute_uv=False)[0]
    found = spectral_coco(kernel_matrix(a, "linear", 1.0), kernel_matrix(b, "linear", 1.0))
    assert float(found) == pytest.approx(expected)


def test_coco_of_gaussian_kernels_is_the_largest_covariance_of_functions_of_norm_1():
    """Functions are combinations of kernels at the images; the best of them solve an eigenproblem."""
    first, second = kernels()
    n, h = len(first), centring(6)
    found = measured(spectral_coco, first, second)
    kc, lc = h @ first @ h, h @ second @ h
    generator = np.random.default_rng(0)
    best = 0.0
    c = generator.standard_normal(n)
    for _ in range(200):  # alternate: the best d for c is c itself, as functions' values
        c /= np.sqrt(c @ kc @ c)
        d = kc @ c
        d /= np.sqrt(d @ lc @ d)
        best = c @ kc @ lc @ d / n
        c = lc @ d
    assert found == pytest.approx(best, rel=1e-6)
    for _ in range(50):
        c, d = generator.standard_normal((2, n))
        covariance = abs(c @ kc @ lc @ d) / n
        assert covariance / np.sqrt((c @ kc @ c) * (d @ lc @ d)) <= found + 1e-12


def test_unbiased_hsic_is_the_mean_over_all_tuples_of_distinct_images():
    first, second = kernels()
    by_definition = np.mean(
        [
            first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])
            for i, j, q, r in itertools.permutations(range(6), 4)
        ]
    )
    assert measured(unbiased_hsic, first, second) == pytest.approx(by_definition, rel=1e-9)


def test_unbiased_hsic_does_not_change_where_the_origin_is():
    a, b = draws(6, 3, 2)
    moved = (a + 5) @ (a + 5).T
    expected = unbiased_hsic(moved, b @ b.T)
    found = unbiased_hsic(kernel_matrix(a, "linear", 1.0), kernel_matrix(b, "linear", 1.0))
    torch.testing.assert_close(found, expected)


def test_of_independent_draws_only_the_unbiased_estimate_is_zero_on_average():
    a, b = draws(1600, 2, 2, seed=3)
    h, estimates = centring(8), {"unbiased": [], "biased": []}
    for batch in range(0, 1600, 8):
        k, l_ = (kernel_matrix(x[batch : batch + 8], "gaussian", 0.7) for x in (a, b))
        estimates["unbiased"].append(float(unbiased_hsic(k, l_)))
        estimates["biased"].append(np.trace(k.numpy() @ h @ l_.numpy() @ h) / 49)
    errors = {name: np.mean(values) / np.std(values) * 200**0.5 for name, values in estimates.items()}
    assert abs(errors["unbiased"]) < 3
    assert errors["biased"] > 30


def test_cka_is_the_cosine_of_centred_kernels():
    first, second = kernels()
    h = centring(6)
    k, l_ = (h @ first @ h).flatten(), (h @ second @ h).flatten()
    assert measured(cka, first, second) == pytest.approx(k @ l_ / np.linalg.norm(k) / np.linalg.norm(l_))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(3, 9), st.integers(1, 5), st.integers(1, 5), st.floats(1e-3, 1e3))
def test_bounds_and_invariances(seed, n, d, e, factor):
    a, b = draws(n, d, e, seed=seed)
    turn = torch.linalg.qr(draws(d, d, seed=seed + 1)[0])[0]
    k, l_ = kernel_matrix(a, "linear", 1.0), kernel_matrix(b, "linear", 1.0)
    aligned = float(cka(k, l_))
    assert -1e-9 <= aligned <= 1 + 1e-9
    assert float(cka(kernel_matrix(factor * a @ turn + 3, "linear", 1.0), l_)) == pytest.approx(
        aligned, abs=1e-7
    )
    assert float(cka(k, k)) == pytest.approx(1)
    assert -1e-9 <= float(released_hsic(k, l_)) <= n - 1
    assert float(spectral_coco(factor * k, l_)) == pytest.approx(
        factor**0.5 * float(spectral_coco(k, l_)), rel=1e-6
    )
    for name in NAMES:
        if n >= 4 or name[1] != "unbiased":
            measure = ESTIMATORS[name]
            torch.testing.assert_close(measure(k, l_), measure(l_, k), rtol=1e-6, atol=1e-9)
            order = torch.randperm(n, generator=Streams(seed).torch("order"))
            both = [x[order][:, order] for x in (k, l_)]
            torch.testing.assert_close(measure(*both), measure(k, l_), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "imq"])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_finite_differences_twice_over(name, kernel):
    a, b = draws(5, 3, 2)
    measure = ESTIMATORS[name]

    def dependence(x, z):
        return measure(kernel_matrix(x, kernel, 1.5), kernel_matrix(z, "linear", 1.5))

    leaves = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(dependence, leaves)
    assert torch.autograd.gradgradcheck(dependence, leaves, atol=1e-4)


def test_the_eigenvalue_is_right_where_others_are_many_times_zero():
    a, b = draws(9, 2, 1)
    k, l_ = a @ a.T, b @ b.T
    expected = np.linalg.eigvals((k @ l_).numpy()).real.max()
    assert float(largest_eigenvalue(k, l_)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_constant_over_the_batch_depends_on_nothing(name, n):
    n = max(n, 4) if name[1] == "unbiased" else n
    constant = torch.full((n, 3), 0.1, requires_grad=True)
    (other,) = draws(n, 4)
    for kernel in ("gaussian", "linear"):
        found = ESTIMATORS[name](kernel_matrix(constant, kernel, 5.0), kernel_matrix(other, "linear", 5.0))
        (derivative,) = torch.autograd.grad(found, constant, create_graph=True)
        assert float(found.detach()) == pytest.approx(0, abs=1e-12)
        assert derivative.isfinite().all()


def test_the_released_hsic_hardly_tells_dependence_where_images_are_few():
    """Ranks decide: independent batches come near the ceiling that a batch with itself has."""
    a, b = (x.abs() for x in draws(10, 256, 256))
    of_independent, of_same = (
        float(released_hsic(kernel_matrix(a, "gaussian", 5.0), kernel_matrix(x, "gaussian", 5.0)))
        for x in (b, a)
    )
    assert of_independent > 0.95 * of_same
    unbiased = [
        float(unbiased_hsic(kernel_matrix(a, "gaussian", 5.0), kernel_matrix(x, "gaussian", 5.0)))
        for x in (b, a)
    ]
    assert abs(unbiased[0]) < 0.5 * unbiased[1]
