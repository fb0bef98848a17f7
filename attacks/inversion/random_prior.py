"""The floor of attacks on a global model: what the prior draws without being asked for anything."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_random_prior import RandomPriorConfig
from attacks.inversion.groups import Group, GroupAttack


class RandomPrior(GroupAttack[RandomPriorConfig]):
    """Random images of the generator: those that `gmi` starts from."""

    def invert(self, group: Group[RandomPriorConfig]) -> Iterable[Reconstruction | TaskFailure]:
        """Draw the images of every label."""
        latents = group.draw(group.generator.latent, group.config.samples)
        with torch.no_grad():
            images = group.generator(latents.flatten(0, 1))
        drawn = images.reshape(*latents.shape[:2], *images.shape[1:])
        return group.reconstructions(drawn, {}, evaluations=0, iterations=0)
