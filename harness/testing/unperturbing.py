"""What an adaptive attacker takes out of a batch, checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.base import Defense
from harness.testing.problems import SmallProblem


def check_unperturb(defense: Defense[Any], problem: SmallProblem, trained_on: Tensor) -> None:
    """Check that `unperturb` comes nearer to the private batch, purely and repeatably.

    Args:
        defense: The defense.
        problem: A client under it.
        trained_on: What its client's batch became, `n x C x H x W`.
    """
    given, generator = trained_on.clone(), torch.get_rng_state()
    before = _error(trained_on, problem.images)
    for public in (True, False):
        found, again = (
            defense.unperturb(given, problem.labels, problem.adversary(public=public)) for _ in range(2)
        )
        assert found.shape == given.shape, f"expected {tuple(given.shape)}, got {tuple(found.shape)}"
        assert torch.equal(found, again), "expected equal bits from the same stream"
        after = _error(found, problem.images)
        assert after < before, f"expected an error below {before:g}, got {after:g} (public: {public})"
    assert torch.equal(given, trained_on), "expected unperturb to leave its input alone"
    assert torch.equal(generator, torch.get_rng_state()), "expected draws from the context's stream only"
    wild = defense.unperturb(4 * trained_on - 1.5, problem.labels, problem.adversary())
    assert bool(wild.isfinite().all()), "expected finite images from ones outside [0, 1]"


def _error(images: Tensor, truth: Tensor) -> float:
    return float((images - truth).square().mean())
