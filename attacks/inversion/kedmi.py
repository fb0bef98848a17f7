"""Knowledge-enriched distributional model inversion (Chen, Kahla, Jia and Qi 2021, arXiv 2010.04092)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_kedmi import KedmiConfig
from attacks.inversion.diversity import diversity
from attacks.inversion.gan_request import GAN
from attacks.inversion.groups import Group, GroupAttack
from attacks.inversion.kedmi_gan import discriminator
from attacks.inversion.kedmi_losses import realism
from attacks.inversion.search import Evaluated, search
from fl.generators.stage import load

if TYPE_CHECKING:
    from torch import Tensor


class Kedmi(GroupAttack[KedmiConfig]):
    """Fit a Gaussian of latent vectors to each label, then draw images from it.

    The GAN was trained with the attacked model (`attacks.inversion.kedmi_gan`). All labels are a batch, which
    the discriminator compares; neither Gaussians nor draws are chosen among.
    """

    def invert(self, group: Group[KedmiConfig]) -> Iterable[Reconstruction | TaskFailure]:
        """Recover all labels of a trial together."""
        recovery = _Recovery(group)
        iterations = group.allowed(group.config.iterations)
        return search(group, iterations, step=recovery.step, last=recovery.draw)


class _Recovery:
    """The Gaussians of one trial's n labels."""

    def __init__(self, group: Group[KedmiConfig]) -> None:
        self._group, self._config = group, group.config
        artifact = group.artifact(GAN)
        self._generator = load(artifact, group.device)
        self._critic = discriminator(artifact, group.device)
        shape = (len(group.tasks), self._generator.latent)
        self._means = torch.zeros(shape, device=group.device)
        self._logvars = torch.full(shape, self._config.first_logvar, device=group.device)
        self._optimizer = torch.optim.Adam((self._means, self._logvars), lr=self._config.lr)
        self._noise = [task.streams.torch("latent_noise") for task in group.tasks]

    def step(self) -> Evaluated:
        """Take a step of Adam; return what was there before it, one image of each label."""
        width = self._means.shape[1]
        noise = torch.stack([torch.randn(width, generator=stream) for stream in self._noise])
        variables = (self._means.requires_grad_(), self._logvars.requires_grad_())
        images, terms = self._evaluate(self._latents(noise.to(self._group.device)))
        slopes = torch.autograd.grad(terms["total"].mean(), variables)
        for variable, slope in zip(variables, slopes, strict=True):
            variable.requires_grad_(False).grad = slope
        self._optimizer.step()
        return Evaluated(images.detach()[:, None], terms)

    def draw(self) -> Evaluated:
        """Return images drawn from the Gaussians, and the terms' means over samples."""
        noise = self._group.draw(self._generator.latent, self._config.samples)
        drawn = [self._evaluate(self._latents(each)) for each in noise.unbind(1)]
        terms = {name: torch.stack([each[name] for _, each in drawn]).mean(0) for name in drawn[0][1]}
        return Evaluated(torch.stack([images for images, _ in drawn], 1), terms)

    def _latents(self, noise: Tensor) -> Tensor:
        """From N(0, I) to the labels' latent vectors, both `n x latent`."""
        latents = self._means + (self._logvars / 2).exp() * noise
        match self._config.bounds:
            case "none":
                return latents
            case "clamp":
                return latents.clamp(-1, 1)
            case "tanh":
                return latents.tanh()

    def _evaluate(self, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image for each label, and the terms of the objective, each `n` or shared by all."""
        group, config = self._group, self._config
        images = self._generator(latents)
        features = self._critic.features(images)
        terms = {
            "realism": realism(self._critic.classify(features)),
            "identity": F.cross_entropy(group.logits(images), group.labels, reduction="none"),
        }
        total = terms["realism"] + config.identity_weight * terms["identity"]
        if config.diversity.weight:
            compared = features if config.diversity.features == "critic" else images
            terms["diversity"] = diversity(compared, group.labels, config.diversity)
            total = total + config.diversity.weight * terms["diversity"]
        return images, {**terms, "total": total}
