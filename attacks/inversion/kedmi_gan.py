"""The stage that trains KED-MI's GAN on the public images and the attacked model.

Source: Chen et al. 2021, arXiv 2010.04092; where the paper is silent, the authors' code. There
the attacked model's batch norms keep counting while it labels the public images; here it stays as observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.inversion.cards_kedmi import KedmiGanConfig
from attacks.inversion.gan_training import (
    Attacked,
    GanTraining,
    described,
    load_critic,
    new_generator,
)
from attacks.inversion.kedmi_critic import KedmiCritic, KedmiShape
from attacks.inversion.kedmi_losses import discriminator_loss, feature_matching, summed_entropy
from fl.generators.layout import Layout
from fl.generators.stage import public_images
from fl.specs import JSON
from fl.types import Artifact

if TYPE_CHECKING:
    from fl.seeds import Streams
    from fl.stage_context import StageContext

BETAS = (0.5, 0.999)


def train(config: Mapping[str, JSON], inputs: Mapping[str, Artifact], context: StageContext) -> Artifact:
    """Train the GAN that KED-MI's card asks for.

    Returns:
        As `GanTraining.finish`, and the discriminator's `shape`.

    Raises:
        DataUnavailableError: If there are no public images.
        NotApplicableError: If there is no attacked model.
        BenchError: If the attacked model's outputs are not finite, or the training diverged.
    """
    held: Any = config
    gan = KedmiGanConfig(**held["gan"])
    attacked = Attacked.of(context)
    images = public_images(context.public).to(context.device)
    training = KedmiTraining(gan, images, attacked, context.streams)
    return described(training.finish(gan.steps, context), shape=training.shape.document())


def discriminator(artifact: Artifact, device: torch.device) -> KedmiCritic:
    """Return the discriminator of the stage's artifact, in eval mode, without gradients of its weights."""
    shape: Any = artifact.data["shape"]
    critic = KedmiCritic(KedmiShape(**shape))
    load_critic(critic, artifact, device)
    return critic


class KedmiTraining(GanTraining):
    """The GAN in training; a step is one of the discriminator's.

    Args:
        config: How.
        images: The public images, `N x C x H x W` in [0, 1], on the device to compute on.
        attacked: Whose soft labels are learned.
        streams: Every draw's.
    """

    def __init__(self, config: KedmiGanConfig, images: Tensor, attacked: Attacked, streams: Streams) -> None:
        image = attacked.image
        self.shape = KedmiShape(
            image.channels,
            image.size,
            attacked.classes,
            config.width,
            config.kernels,
            config.kernel_dimensions,
        )
        critic = KedmiCritic(self.shape)
        critic.draw(streams.torch("critic_weights"), kernel_deviation=config.kernel_deviation)
        layout = Layout(config.architecture, image.channels, image.size, config.latent, config.width)
        super().__init__(
            new_generator(layout, streams),
            critic,
            lr=config.lr,
            betas=BETAS,
            streams=streams,
            device=images.device,
        )
        self._critic, self._config, self._images = critic, config, images
        self._soft_labels = attacked.probabilities(images)

    def step(self) -> None:
        """Train the discriminator, and the generator each time it is due."""
        streams = self.streams.at(step=self.done)
        self._train_critic(streams.torch("critic_step"))
        self.done += 1
        if self.done % self._config.critic_steps == 0:
            self._train_generator(streams.torch("generator_step"))

    def _train_critic(self, stream: torch.Generator) -> None:
        labelled, unlabelled = self._drawn(stream), self._drawn(stream)
        with torch.no_grad():
            generated = self.generator(self.latents(self._config.batch_size, stream))
        loss = discriminator_loss(
            self._critic(self._images[labelled]),
            self._soft_labels[labelled],
            self._critic(self._images[unlabelled]),
            self._critic(generated),
        )
        self.descend("critic", loss)

    def _train_generator(self, stream: torch.Generator) -> None:
        real = self._critic.features(self._images[self._drawn(stream)]).detach()
        generated = self._critic.features(self.generator(self.latents(self._config.batch_size, stream)))
        entropy = summed_entropy(self._critic.classify(generated))
        self.descend("generator", feature_matching(generated, real) + self._config.entropy * entropy)

    def _drawn(self, stream: torch.Generator) -> Tensor:
        """Return positions of public images."""
        return torch.randint(len(self._images), (self._config.batch_size,), generator=stream).to(self.device)
