"""Pseudo-label-guided model inversion (Yuan et al. 2023, arXiv 2302.09814)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_plgmi import PlgmiConfig
from attacks.inversion.diversity import diversity
from attacks.inversion.gan_request import GAN
from attacks.inversion.groups import Group, GroupAttack
from attacks.inversion.plgmi_gan import discriminator, margin
from attacks.inversion.search import Evaluated, search
from attacks.inversion.views import DRAWS, views
from fl.generators.stage import load

if TYPE_CHECKING:
    from torch import Tensor


class Plgmi(GroupAttack[PlgmiConfig]):
    """Search the latent vectors of a GAN that draws by class, by a margin loss over random views.

    The GAN was trained on the attacked model's guesses (`attacks.inversion.plgmi_gan`). Every label is
    searched for from `samples` starts, and all ends are the answer.
    """

    def invert(self, group: Group[PlgmiConfig]) -> Iterable[Reconstruction | TaskFailure]:
        """Recover all labels of a trial together."""
        here, each = _Search(group), group.config.views_each
        iterations = group.allowed(group.config.iterations * each) // each
        return search(group, iterations, step=here.step, last=here.evaluate, evaluations_each=each)


class _Search:
    """The latent vectors of one trial's n labels, `samples` each."""

    def __init__(self, group: Group[PlgmiConfig]) -> None:
        self._group, self._config = group, group.config
        artifact, samples = group.artifact(GAN), group.config.samples
        self._generator = load(artifact, group.device)
        self._critic = discriminator(artifact, group.device)
        self._shape = (len(group.tasks), samples)
        self._labels = group.labels.repeat_interleave(samples)
        self._latents = group.draw(self._generator.latent, samples).flatten(0, 1)
        self._optimizer = torch.optim.Adam((self._latents,), lr=self._config.lr)
        self._draws = [
            task.streams.torch("view_draws", restart=start)
            for task in group.tasks
            for start in range(samples)
        ]

    def step(self) -> Evaluated:
        """Take a step of Adam; return what was there before it."""
        self._latents.requires_grad_()
        found = self.evaluate()
        (slope,) = torch.autograd.grad(found.terms["total"].mean(), self._latents)
        self._latents.requires_grad_(False).grad = slope
        self._optimizer.step()
        return found

    def evaluate(self) -> Evaluated:
        """Return the images of the latent vectors and the terms over views of them."""
        group, config = self._group, self._config
        images = self._generator(self._latents, self._labels)
        seen = torch.cat([views(images, draws, config.views) for draws in self._view_draws()])
        behind = margin(group.logits(seen), self._labels.repeat(config.views_each))
        total = behind.view(config.views_each, *self._shape).mean((0, 2))
        terms = {"margin": total}
        if config.diversity.weight:
            compared = self._critic.features(images) if config.diversity.features == "critic" else images
            terms["diversity"] = diversity(compared, self._labels, config.diversity)
            total = total + config.diversity.weight * terms["diversity"]
        images = images.detach().view(*self._shape, *images.shape[1:])
        return Evaluated(images, {**terms, "total": total})

    def _view_draws(self) -> list[Tensor]:
        """Return draws for one view of every image, `views_each` times; every start has its own stream."""
        drawn = [torch.rand(self._config.views_each, DRAWS, generator=stream) for stream in self._draws]
        return list(torch.stack(drawn, 1).unbind(0))
