"""The attacker who knows ShadowDef: it runs the mechanism on its own guess and takes the result away.

It has the public generator, the model sent and the schedules, but not the client's weights, latent vectors or
maps. It looks for the batch x with x + delta(x) = y, y the batch that it recovered, by x <- y - delta(x).
Other latent vectors give other noise, so delta is estimated from several (`estimate`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.base import AdversaryContext, Batch, Step
from defenses.cards_shadowdef import GENERATOR, ShadowDefConfig
from defenses.shadowdef.latents import fit_latents
from defenses.shadowdef.mechanism import Mechanism
from defenses.shadowdef.rehearsal import received_model
from defenses.shadowdef.shadow import public_shadow
from fl.seeds import Streams
from fl.trainers import UnrolledTrainer
from fl.types import LocalTraining, PublicData

FIXED_POINT_STEPS = 3
LATENT_DRAWS = 2
PUBLIC_IMAGES = 8
"""Public images that the expected offset is averaged over."""


def unperturb(config: ShadowDefConfig, images: Tensor, labels: Tensor, context: AdversaryContext) -> Tensor:
    """Return the private batch, `n x C x H x W` and not clamped, as far as the attacker can tell.

    White noise cannot be foreseen, and of permuted noise only its mean over the image.

    Args:
        config: The defense's.
        images: The batch that was trained on, as recovered.
        labels: Its labels.
        context: What else the attacker has.
    """
    if config.off or config.placement == "gaussian" or not len(images):
        return images
    with torch.enable_grad():
        mimic = _Mimic(config, context, images)
        private = images if context.public is None else images - mimic.expected(context.public)
        latents = mimic.latents(private, LATENT_DRAWS)
        for _ in range(FIXED_POINT_STEPS):
            private = images - mimic.offset(private, labels, latents)
    return private


def estimate(drawn: Tensor) -> Tensor:
    """Return the likeliest next draw, `n x C x H x W`, after `draws x n x C x H x W` independent ones.

    The mean of d draws is off by their variance over d. Its pixels are drawn towards each channel's mean by
    the share of their variance that this explains: not at all where the draws agree, all the way where they
    have nothing in common (empirical Bayes; James and Stein 1961, Estimation with quadratic loss). One draw
    is taken as it is.
    """
    mean = drawn.mean(0)
    if len(drawn) == 1:
        return mean
    centre = mean.mean((2, 3), keepdim=True)
    error = drawn.var(0).mean((1, 2, 3), keepdim=True) / len(drawn)
    spread = (mean - centre).square().mean((1, 2, 3), keepdim=True)
    trust = 1 - error / torch.where(spread > 0, spread, torch.ones_like(spread))
    return centre + trust.clamp(0, 1) * (mean - centre)


class _Mimic:
    """A client as the attacker imagines it, new to the federation.

    Args:
        config: The defense's.
        context: What the attacker has.
        images: Recovered images; their device and number count.
    """

    def __init__(self, config: ShadowDefConfig, context: AdversaryContext, images: Tensor) -> None:
        observation, device = context.observation, images.device
        local = observation.knowledge.local_training
        local = local or LocalTraining(lr=1.0, steps=1, batch_size=len(images), epochs=1)
        self._n, self._task, self._image = len(images), observation.task, observation.image
        self._streams = Streams(int(torch.randint(2**62, (), generator=context.stream)))
        self._spread = config.placement == "permuted"
        config = config.model_copy(update={"placement": "map"})
        self._mechanism = Mechanism(config, context.rounds, local.batch_size)
        self._shadow = public_shadow(context.artifacts[GENERATOR], config, self._streams, device)
        self._trainer = UnrolledTrainer(
            context.build(observation.sent),
            observation.sent,
            task=observation.task,
            image=observation.image,
            local=local,
            device=device,
            differentiable=False,
        )
        self._model = received_model(self._trainer, observation.sent)
        stream = self._streams.torch("step")
        self._step = Step(observation.history[-1].round, 0, stream, observation.sent, self._trainer)

    def expected(self, public: PublicData) -> Tensor:
        """Return the mean offset of public images, `C x H x W`, in batches as large as the target's."""
        images = public.images[:PUBLIC_IMAGES].to(next(self._model.parameters()).device)
        latents = self.latents(images, 1)
        parts = zip(torch.split(images, self._n), torch.split(latents, self._n, dim=1), strict=True)
        return torch.cat([self.offset(batch, self._predicted(batch), its) for batch, its in parts]).mean(0)

    def latents(self, images: Tensor, draws: int) -> Tensor:
        """Return latent vectors fitted to each image from several draws, `draws x n x latent`."""
        config, n = self._mechanism.config, len(images)
        drawn = torch.randn(draws * n, self._shadow.latent, generator=self._streams.torch("latent"))
        latents = drawn.to(images.device)
        if not config.has("random_latents"):
            repeated = images.repeat(draws, 1, 1, 1)
            latents = fit_latents(self._shadow, repeated, latents, config=config, image=self._image)
        return latents.view(draws, n, -1)

    def offset(self, images: Tensor, labels: Tensor, latents: Tensor) -> Tensor:
        """Return the estimate of what such a client adds to a batch of images, `n x C x H x W`."""
        batch, mechanism = Batch(images, labels, tuple(map(str, range(len(images))))), self._mechanism
        area = mechanism.salient(self._step, batch, self._model)
        noises = [self._noise(its, batch) for its in latents]
        drawn = torch.stack([mechanism.offset(noise, area, self._step, batch) for noise in noises])
        return drawn.mean((0, 3, 4), keepdim=True)[0].expand_as(images) if self._spread else estimate(drawn)

    def _noise(self, latents: Tensor, batch: Batch) -> Tensor:
        styles = self._shadow.styles(latents).detach()
        weights = self._mechanism.tune(self._shadow, styles, self._step, batch, self._model)
        return self._mechanism.noise(self._shadow.images(styles, weights), self._step, batch)

    def _predicted(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self._model(self._image.normalise(images))
        predicted: Tensor = logits.argmax(1) if self._task.kind == "multiclass" else (logits > 0).float()
        return predicted
