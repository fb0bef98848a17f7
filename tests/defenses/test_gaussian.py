import pytest
import torch

from defenses.catalog import GaussianConfig
from defenses.gaussian import Gaussian
from fl.seeds import Streams
from harness.testing import SmallProblem


def noise(small, config, seed=0):
    client = Gaussian(config).for_client(small.client_context)
    clean = small.update
    noisy = client.protect(clean, small.step(Streams(seed).torch("protect")))
    return torch.cat([(noisy.tensors[k] - v).flatten() for k, v in clean.tensors.items()])


def rms(update):
    return torch.cat([t.flatten() for t in update.tensors.values()]).square().mean().sqrt()


@pytest.mark.parametrize("sigma", [1e-3, 0.1])
def test_absolute_noise_has_the_stated_standard_deviation(sigma):
    drawn = noise(SmallProblem(channels=3), GaussianConfig(sigma=sigma))
    assert len(drawn) > 10_000
    assert float(drawn.std()) == pytest.approx(sigma, rel=0.03)
    assert abs(float(drawn.mean())) < 4 * sigma / len(drawn) ** 0.5


def test_relative_noise_is_a_share_of_the_root_mean_square():
    small = SmallProblem(channels=3)
    drawn = noise(small, GaussianConfig(sigma=0.5, scale="relative"))
    assert float(drawn.std()) == pytest.approx(0.5 * float(rms(small.update)), rel=0.03)


@pytest.mark.parametrize(("scale", "factor"), [("absolute", 0.05 * 4), ("relative", None)])
def test_on_a_delta_absolute_noise_is_in_units_of_the_gradient(scale, factor):
    small = SmallProblem(channels=3, kind="delta", steps=4, lr=0.05)
    drawn = noise(small, GaussianConfig(sigma=0.1, scale=scale))
    unit = float(rms(small.update)) if factor is None else factor
    assert float(drawn.std()) == pytest.approx(0.1 * unit, rel=0.03)


def test_budgets_share_their_draws():
    """Noise of twice the size is twice the same noise, so that budgets are compared on the same draws."""
    small = SmallProblem()
    one, two = (noise(small, GaussianConfig(sigma=sigma)) for sigma in (0.1, 0.2))
    torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-4)


def test_tensors_get_different_noise():
    drawn = noise(SmallProblem(), GaussianConfig(sigma=0.1))
    half = len(drawn) // 2
    correlation = torch.corrcoef(torch.stack([drawn[:half], drawn[half : 2 * half]]))[0, 1]
    assert abs(float(correlation)) < 0.05
