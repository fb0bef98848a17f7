"""The stage that trains PLG-MI's GAN on public images that the attacked model labelled.

Source: Yuan et al. 2023, arXiv 2302.09814, sections on top-n selection and the pseudo-label-guided GAN; where
the paper is silent, the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.inversion.cards_plgmi import PlgmiGanConfig, ViewsConfig
from attacks.inversion.gan_training import (
    Attacked,
    GanTraining,
    described,
    load_critic,
    new_generator,
)
from attacks.inversion.projection_critic import ProjectionCritic
from attacks.inversion.views import DRAWS, views
from fl.generators.layout import Layout
from fl.generators.stage import public_images
from fl.specs import JSON
from fl.types import Artifact

if TYPE_CHECKING:
    from fl.seeds import Streams
    from fl.stage_context import StageContext

BETAS = (0.0, 0.9)

QUANTUM = 1 / 256
"""Real images get noise from U(0, QUANTUM), lest the discriminator tell them by their 256 levels."""


def train(config: Mapping[str, JSON], inputs: Mapping[str, Artifact], context: StageContext) -> Artifact:
    """Train the GAN that PLG-MI's card asks for.

    Returns:
        As `GanTraining.finish`, the discriminator's `width`, and `confidence`: for each class, how sure the
        attacked model is of the images chosen, the mean.

    Raises:
        DataUnavailableError: If there are no public images.
        NotApplicableError: If there is no attacked model.
        BenchError: If the attacked model's outputs are not finite, or the training diverged.
    """
    held: Any = config
    gan, seen = PlgmiGanConfig(**held["gan"]), ViewsConfig(**held["views"])
    attacked = Attacked.of(context)
    images = public_images(context.public).to(context.device)
    probabilities = attacked.probabilities(images)
    chosen = surest(probabilities, gan.top_n)
    confidence: list[JSON] = [float(mean) for mean in probabilities.T.gather(1, chosen).mean(1)]
    training = PlgmiTraining(gan, seen, images[chosen], attacked, context.streams)
    return described(training.finish(gan.steps, context), width=gan.width, confidence=confidence)


def surest(probabilities: Tensor, top_n: int) -> Tensor:
    """Return the images that a model is surest are of each class; an image may be chosen for several.

    Args:
        probabilities: `N x classes`.
        top_n: Images per class; all where there are fewer.

    Returns:
        Positions, `classes x top_n`, the surest first, of equals the first.
    """
    order = probabilities.T.sort(dim=1, descending=True, stable=True)[1]
    return order[:, :top_n]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far each label is behind the best of the others, `n`; negative where it is ahead.

    Args:
        logits: `n x classes`.
        labels: `n` int64.
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.amax(1, keepdim=True) - own).squeeze(1)


def discriminator(artifact: Artifact, device: torch.device) -> ProjectionCritic:
    """Return the discriminator of the stage's artifact, in eval mode, without gradients of its weights."""
    layout: Any = artifact.data["layout"]
    width: Any = artifact.data["width"]
    critic = ProjectionCritic(layout["channels"], layout["size"], layout["classes"], width)
    load_critic(critic, artifact, device)
    return critic


class PlgmiTraining(GanTraining):
    """The GAN in training; a step is one of the generator's.

    Args:
        config: How.
        seen: Views under which the margin loss holds.
        images: Public images by pseudo label, `classes x top_n x C x H x W` in [0, 1], on the device to
            compute on.
        attacked: Whose margin loss guides the generator.
        streams: Every draw's.
    """

    def __init__(
        self, config: PlgmiGanConfig, seen: ViewsConfig, images: Tensor, attacked: Attacked, streams: Streams
    ) -> None:
        image, classes = attacked.image, attacked.classes
        critic = ProjectionCritic(image.channels, image.size, classes, config.width)
        critic.draw(streams.torch("critic_weights"))
        shape = (image.channels, image.size, config.latent, config.width)
        super().__init__(
            new_generator(Layout("upsampling", *shape, classes=classes), streams),
            critic,
            lr=config.lr,
            betas=BETAS,
            streams=streams,
            device=images.device,
        )
        self._critic, self._config, self._views, self._attacked = critic, config, seen, attacked
        self._images = images.flatten(0, 1)
        self._labels = torch.arange(classes, device=images.device).repeat_interleave(images.shape[1])

    def step(self) -> None:
        """Train the generator, then the discriminator `critic_steps` times."""
        streams = self.streams.at(step=self.done)
        self._train_generator(streams.torch("generator_step"))
        for turn in range(self._config.critic_steps):
            self._train_critic(streams.torch("critic_step", turn=turn))
        self.done += 1

    def _train_generator(self, stream: torch.Generator) -> None:
        generated, labels = self._generated(stream)
        draws = torch.rand(len(labels), DRAWS, generator=stream)
        behind = margin(self._attacked.logits(views(generated, draws, self._views)), labels).mean()
        score = self._critic(generated, labels).mean()
        self.descend("generator", self._config.alpha * behind - score)

    def _train_critic(self, stream: torch.Generator) -> None:
        with torch.no_grad():
            generated, labels = self._generated(stream)
        size = self._config.batch_size
        chosen = torch.randint(len(self._images), (size,), generator=stream).to(self.device)
        real = self._images[chosen]
        noise = QUANTUM * torch.rand(real.shape, generator=stream).to(real)
        told_real = self._critic(real + noise, self._labels[chosen])
        told_generated = self._critic(generated, labels)
        self.descend("critic", (1 - told_real).relu().mean() + (1 + told_generated).relu().mean())

    def _generated(self, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images of labels drawn alike often, and the labels."""
        size, classes = self._config.batch_size, self._attacked.classes
        labels = torch.randint(classes, (size,), generator=stream).to(self.device)
        return self.generator(self.latents(size, stream), labels), labels
