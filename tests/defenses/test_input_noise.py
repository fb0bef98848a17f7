import pytest
import torch

from defenses.catalog import InputNoiseConfig
from defenses.input_noise import InputNoise
from fl.hooks import Batch
from fl.seeds import Streams
from harness.testing import SmallProblem

SMALL = SmallProblem(channels=3, n=40)


def noisy(config, seed=0, images=None):
    client = InputNoise(config).for_client(SMALL.client_context)
    ids = SMALL.client_context.image_ids
    batch = Batch(SMALL.images if images is None else images, SMALL.labels, ids)
    return client.perturb_batch(SMALL.step(Streams(seed).torch("step")), batch)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_pixels_get_independent_noise_of_the_stated_deviation(sigma):
    drawn = noisy(InputNoiseConfig(sigma=sigma, clamp=False)).images - SMALL.images
    assert float(drawn.std()) == pytest.approx(sigma, rel=0.03)
    assert abs(float(drawn.mean())) < 4 * sigma / drawn.numel() ** 0.5
    first, second = drawn[0].flatten(), drawn[1].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.15


def test_clamping_cuts_the_same_noise_at_black_and_white():
    free = noisy(InputNoiseConfig(sigma=0.5, clamp=False)).images
    clamped = noisy(InputNoiseConfig(sigma=0.5)).images
    assert float(free.min()) < 0
    assert float(free.max()) > 1
    assert torch.equal(clamped, free.clip(0, 1))


def test_labels_ids_and_the_clients_own_images_stay():
    before = SMALL.images.clone()
    batch = noisy(InputNoiseConfig(sigma=0.3))
    assert torch.equal(SMALL.images, before)
    assert torch.equal(batch.labels, SMALL.labels)
    assert batch.image_ids == SMALL.client_context.image_ids


def test_budgets_share_their_draws():
    one, two = (noisy(InputNoiseConfig(sigma=s, clamp=False)).images - SMALL.images for s in (0.1, 0.2))
    torch.testing.assert_close(two, 2 * one, atol=1e-6, rtol=1e-4)


def test_every_local_step_draws_anew():
    client = InputNoise(InputNoiseConfig(sigma=0.1)).for_client(SMALL.client_context)
    batch = Batch(SMALL.images, SMALL.labels, SMALL.client_context.image_ids)
    step = SMALL.step(Streams(0).torch("step"))
    first, second, third = (client.perturb_batch(step, batch).images for _ in range(3))
    assert not any(torch.equal(a, b) for a, b in ((first, second), (second, third), (first, third)))


def test_a_differentiating_attacker_adds_no_noise_of_its_own():
    small = SmallProblem(defense=InputNoise(InputNoiseConfig(sigma=0.3)))
    simulate = small.simulator(small.defense.for_client(small.client_context))
    stream = Streams(1).torch("simulation")
    guess = small.images.clone().requires_grad_()
    exact = simulate(guess, small.labels, small.sent, stream).tensors["head.weight"]
    drawn = simulate(small.images, small.labels, small.sent, stream).tensors["head.weight"]
    clean = SmallProblem().update.tensors["head.weight"]
    torch.testing.assert_close(exact.detach(), clean)
    assert not torch.allclose(drawn, clean)
