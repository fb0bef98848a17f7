"""Shadow inversion: the generator learns what an attacker could make of the batch's update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef.adam import Adam
from defenses.shadowdef.objective import objective
from defenses.shadowdef.rehearsal import Probe, Trace
from defenses.shadowdef.shadow import Shadow
from fl.types import Tensors


def invert(
    shadow: Shadow,
    styles: Tensor,
    probe: Probe,
    *,
    truth: Tensor,
    labels: Tensor,
    goal: Trace,
    config: ShadowDefConfig,
    lr: float,
    normalise: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return the synthesis weights after `shadow_steps` Adam steps; the shadow's own stay.

    The mapping network and the latent vectors are fixed, and no moments are left from other batches.

    Args:
        shadow: The generator.
        styles: Of the batch, `n x latent`.
        probe: Traces of the shadow's images.
        truth: The batch, `n x C x H x W` in [0, 1].
        labels: Its labels.
        goal: Its trace.
        config: Steps and weights of the terms.
        lr: Adam's step size.
        normalise: From [0, 1] to the model's input space.
    """
    adam, names, values = Adam(lr), list(shadow.weights), list(shadow.weights.values())
    fixed, inputs = styles.detach(), normalise(truth)
    for _ in range(config.shadow_steps):
        leaves = [value.detach().requires_grad_() for value in values]
        drawn = shadow.images(fixed, dict(zip(names, leaves, strict=True)))
        loss = objective(config, normalise(drawn), inputs, probe(drawn, labels), goal)
        values = adam.step(leaves, torch.autograd.grad(loss, leaves))
    return dict(zip(names, values, strict=True))


def mixed(tuned: Tensors, old: Tensors, share: float) -> dict[str, Tensor]:
    """Return share x tuned + (1 - share) x old, weight by weight."""
    return {name: share * tensor + (1 - share) * old[name] for name, tensor in tuned.items()}
