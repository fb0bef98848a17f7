"""A small prior with its critic, and trials of several labels."""

import functools

import pytest

from attacks.inversion.config import PRIOR
from fl.generators import GeneratorConfig, stage
from harness.testing import SmallProblem

SMALL_PRIOR = GeneratorConfig(kind="wgan_gp", critic=True, latent=6, width=2, steps=4, batch_size=8)


@functools.cache
def trained(channels, config):
    small = SmallProblem(channels=channels, observes="global_model")
    needs = {"generator": config.resolved(), "image": [channels, small.image.size]}
    return stage.train(needs, {}, small.stage_context())


@pytest.fixture(scope="session")
def small_prior():
    """From channels (and another configuration) to the artifacts of an attack with that prior."""
    return lambda channels=1, config=SMALL_PRIOR: {PRIOR: trained(channels, config)}
