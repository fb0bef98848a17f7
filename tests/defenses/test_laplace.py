import math

import pytest
import torch
from scipy import stats

from defenses.catalog import LaplaceConfig
from defenses.laplace import Laplace
from fl.seeds import Streams
from harness.testing import SmallProblem


def noise(small, config, seed=0):
    client = Laplace(config).for_client(small.client_context)
    clean = small.update
    noisy = client.protect(clean, small.step(Streams(seed).torch("protect")))
    return torch.cat([(noisy.tensors[k] - v).flatten() for k, v in clean.tensors.items()])


def rms(update):
    return torch.cat([t.flatten() for t in update.tensors.values()]).square().mean().sqrt()


def test_the_noise_is_laplacian_with_the_stated_scale():
    drawn = noise(SmallProblem(channels=3), LaplaceConfig(b=0.2))
    assert len(drawn) > 10_000
    assert stats.kstest(drawn.numpy(), stats.laplace(scale=0.2).cdf).pvalue > 0.01
    assert float(drawn.std()) == pytest.approx(0.2 * math.sqrt(2), rel=0.03)


@pytest.mark.parametrize(("scale", "factor"), [("absolute", 0.05 * 4), ("relative", None)])
def test_on_a_delta_absolute_noise_is_in_units_of_the_gradient(scale, factor):
    small = SmallProblem(channels=3, kind="delta", steps=4, lr=0.05)
    drawn = noise(small, LaplaceConfig(b=0.1, scale=scale))
    unit = float(rms(small.update)) if factor is None else factor
    assert float(drawn.abs().mean()) == pytest.approx(0.1 * unit, rel=0.03)


def test_budgets_share_their_draws():
    small = SmallProblem()
    one, two = (noise(small, LaplaceConfig(b=b)) for b in (0.1, 0.2))
    torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-4)


def test_streams_differ():
    small = SmallProblem()
    drawn = torch.stack([noise(small, LaplaceConfig(b=0.1), seed) for seed in (0, 1)])
    assert abs(float(torch.corrcoef(drawn)[0, 1])) < 0.05
