"""What generators, critics and their training cost, counted without torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from fl.generators.layout import Layout
from fl.models.costs import conv_mflop, linear_mflop
from fl.stage_request import Work

if TYPE_CHECKING:
    from fl.generators.config import GeneratorConfig

FORWARD, THROUGH, TRAINED = 1, 2, 3
"""Costs in forward passes: as it is; with the derivatives of the input; and with those of the weights."""

PENALTY = 4
"""Likewise of the gradient penalty: forward, the derivatives of the input, and backward through these."""

CRITIC_STEPS = 5
"""Of a Wasserstein GAN for each of its generator (Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1)."""


def training_work(config: GeneratorConfig, layout: Layout) -> Work:
    """Return what it takes to train a generator of that layout (`fl.generators.training.Training`)."""
    generator, critic = generator_mflop(layout), critic_mflop(layout)
    told = generator * FORWARD + critic * 2 * TRAINED
    turns, each = 1, 1
    if config.kind == "wgan_gp":
        told, turns, each = told + critic * PENALTY, CRITIC_STEPS, 2
    step = turns * told + generator * TRAINED + critic * THROUGH
    return Work(config.steps * config.batch_size * step, config.steps * (turns * each + 1))


def generator_mflop(layout: Layout) -> float:
    """Return the cost of drawing one image, of a family that is trained here."""
    mflop = layout.mapping_layers * linear_mflop(layout.latent, layout.latent)
    mflop += linear_mflop(layout.classes, layout.latent)
    return mflop + _styled(layout) if layout.family == "styled" else mflop + _plain(layout)


def critic_mflop(layout: Layout) -> float:
    """Return the cost of judging one image, of a family that is trained here."""
    scales, kernel = layout.scales[::-1], 5 if layout.family == "gmi" else 3
    mflop = conv_mflop(layout.channels, scales[0].maps, kernel, scales[0].size)
    for larger, scale in pairwise(scales):
        mflop += conv_mflop(larger.maps, scale.maps, kernel, scale.size)
    return mflop + linear_mflop(scales[-1].maps * scales[-1].size ** 2, 1 + layout.classes)


def _plain(layout: Layout) -> float:
    """Return the cost of a synthesis whose style vector enters at its beginning alone.

    A transposed convolution costs what a convolution does that goes the other way.
    """
    scales = layout.scales
    transposed = {"ggl": 2, "gmi": 5}.get(layout.family)
    kernel = transposed or 3
    mflop = linear_mflop(layout.styles, scales[0].maps * scales[0].size ** 2)
    for last, scale in pairwise(scales):
        mflop += conv_mflop(last.maps, scale.maps, kernel, last.size if transposed else scale.size)
    return mflop + conv_mflop(scales[-1].maps, layout.channels, kernel, scales[-1].size)


def _styled(layout: Layout) -> float:
    """Return the cost of a synthesis whose layers each take a style vector, which scales their inputs."""
    scales = layout.scales
    mflop = conv_mflop(scales[-1].maps, layout.channels, 3, scales[-1].size)
    for last, scale in pairwise((scales[0], *scales)):
        mflop += linear_mflop(layout.styles, last.maps) + linear_mflop(last.maps, scale.maps)
        mflop += conv_mflop(last.maps, scale.maps, 3, scale.size)
    return mflop
