"""GMI (Zhang et al., CVPR 2020, arXiv 1911.07135), with FedInverse's term for diversity (Wu et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_gmi import GmiConfig
from attacks.inversion.config import PRIOR
from attacks.inversion.diversity import diversity
from attacks.inversion.groups import Group, GroupAttack
from attacks.optimizers import SNAPSHOTS

if TYPE_CHECKING:
    from torch import Tensor

    from fl.generators.architecture import Critic

MOST_IMAGES = 256
"""Of a trial's images, so many at a time pass through the networks with all that a derivative needs."""


class Gmi(GroupAttack[GmiConfig]):
    """Minimise -D(G(z)) + 100 CE(T(G(z)), y) in latent vectors z.

    D is the critic that the generator G was trained against, T the attacked model and y the label. As
    released, losses are means over the labels that are attacked together, and momentum is Nesterov's in the
    form of `step`. All images are handed over: the released code has one run per image and label, `samples`
    here, and chooses among them by nothing.
    """

    def invert(self, group: Group[GmiConfig]) -> Iterable[Reconstruction | TaskFailure]:
        """Search for all images of all labels at once."""
        config, objective = group.config, Objective(group)
        iterations = group.allowed(config.iterations)
        stride = max(1, iterations // SNAPSHOTS)
        latents = group.draw(group.generator.latent, config.samples)
        velocity = torch.zeros_like(latents)
        best = torch.full((len(group.tasks),), torch.inf, device=group.device)
        for iteration in range(iterations):
            if group.stopping():
                return group.stopped()
            latents.requires_grad_()
            found = objective(latents)
            (slope,) = torch.autograd.grad(found.terms["total"].mean(), latents)
            best = torch.minimum(best, found.terms["total"].detach())
            if iteration % stride == 0:
                group.record(iteration, found.terms, best, found.images)
            latents, velocity = step(latents.detach(), velocity, slope, config)
        with torch.no_grad():
            found = objective(latents)
        group.record(iterations, found.terms, torch.minimum(best, found.terms["total"]), found.images)
        return group.reconstructions(found.images, found.terms, evaluations=iterations, iterations=iterations)


def step(latents: Tensor, velocity: Tensor, slope: Tensor, config: GmiConfig) -> tuple[Tensor, Tensor]:
    """Return where one step leads: latent vectors, kept in the box, and their velocity.

    v' = m v - lr g and z' = z - m v + (1 + m) v', m being the momentum and g the slope: Nesterov's momentum
    in the variables of its look-ahead.
    """
    momentum = config.momentum
    following = momentum * velocity - config.lr * slope
    moved = latents - momentum * velocity + (1 + momentum) * following
    return moved.clamp(-config.clamp, config.clamp), following


class Evaluated(NamedTuple):
    """The objective of a trial's latent vectors.

    Attributes:
        terms: By name: `critic` and `identity`, `n`, means over a label's images, unweighted; `diversity`,
            one number of all images, unweighted; `total`, `n`, whose mean over labels is minimised.
        images: `n x samples x C x H x W`, without a graph.
    """

    terms: dict[str, Tensor]
    images: Tensor


@dataclass(frozen=True)
class Objective:
    """What is minimised in the latent vectors of a trial.

    Attributes:
        group: The trial's tasks.
    """

    group: Group[GmiConfig]

    @cached_property
    def critic(self) -> Critic:
        """What the generator was trained against, on the device."""
        from fl.generators.stage import load_critic

        return load_critic(self.group.artifact(PRIOR), self.group.device)

    def __call__(self, latents: Tensor) -> Evaluated:
        """Evaluate at latent vectors, `n x samples x latent`.

        A released batch has one image of each label. So what is minimised is the mean over labels, summed
        over samples: how far a latent vector moves depends on how many labels there are, and not on how many
        samples.
        """
        group, config = self.group, self.group.config
        n, samples = latents.shape[:2]
        labels = group.labels.repeat_interleave(samples)
        found = self._images(latents.flatten(0, 1), labels)
        realism, identity = found.realism.reshape(n, samples), found.identity.reshape(n, samples)
        terms = {"critic": realism.mean(1), "identity": identity.mean(1)}
        total = (realism + config.identity_weight * identity).sum(1)
        if config.diversity.weight:
            terms["diversity"] = diversity(found.compared, labels, config.diversity)
            total = total + config.diversity.weight * terms["diversity"]
        terms["total"] = total
        return Evaluated(terms, found.images.detach().reshape(n, samples, *found.images.shape[1:]))

    def _images(self, latents: Tensor, labels: Tensor) -> _Images:
        """Evaluate at `m x latent`; of many images, graphs are kept of `MOST_IMAGES` at a time."""
        if len(latents) <= MOST_IMAGES:
            return self._evaluated(latents, labels)
        chunks = (torch.split(tensor, MOST_IMAGES) for tensor in (latents, labels))
        parts = [
            checkpoint(self._evaluated, *chunk, use_reentrant=False, preserve_rng_state=False)
            for chunk in zip(*chunks, strict=True)
        ]
        return _Images(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _evaluated(self, latents: Tensor, labels: Tensor) -> _Images:
        images = self.group.generator(latents)
        by_pixels = self.group.config.diversity.features == "pixels"
        return _Images(
            images=images,
            realism=-self.critic(images),
            identity=F.cross_entropy(self.group.logits(images), labels, reduction="none"),
            compared=images if by_pixels else self.critic.features(images),
        )


class _Images(NamedTuple):
    """What is said of m images: `images` and, for the term for diversity, `compared` are `m x ...`."""

    images: Tensor
    realism: Tensor
    identity: Tensor
    compared: Tensor
