"""Training a generator against a critic: the losses and steps of DCGAN and WGAN-GP.

Every draw of a step comes from a stream that names the step, so a training that was interrupted goes on from
its last kept state to the same weights, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.generators import ggl, gmi, resumable, styled
from fl.generators.architecture import Critic, Generator, initialise
from fl.generators.config import GeneratorConfig
from fl.generators.costs import CRITIC_STEPS
from fl.generators.layout import Family, Layout
from fl.seeds import Streams
from fl.types import Artifact

PENALTY = 10.0
"""Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1."""

BETAS = {"dcgan": (0.5, 0.999), "wgan_gp": (0.0, 0.9)}
"""Of Adam: Radford et al. 2016, section 3; Gulrajani et al. 2017, algorithm 1. GGL's
authors and GMI's released code train theirs by the loss of the second with those of the first."""


def draw_weights(network: Generator | Critic, family: Family, stream: torch.Generator) -> None:
    """Give a network its family's first weights, in place."""
    (gmi.initialise if family == "gmi" else initialise)(network, stream)
    if family == "ggl" and isinstance(network, Generator):
        ggl.initialise(network, stream)


@dataclass
class Training:
    """A generator in training.

    Args:
        config: How.
        layout: Of the generator.
        images: `N x C x H x W` in [0, 1], on the device to compute on.
        streams: Every draw's.
        labels: Of the images where the layout has classes, as `Generator.styles` takes them, on the device.

    Attributes:
        done: Generator steps taken.
        generator: As it is optimised.
        average: The running mean of its weights.
        critic: What it is trained against.
    """

    config: GeneratorConfig
    layout: Layout
    images: Tensor
    streams: Streams
    labels: Tensor | None = None
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        device, config = self.images.device, self.config
        self.generator, self.average = Generator(self.layout), Generator(self.layout)
        self.critic = Critic(self.layout)
        weights = self.streams.torch("generator_weights")
        draw_weights(self.generator, self.layout.family, weights)
        draw_weights(self.critic, self.layout.family, self.streams.torch("critic_weights"))
        self.average.load_state_dict(self.generator.state_dict())
        for module in (self.generator, self.average, self.critic):
            module.to(device)
        betas = BETAS["dcgan" if self.layout.family in ("ggl", "gmi") else config.kind]
        self._rules = {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=config.step_size, betas=betas),
            "critic": torch.optim.Adam(self.critic.parameters(), lr=config.step_size, betas=betas),
        }

    def step(self) -> None:
        """Train the critic, then the generator once."""
        streams = self.streams.at(step=self.done)
        wasserstein = self.config.kind == "wgan_gp"
        for turn in range(CRITIC_STEPS if wasserstein else 1):
            stream = streams.torch("critic_step", turn=turn)
            chosen = torch.randint(len(self.images), (self.config.batch_size,), generator=stream)
            real, labels = self._images(chosen)
            with torch.no_grad():
                fake = self._drawn(stream, labels)
            loss = _wasserstein_critic if wasserstein else _saturating_critic
            judge = partial(self.critic, labels=labels)
            self._descend("critic", self.critic, loss(judge, real, fake, stream))
        labels = self._drawn_labels(streams.torch("generator_labels"))
        made = self._drawn(streams.torch("generator_step"), labels)
        scores = self.critic(made, labels)
        self._descend("generator", self.generator, -scores.mean() if wasserstein else _as_real(scores))
        self.done += 1
        self._follow()

    def state(self) -> Artifact:
        """Return all that a training goes on from."""
        return resumable.state(self._modules, self._rules, self.done)

    def resume(self, kept: Artifact) -> None:
        """Go on from what `state` returned."""
        self.done = resumable.resume(kept, self._modules, self._rules, self.images.device)

    @property
    def _modules(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator, "average": self.average, "critic": self.critic}

    def _images(self, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images by position, and their labels."""
        places = chosen.to(self.images.device)
        return self.images[places], None if self.labels is None else self.labels[places]

    def _drawn_labels(self, stream: torch.Generator) -> Tensor | None:
        """Return labels as frequent as among the images."""
        if self.labels is None:
            return None
        chosen = torch.randint(len(self.labels), (self.config.batch_size,), generator=stream)
        return self.labels[chosen.to(self.labels.device)]

    def _drawn(self, stream: torch.Generator, labels: Tensor | None) -> Tensor:
        """Return generated images."""
        layers, latents = self.generator.layers, self._latents(stream)
        if layers == 1:
            images: Tensor = self.generator(latents, labels)
            return images
        others = self.generator.styles(self._latents(stream), labels)
        styles = styled.mixed(self.generator.styles(latents, labels), others, layers, stream)
        mixed: Tensor = self.generator.synthesis(styles)
        return mixed

    def _latents(self, stream: torch.Generator) -> Tensor:
        drawn = torch.randn(self.config.batch_size, self.layout.latent, generator=stream)
        return drawn.to(self.images.device)

    def _descend(self, rule: str, module: nn.Module, loss: Tensor) -> None:
        resumable.descend(self._rules[rule], module, loss)

    def _follow(self) -> None:
        """Move the average; a short way at first, lest it remember the weights it began with."""
        decay = min(self.config.average, self.done / (self.done + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
            for mean, latest in pairs:
                mean.lerp_(latest, 1 - decay)
            buffers = zip(self.average.buffers(), self.generator.buffers(), strict=True)
            for kept, current in buffers:
                kept.copy_(kept.lerp(current, 1 - decay) if kept.is_floating_point() else current)


Judge = Callable[[Tensor], Tensor]
"""From images to scores, the critic with the images' labels."""


def _saturating_critic(critic: Judge, real: Tensor, fake: Tensor, stream: torch.Generator) -> Tensor:
    """Binary cross-entropy of telling real from generated images (Goodfellow et al. 2014, section 3)."""
    return _as_real(critic(real)) + _as_real(-critic(fake))


def _as_real(scores: Tensor) -> Tensor:
    """-log sigmoid: for generated images, the non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-scores).mean()


def _wasserstein_critic(critic: Judge, real: Tensor, fake: Tensor, stream: torch.Generator) -> Tensor:
    """Gulrajani et al. 2017, equation 3: scores' difference, and the gradient's length held at 1 between."""
    share = torch.rand(len(real), 1, 1, 1, generator=stream).to(real)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    lengths = (slope.square().flatten(1).sum(1) + 1e-12).sqrt()
    return critic(fake).mean() - critic(real).mean() + PENALTY * (lengths - 1).square().mean()
