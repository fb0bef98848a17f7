import warnings

import lpips as package
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from fl.errors import UsageError
from harness.metrics.pairs import Embedding, Instruments, Pairs, Unavailable
from harness.metrics.perceptual import Perceptual, lpips, lpips_size, lpips_vgg
from harness.metrics.weights import read_heads

NONE = Unavailable("none")


def draw(*shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def measure(perceptual, truth, guess):
    instruments = Instruments(Embedding(perceptual), NONE, NONE)
    return lpips(Pairs(truth, guess, ("x",) * len(truth), instruments))


def measure_vgg(perceptual, truth, guess):
    instruments = Instruments(NONE, NONE, NONE, perceptual_vgg=Embedding(perceptual))
    return lpips_vgg(Pairs(truth, guess, ("x",) * len(truth), instruments))


def packages_own(net, perceptual) -> nn.Module:
    """Return the `lpips` package's network with the same convolutions."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # it calls torchvision in a deprecated way
        network = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]
    for module, weights in zip(convolutions, perceptual._backbone, strict=True):
        module.weight.data, module.bias.data = weights.weight, weights.bias
    return network


@pytest.fixture(scope="module")
def original(perceptual) -> nn.Module:
    return packages_own("alex", perceptual)


@pytest.mark.parametrize("size", [32, 48, 64, 100])
def test_agrees_with_the_lpips_package(size, perceptual, original):
    truth, guess = draw(5, 3, size, size, seed=0), draw(5, 3, size, size, seed=1)
    with torch.no_grad():
        expected = original(truth, guess, normalize=True).flatten().double()
    torch.testing.assert_close(measure(perceptual, truth, guess), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("n", "channels", "size"), [(9, 3, 32), (2, 1, 31), (2, 3, 45)])
def test_vgg_agrees_with_the_lpips_package(n, channels, size, perceptual_vgg):
    truth, guess = draw(n, channels, size, size, seed=0), draw(n, channels, size, size, seed=1)
    with torch.no_grad():
        three = (images.expand(-1, 3, -1, -1) for images in (truth, guess))
        expected = packages_own("vgg", perceptual_vgg)(*three, normalize=True).flatten().double()
    torch.testing.assert_close(measure_vgg(perceptual_vgg, truth, guess), expected, atol=1e-6, rtol=1e-5)


def test_gray_images_are_repeated(perceptual, original):
    truth, guess = draw(2, 1, 40, 40, seed=2), draw(2, 1, 40, 40, seed=3)
    with torch.no_grad():
        repeated = (images.repeat(1, 3, 1, 1) for images in (truth, guess))
        expected = original(*repeated, normalize=True).flatten().double()
    torch.testing.assert_close(measure(perceptual, truth, guess), expected, atol=1e-6, rtol=1e-5)


def test_small_images_are_upsampled_to_64(perceptual, original):
    truth, guess = draw(2, 3, 16, 16, seed=4), draw(2, 3, 16, 16, seed=5)
    assert lpips_size(truth) == 64
    assert lpips_size(draw(1, 1, 31, 31, seed=0)) is None
    with torch.no_grad():
        big = (nn.functional.interpolate(images, size=(64, 64), mode="bilinear") for images in (truth, guess))
        expected = original(*big, normalize=True).flatten().double()
    torch.testing.assert_close(measure(perceptual, truth, guess), expected, atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def ladder():
    """A retina (Pillow's bicubic, 64 x 64), and the same under noise of rising sigma in [-1, 1]."""
    pixels = np.asarray(Image.fromarray(data.retina()).resize((64, 64)))
    retina = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255
    noise = torch.randn(retina.shape, generator=torch.Generator().manual_seed(0))
    sigmas = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    noisy = torch.cat([(retina + sigma * noise / 2).clamp(0, 1) for sigma in sigmas])
    return retina.expand_as(noisy), noisy


def test_known_values_on_a_noise_ladder(perceptual, ladder):
    golden = (0.004, 0.042, 0.153, 0.377, 0.681, 1.031, 1.205)  # by the `lpips` package
    assert measure(perceptual, *ladder).tolist() == pytest.approx(golden, abs=5.1e-4)


def test_known_values_on_a_noise_ladder_on_vgg(perceptual_vgg, ladder):
    golden = (0.033, 0.152, 0.262, 0.383, 0.522, 0.705, 0.887)  # by the `lpips` package
    assert measure_vgg(perceptual_vgg, *ladder).tolist() == pytest.approx(golden, abs=5.1e-4)


def test_identical_images_are_at_zero(perceptual):
    images = draw(3, 3, 32, 32, seed=6)
    assert measure(perceptual, images, images.clone()).tolist() == [0, 0, 0]


def test_a_value_does_not_depend_on_the_block_it_is_computed_in(perceptual):
    images = draw(11, 1, 16, 16, seed=7)
    together = Embedding(perceptual)(images)
    backwards = Embedding(perceptual)(images.flip(0)).flip(0)
    alone = torch.cat([Embedding(perceptual)(image[None]) for image in images])
    assert torch.equal(together, backwards)
    assert torch.equal(together, alone)


def test_wrong_weights_are_refused(perceptual):
    scrambled = tuple(layer._replace(weight=layer.weight.flip(0)) for layer in perceptual._backbone)
    with pytest.raises(UsageError, match="expected LPIPS weights"):
        Perceptual(scrambled, read_heads())
