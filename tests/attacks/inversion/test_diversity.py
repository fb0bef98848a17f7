"""FedInverse's term against the released estimator in numpy, its range and its derivative."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.inversion.config import DiversityConfig
from attacks.inversion.diversity import diversity
from fl.seeds import Streams


def images(b, *, seed=0, size=4, dtype=torch.float32):
    return torch.rand(b, 1, size, size, generator=Streams(seed).torch("images"), dtype=dtype)


def kernels(x, kernel, sigma):
    squares = ((x[:, None] - x[None]) ** 2).sum(2)
    if kernel == "linear":
        return x @ x.T
    if kernel == "imq":
        return 1 / np.sqrt(squares + 1)
    if sigma:
        return np.exp(-squares / (2 * sigma**2 * x.shape[1]))
    pairs = [((a - b) ** 2).sum() for i, a in enumerate([*x, *x]) for b in [*x, *x][:i]]
    median = np.median(pairs)
    return np.exp(-squares / (2 * (median if median > 0 else np.mean(pairs)).clip(1e-2) ** 2))


def by_hand(x, *, measure="hsic", kernel="gaussian", sigma=5.0, epsilon=1e-5):
    """The released code: kernels centred on one side for hsic, on both for coco."""
    x = x.reshape(len(x), -1).double().numpy()
    h = len(x) // 2
    first, second = kernels(x[:h], kernel, sigma), kernels(x[h : 2 * h], "gaussian", sigma)
    centring = np.eye(h) - np.ones((h, h)) / h
    if measure == "coco":
        product = centring @ second @ centring @ centring @ first @ centring
        return np.sqrt(np.linalg.norm(product)) / h
    of = [k @ centring @ np.linalg.inv(k @ centring + epsilon * h * np.eye(h)) for k in (second, first)]
    return np.trace(of[0] @ of[1])


@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("kernel", ["gaussian", "linear", "imq"])
@pytest.mark.parametrize("sigma", [5.0, 1.0, 0.0])
@pytest.mark.parametrize("b", [4, 9, 16])
def test_it_is_the_released_number(measure, kernel, sigma, b):
    config = DiversityConfig(measure=measure, kernel=kernel, sigma=sigma, epsilon=1e-4)
    x = images(b)
    found = diversity(x, torch.zeros(b, dtype=torch.int64), config)
    assert found.dtype == torch.float32
    expected = by_hand(x, measure=measure, kernel=kernel, sigma=sigma, epsilon=1e-4)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from(["gaussian", "linear", "imq"]))
def test_hsic_lies_between_nothing_and_the_half_less_one(seed, h, kernel):
    found = diversity(images(2 * h, seed=seed), torch.zeros(2 * h), DiversityConfig(kernel=kernel))
    assert 0 < float(found) <= h - 1


def test_halves_may_be_exchanged_only_with_equal_kernels():
    x = images(8, dtype=torch.float64)
    exchanged = torch.cat([x[4:], x[:4]])
    labels = torch.zeros(8)
    for measure in ("hsic", "coco"):
        config = DiversityConfig(measure=measure, sigma=1.0)
        torch.testing.assert_close(diversity(x, labels, config), diversity(exchanged, labels, config))
        other = DiversityConfig(measure=measure, sigma=1.0, kernel="linear")
        assert float(diversity(x, labels, other)) != pytest.approx(
            float(diversity(exchanged, labels, other)), rel=1e-6
        )


def test_pairs_matter_and_an_odd_last_image_does_not():
    x, labels = images(7), torch.zeros(7)
    config = DiversityConfig(sigma=1.0, epsilon=1e-2)
    found = diversity(x, labels, config)
    assert torch.equal(found, diversity(x[:6], labels[:6], config))
    assert torch.equal(found, diversity(torch.cat([x[:6], images(1, seed=9)]), labels, config))
    assert float(diversity(x[[0, 2, 1, 3, 4, 5]], labels[:6], config)) != pytest.approx(float(found))


def test_of_each_label_it_is_the_mean_over_labels():
    x, labels = images(12), torch.tensor([4, 1, 4, 1, 1, 4, 4, 1, 4, 1, 1, 4])
    config = DiversityConfig(split="per_label", sigma=1.0)
    expected = np.mean([by_hand(x[labels == label], sigma=1.0) for label in (1, 4)])
    assert float(diversity(x, labels, config)) == pytest.approx(expected, rel=1e-4)
    assert float(diversity(x, labels, DiversityConfig(sigma=1.0))) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("b", [1, 2, 3])
def test_halves_of_one_image_depend_on_nothing(b):
    x = images(b).requires_grad_()
    found = diversity(x, torch.zeros(b), DiversityConfig())
    (slope,) = torch.autograd.grad(found, x)
    assert float(found.detach()) == 0
    assert not slope.any()


@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("kernel", ["gaussian", "linear", "imq"])
@pytest.mark.parametrize("b", [4, 5, 10])
def test_its_derivative_is_that_of_finite_differences(measure, kernel, b):
    config = DiversityConfig(measure=measure, kernel=kernel, sigma=0.5)
    x = images(b, size=2, dtype=torch.float64).requires_grad_()
    labels = torch.zeros(b)
    assert torch.autograd.gradcheck(lambda x: diversity(x, labels, config), x, atol=1e-4, rtol=1e-3)
    (slope,) = torch.autograd.grad(diversity(x, labels, config), x)
    assert slope.isfinite().all()


@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_equal_images_have_a_finite_derivative(measure, sigma):
    x = torch.full((6, 1, 4, 4), 0.3, requires_grad=True)
    found = diversity(x, torch.zeros(6), DiversityConfig(measure=measure, sigma=sigma))
    (slope,) = torch.autograd.grad(found, x)
    assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    assert slope.isfinite().all()


def test_two_pairs_saturate_near_one():
    """FedInverse's digits: five labels, so halves of two images."""
    for seed in range(5):
        assert float(diversity(images(5, seed=seed), torch.arange(5), DiversityConfig())) > 0.9
