"""What generators are said to cost, against what torch counts."""

import pytest
import torch

from fl.generators.architecture import Critic, Generator
from fl.generators.config import GeneratorConfig
from fl.generators.costs import critic_mflop, generator_mflop, training_work
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.seeds import Streams

LAYOUTS = [
    Layout("upsampling", 1, 16, 8, 4),
    Layout("upsampling", 3, 45, 8, 4, mapping_layers=2),
    Layout("upsampling", 3, 32, 8, 4, classes=7),
    Layout("styled", 3, 28, 8, 4, mapping_layers=2),
    Layout("styled", 1, 64, 8, 2, classes=3),
    Layout("ggl", 3, 32, 8, 4),
    Layout("gmi", 1, 32, 8, 4),
    Layout("gmi", 3, 64, 8, 4),
]


def labels_of(layout, images):
    return torch.arange(images) % layout.classes if layout.classes else None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.family}-{layout.size}")
def test_a_generator_and_its_critic_cost_what_torch_counts(layout, counted_mflop):
    generator, critic = Generator(layout).eval(), Critic(layout)
    latents, labels = torch.zeros(64, layout.latent), labels_of(layout, 64)
    images = generator(latents, labels)
    styled_once = 2e-6 * sum(scale.maps for scale in layout.scales)  # of weights alone, whatever the images
    drawn = counted_mflop(lambda: generator(latents, labels)) / 64
    assert generator_mflop(layout) == pytest.approx(drawn, abs=styled_once)
    judged = counted_mflop(lambda: critic(images, labels)) / 64
    # the label's embedding is multiplied with features one by one, which torch does not count
    assert critic_mflop(layout) == pytest.approx(judged, rel=1e-9)


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("architecture", ["upsampling", "ggl", "gmi", "styled"])
def test_training_costs_about_what_torch_counts(kind, architecture, counted_mflop):
    config = GeneratorConfig(
        kind=kind, architecture=architecture, latent=16, width=8, steps=2, batch_size=8, mapping_layers=2
    )
    layout = config.trained_layout(3, 32)
    training = Training(config, layout, torch.rand(20, 3, 32, 32), Streams(0))
    found = counted_mflop(lambda: [training.step() for _ in range(config.steps)])
    # the first layer's input has no derivatives
    assert training_work(config, layout).mflop == pytest.approx(found, rel=0.2)
