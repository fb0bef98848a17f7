"""What the adaptive attacker's side of a defense must be, checked."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from defenses.base import Defense, Params
from fl.cards import DefenseCard
from fl.specs import Config
from fl.types import Tensors


def check_adaptation(card: DefenseCard[Any], config: Config) -> None:
    """Check that a defense says how an adaptive attacker accounts for it in a configuration."""
    reason = card.unmirrored(config)
    accounted = (card.mirrored and reason is None) or card.unperturbs or bool(reason and reason.strip())
    assert accounted, (
        f"expected of defense {card.name!r} a mirror (card.mirrored), `unperturb` (card.unperturbs), or the "
        "reason why there is neither (card.unmirrored), got none of them"
    )


def check_mirror(defense: Defense[Any], params: list[Params], clean: Tensors) -> None:
    """Check that a mirror vectorizes over lanes, leaves its input alone and has finite derivatives.

    Args:
        defense: The defense.
        params: What was estimated of two observations.
        clean: Gradients of the first lane; the second has twice these.
    """
    lanes = [clean, {name: 2 * tensor for name, tensor in clean.items()}]
    stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in clean}
    together = torch.vmap(defense.mirror)(tree_map(lambda *leaves: torch.stack(leaves), *params), stacked)
    for index, (lane, its) in enumerate(zip(lanes, params, strict=True)):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in lane.items()}
        alone = defense.mirror(its, leaves)
        for name, tensor in lane.items():
            assert torch.equal(leaves[name], tensor), f"expected the mirror to leave {name!r} alone"
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][index], tensor.detach())
        energy = torch.stack([tensor.square().sum() for tensor in alone.values()]).sum()
        for derivative in torch.autograd.grad(energy, list(leaves.values())):
            assert bool(derivative.isfinite().all()), "expected finite derivatives of the mirror"
