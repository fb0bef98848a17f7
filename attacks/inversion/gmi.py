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
from attacks.inversion.search import Evaluated, search

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
        here = _Search(group)
        return search(group, group.allowed(group.config.iterations), step=here.step, last=here.evaluate)


class _Search:
    """The latent vectors of one trial's n labels, `samples` each, on their way."""

    def __init__(self, group: Group[GmiConfig]) -> None:
        self._config, self._objective = group.config, Objective(group)
        self._latents = group.draw(group.generator.latent, group.config.samples)
        self._velocity = torch.zeros_like(self._latents)

    def step(self) -> Evaluated:
        """Take a step; return what was there before it."""
        self._latents.requires_grad_()
        found = self.evaluate()
        (slope,) = torch.autograd.grad(found.terms["total"].mean(), self._latents)
        self._latents, self._velocity = step(self._latents.detach(), self._velocity, slope, self._config)
        return found

    def evaluate(self) -> Evaluated:
        """Return the images of the latent vectors and the terms there."""
        return self._objective(self._latents)


def step(latents: Tensor, velocity: Tensor, slope: Tensor, config: GmiConfig) -> tuple[Tensor, Tensor]:
    """Return where one step leads: latent vectors, kept in the box, and their velocity.

    All are `n x samples x latent`. v' = m v - lr g and z' = z - m v + (1 + m) v', m being the momentum and g
    the slope: Nesterov's momentum
    in the variables of its look-ahead.
    """
    momentum = config.momentum
    following = momentum * velocity - config.lr * slope
    moved = latents - momentum * velocity + (1 + momentum) * following
    return moved.clamp(-config.clamp, config.clamp), following


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
        samples. The terms `critic` and `identity` are means over a label's images, `diversity` is one number
        of all images.
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
        return Evaluated(found.images.detach().reshape(n, samples, *found.images.shape[1:]), terms)

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
