import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from attacks.latent.adam import AdamSearch, rate
from attacks.latent.cma_es import CmaEs
from attacks.latent.gaussian_process import LENGTHS, NOISE, SCALE, GaussianProcess, Kernel, fit
from attacks.latent.random_search import RandomSearch
from attacks.latent.regularisers import divergence, norm_deviation
from attacks.latent.turbo import FIRST_SIDE, LEAST_SIDE, MOST_SIDE, Region, Turbo
from fl.seeds import Streams

D = 12
CPU = torch.device("cpu")


def sphere(points):
    return points.square().sum(1)


def shifted_ellipsoid(points):
    return (torch.linspace(1, 8, D) * (points - torch.linspace(-1, 1, D)).square()).sum(1)


def cma(seed):
    return CmaEs(D, 12, Streams(seed).numpy("latent_search"))


def turbo(seed):
    stream = Streams(seed).torch("latent_search")
    return Turbo(D, 10, initial=40, box=2.0, stream=stream, device=CPU)


def random(seed):
    return RandomSearch(D, 12, Streams(seed).torch("latent_search"))


def lowest(search, objective, budget):
    values = []
    while len(values) < budget:
        points = search.ask()[: budget - len(values)]
        assert points.dtype == torch.float32
        found = objective(points)
        values += found.tolist()
        if len(values) < budget:
            search.tell(found)
    return min(values)


@pytest.mark.parametrize("make", [cma, turbo])
@pytest.mark.parametrize("objective", [sphere, shifted_ellipsoid])
def test_it_beats_random_search_at_equal_budgets(make, objective):
    budget = 120 if make is turbo else 360
    for seed in range(2):
        assert lowest(make(seed), objective, budget) < 0.5 * lowest(random(seed), objective, budget)


@pytest.mark.parametrize("make", [cma, turbo, random])
def test_a_search_is_a_function_of_its_stream(make):
    budget = 70
    first, again, other = (lowest(make(seed), shifted_ellipsoid, budget) for seed in (0, 0, 1))
    assert first == again != other


def test_cma_begins_where_latent_vectors_are_drawn_from():
    points = CmaEs(D, 4000, Streams(0).numpy("latent_search")).ask()
    assert points.mean(0).abs().max() < 0.1
    assert (points.std(0) - 1).abs().max() < 0.1


def test_cma_lives_with_values_that_are_all_alike():
    search = cma(0)
    for _ in range(30):
        points = search.ask()
        search.tell(torch.zeros(len(points)))
    assert search.ask().isfinite().all()


def test_turbo_stays_in_its_box_and_starts_anew_when_its_region_has_collapsed():
    search = turbo(0)
    first = search.ask()
    for slot in ((first + 2) / 4 * 40).T:
        assert sorted(slot.floor().int().tolist()) == list(range(40))
    search.tell(torch.zeros(40))
    asked = []
    while len(asked) < 20:
        asked.append(search.ask())
        assert asked[-1].abs().max() <= 2
        if len(asked[-1]) == 40:
            break
        search.tell(torch.ones(10))
    assert len(asked[-1]) == 40
    assert not torch.equal(asked[-1], first)
    halvings = math.ceil(math.log2(FIRST_SIDE / LEAST_SIDE))
    assert len(asked) - 1 == halvings * Region(D, 10).patience


def test_a_region_grows_with_successes_and_shrinks_with_failures():
    region = Region(dimension=25, batch=10)
    assert region.patience == 3
    sides = []
    for success in [True] * 6 + [False] * 2 + [True] + [False] * 3:
        region.tell(success=success)
        sides.append(region.side / FIRST_SIDE)
    assert sides == [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    assert MOST_SIDE == 2 * FIRST_SIDE


def kernel_of(lengths, *, scale=2.0, noise=0.05, mean=0.3):
    values = (torch.tensor(v, dtype=torch.float64) for v in (mean, scale, lengths, noise))
    return Kernel(*values)


def covariance_by_hand(left, right, lengths, scale):
    r = cdist(left.numpy() / np.array(lengths), right.numpy() / np.array(lengths))
    return scale * (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r)


def test_draws_have_the_moments_of_the_posterior():
    lengths = [0.4, 0.9]
    stream = Streams(0).torch("points")
    seen, there = (torch.rand(n, 2, generator=stream, dtype=torch.float64) for n in (9, 4))
    values = torch.randn(9, generator=stream, dtype=torch.float64)
    process = GaussianProcess(kernel_of(lengths), seen, values)
    k = covariance_by_hand(seen, seen, lengths, 2.0) + 0.05 * np.eye(9)
    cross = covariance_by_hand(there, seen, lengths, 2.0)
    mean = 0.3 + cross @ np.linalg.solve(k, values.numpy() - 0.3)
    covariance = covariance_by_hand(there, there, lengths, 2.0) - cross @ np.linalg.solve(k, cross.T)
    # features are drawn once a call: many calls of few functions
    draws = torch.cat([process.draw(there, 50, Streams(i).torch("draw")) for i in range(80)]).numpy()
    spread = np.sqrt(np.diag(covariance))
    assert np.abs(draws.mean(0) - mean).max() < 0.1 * spread.max()
    assert np.abs(np.cov(draws.T) - covariance).max() < 0.1 * covariance.max()


def test_the_fit_is_more_likely_than_where_it_began_and_within_bounds():
    stream = Streams(0).torch("points")
    points = torch.rand(40, 3, generator=stream, dtype=torch.float64)
    values = (6 * points[:, 0]).sin() + 0.01 * torch.randn(40, generator=stream, dtype=torch.float64)
    values = (values - values.median()) / values.std()
    kernel = fit(points, values).kernel

    def likelihood(scale, lengths, noise, mean):
        k = covariance_by_hand(points, points, lengths, scale) + noise * np.eye(40)
        return multivariate_normal(np.full(40, mean), k).logpdf(values.numpy())

    fitted = likelihood(float(kernel.scale), kernel.lengths.tolist(), float(kernel.noise), float(kernel.mean))
    assert fitted > likelihood(SCALE.first, [LENGTHS.first] * 3, NOISE.first, 0.0) + 10
    assert kernel.lengths[0] < kernel.lengths[1:].min()
    for interval, value in ((SCALE, kernel.scale), (NOISE, kernel.noise), (LENGTHS, kernel.lengths)):
        assert (value > interval.low).all()
        assert (value < interval.high).all()


@pytest.mark.parametrize("schedule", ["signed", "cosine"])
def test_adam_follows_torchs_on_the_same_slopes(schedule):
    first = torch.linspace(-2, 2, D)
    search = AdamSearch(first, 40, lr=0.1, schedule=schedule)
    point = first.clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=0.1)
    for step in range(40):
        (asked,) = search.ask()
        assert torch.equal(asked, point.detach())
        slope = 2 * asked
        search.tell(asked.square().sum().view(1), slope.unsqueeze(0))
        point.grad = slope.sign() if schedule == "signed" else slope
        t = step / 40
        share = min(1, (1 - t) / 0.25)
        factor = {
            "signed": 0.1 ** ((step >= 15) + (step >= 25) + (step >= 35)),
            "cosine": (0.5 - 0.5 * math.cos(math.pi * share)) * min(1, t / 0.05),
        }[schedule]
        assert rate(schedule, step, 40) == pytest.approx(factor)
        optimizer.param_groups[0]["lr"] = 0.1 * rate(schedule, step, 40)
        optimizer.step()
    assert torch.equal(search.ask()[0], point.detach())


def test_random_search_draws_latent_vectors():
    stream = Streams(4).torch("latent_search")
    search = random(4)
    first = search.ask()
    search.tell(torch.zeros(12))
    assert torch.equal(first, torch.randn(12, D, generator=stream))
    assert torch.equal(search.ask(), torch.randn(12, D, generator=stream))


def test_regularisers_by_hand():
    vectors = torch.tensor([[1.0, -1.0, 1.0, -1.0], [3.0, 1.0, 3.0, 1.0]])
    # means 0 and 2, variances 1 and 1: KL 0 and 2^2 / 2
    assert torch.allclose(divergence(vectors), torch.tensor([0.0, 2.0]), atol=1e-6)
    assert norm_deviation(vectors).tolist() == [0.0, (20 - 4) ** 2]
    normal = torch.distributions.Normal(torch.tensor(0.5), torch.tensor(2.0))
    spread = 0.5 + 2 * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    assert float(divergence(spread)) == pytest.approx(float(expected), rel=1e-5)
    assert divergence(torch.zeros(1, 4)).isfinite().all()
