import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from attacks.inversion.posteriors import Flow, Gaussian
from fl.seeds import Streams


def streams(*members):
    return [Streams(0).torch("posterior_weights", member=member) for member in members]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=Streams(seed).torch("noise"), dtype=torch.float64)


def flow(*members, entries=5, steps=2, scales=2, hidden=4):
    return Flow(streams(*members), entries, steps=steps, scales=scales, hidden=hidden).double()


def moved(posteriors, size=0.3):
    """Move every parameter off where it starts."""
    stream = Streams(1).torch("moves")
    with torch.no_grad():
        for parameter in posteriors.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return posteriors


def exact(posterior):
    factor = posterior.factor.tril()
    return [
        MultivariateNormal(mean, covariance)
        for mean, covariance in zip(posterior.mean[:, 0], factor @ factor.mT, strict=True)
    ]


def test_the_divergence_of_a_gaussian_is_the_known_one():
    posteriors = moved(Gaussian(3, 4).double())
    prior = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    expected = torch.stack([kl_divergence(own, prior) for own in exact(posteriors)])
    found = posteriors.divergence(torch.zeros(3, 1, 4).double(), None)
    assert torch.allclose(found, expected)
    assert bool((found > 0).all())


def test_draws_of_a_gaussian_have_its_density():
    posteriors = moved(Gaussian(2, 3).double())
    noise = normal(2, 6, 3)
    latents = posteriors(noise)
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    expected = torch.stack(
        [own.log_prob(z) - prior.log_prob(z) for own, z in zip(exact(posteriors), latents, strict=True)]
    )
    assert torch.allclose(posteriors.log_ratio(noise, latents), expected)


def test_draws_of_a_gaussian_have_its_moments():
    posteriors = moved(Gaussian(1, 3).double())
    drawn = posteriors(normal(1, 200_000, 3))[0]
    (own,) = exact(posteriors)
    assert torch.allclose(drawn.mean(0), own.mean, atol=0.02)
    assert torch.allclose(drawn.T.cov(), own.covariance_matrix, atol=0.03)


@pytest.mark.parametrize("entries", [2, 4, 5, 7])
@pytest.mark.parametrize("scales", [1, 2])
def test_the_density_of_a_flow_is_the_change_of_variables(entries, scales):
    scales = 1 if entries == 2 else scales
    posteriors = moved(flow(0, 1, entries=entries, scales=scales))
    noise = normal(2, 3, entries)
    ratios = posteriors.log_ratio(noise, posteriors(noise))
    constant = entries / 2 * math.log(2 * math.pi)
    for member in range(2):
        for draw in range(3):

            def place(vector, member=member):
                return posteriors(vector.expand(2, 1, -1))[member, 0]

            jacobian = torch.autograd.functional.jacobian(place, noise[member, draw])
            z = place(noise[member, draw])
            own = -noise[member, draw].square().sum() / 2 - constant - torch.linalg.slogdet(jacobian)[1]
            prior = -z.square().sum() / 2 - constant
            assert ratios[member, draw].item() == pytest.approx((own - prior).item(), abs=1e-9)


def test_a_flow_begins_as_a_permutation_without_divergence():
    posteriors = flow(0, 1, entries=6, steps=3)
    noise = normal(2, 4, 6)
    latents = posteriors(noise)
    assert not torch.equal(latents, noise)
    assert torch.equal(latents.sort(2).values, noise.sort(2).values)
    assert not torch.equal(
        posteriors(noise[:1].expand(2, -1, -1))[0], posteriors(noise[:1].expand(2, -1, -1))[1]
    )
    assert posteriors.divergence(noise, latents).abs().max() < 1e-12


def test_a_gaussian_begins_as_the_prior():
    noise = normal(2, 4, 6)
    posteriors = Gaussian(2, 6).double()
    assert torch.equal(posteriors(noise), noise)
    assert posteriors.divergence(noise, noise).tolist() == [0, 0]


@pytest.mark.parametrize("size", [0.1, 0.3])
def test_the_divergence_of_a_flow_is_positive(size):
    posteriors = moved(flow(0, 1, 2), size)
    noise = normal(3, 20_000, 5)
    assert bool((posteriors.divergence(noise, posteriors(noise)) > 0).all())


def test_the_first_scale_sees_half_of_the_noise():
    posteriors = flow(0, entries=7)
    stream = Streams(1).torch("moves")
    with torch.no_grad():
        for step in posteriors.steps[:2]:
            for parameter in step.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    noise, other = normal(1, 1, 7), normal(1, 1, 7)
    other[..., 4:] += 1
    changed = (posteriors(noise) - posteriors(other)).abs() > 1e-12
    assert int(changed.sum()) == 3  # the last scale, not moved, permutes
    other = noise.clone()
    other[..., :4] += 1
    assert int(((posteriors(noise) - posteriors(other)).abs() > 1e-12).sum()) == 4


def test_members_are_what_they_are_alone():
    together, alone = moved(flow(0, 1), 0), moved(flow(1), 0)
    with torch.no_grad():
        for stacked, own in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(stacked[1:], own)
            change = 0.1 * normal(*own.shape)
            stacked[1:] += change
            own.add_(change)
    noise = normal(2, 3, 5)
    assert torch.allclose(together(noise)[1:], alone(noise[1:]))
    assert torch.allclose(together.log_volume()[1:], alone.log_volume())
