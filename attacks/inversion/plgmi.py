"""Pseudo-label-guided model inversion (Yuan et al. 2023, arXiv 2302.09814)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_plgmi import PlgmiConfig
from attacks.inversion.diversity import diversity
from attacks.inversion.gan_request import GAN
from attacks.inversion.groups import Group, GroupAttack
from attacks.inversion.plgmi_gan import discriminator, margin
from attacks.inversion.views import DRAWS, views
from attacks.optimizers import SNAPSHOTS
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
        return _Search(group).run()


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
        self._draws = [task.streams.torch("view_draws") for task in group.tasks]

    def run(self) -> Iterable[Reconstruction | TaskFailure]:
        """Search and answer."""
        group, each = self._group, self._config.views_each
        iterations = group.allowed(self._config.iterations * each) // each
        stride = max(1, iterations // SNAPSHOTS)
        best = torch.full(self._shape[:1], torch.inf, device=group.device)
        for iteration in range(iterations):
            if group.stopping():
                return group.stopped()
            images, terms = self._step()
            best = torch.minimum(best, terms["total"])
            if iteration % stride == 0:
                group.record(iteration, terms, best, images)
        with torch.no_grad():
            images, terms = self._evaluate()
        group.record(iterations, terms, torch.minimum(best, terms["total"]), images)
        return group.reconstructions(images, terms, evaluations=iterations * each, iterations=iterations)

    def _step(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Take a step of Adam; return the images and terms before it."""
        self._latents.requires_grad_()
        images, terms = self._evaluate()
        (slope,) = torch.autograd.grad(terms["total"].mean(), self._latents)
        self._latents.requires_grad_(False).grad = slope
        self._optimizer.step()
        return images.detach(), {name: term.detach() for name, term in terms.items()}

    def _evaluate(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the images, `n x samples x C x H x W`, and the terms, each `n` or shared by all."""
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
        return images.view(*self._shape, *images.shape[1:]), {**terms, "total": total}

    def _view_draws(self) -> list[Tensor]:
        """Return draws for one view of every image, `views_each` times."""
        each, samples = self._config.views_each, self._shape[1]
        drawn = [torch.rand(each, samples, DRAWS, generator=stream) for stream in self._draws]
        return list(torch.cat(drawn, 1).unbind(0))
