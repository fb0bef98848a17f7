"""Anchors with a closed form, on a linear layer, where gradient matching is not needed to know the answer."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from defenses.catalog import ChainConfig
from defenses.chain import Chain
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_layer_gives_its_input_exactly(seed):
    """x = (dL/dW_i) / (dL/db_i) for every row i, for a batch of one."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(784, 10)
    x = torch.rand(1, 784, generator=generator)
    loss = F.cross_entropy(layer(x), torch.tensor([seed]))
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    for row in range(10):
        torch.testing.assert_close(weight[row] / bias[row], x[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("sigma", "published_db"), [(1e-4, 57.1), (1e-3, 37.1), (1e-2, 17.1), (1e-1, -2.9)])
def test_clipping_and_noise_on_an_imprint_layer_have_the_predicted_psnr(sigma, published_db):
    """The best guess without a prior is N(x, sigma^2 ||x||^2): PSNR = -10 log10(sigma^2 ||x||^2).

    Riess et al. 2025, arXiv 2402.12861; 784 pixels of mean square 0.25; a chain of our clipping to C and
    noise of sigma C, whose clipped part is C x / ||x||.
    """
    clip = 0.5
    x = torch.rand(784, generator=torch.Generator().manual_seed(0))
    x = x * math.sqrt(0.25 / float(x.square().mean()))
    links = [
        {"name": "clipping", "config": {"bound": clip}},
        {"name": "gaussian", "config": {"sigma": sigma * clip}},
    ]
    small = SmallProblem()
    client = Chain(ChainConfig.model_validate({"links": links})).for_client(small.client_context)
    update = Update("gradient", {"imprint.weight": 3 * x}, {}, 1)
    errors = []
    for draw in range(10):
        seen = client.protect(update, small.step(Streams(draw).torch("protect"))).tensors["imprint.weight"]
        errors.append((seen * x.norm() / clip - x).square().mean())
    psnr_db = -10 * math.log10(float(torch.stack(errors).mean()))
    assert psnr_db == pytest.approx(-10 * math.log10(sigma**2 * float(x.square().sum())), abs=0.3)
    assert psnr_db == pytest.approx(published_db, abs=0.3)
