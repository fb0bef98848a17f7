"""Gradient inversion with generative image prior (Jeon et al., NeurIPS 2021, arXiv 2110.14962)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.cards_generative import PRIOR, GiasConfig
from attacks.generative_plan import Phase, Plan, recipe


class Gias(Attack[GiasConfig]):
    """Find latent vectors, then weights, of a generator whose images have the observed gradient.

    First argmin over z of D(grad L(f(G(z)), y), g) + weights x priors (equation 5), from several first
    vectors; then, from the best of them, the same over the weights of one copy of G per image (equation 6),
    by Adam. The answer is the iterate with the lowest matching cost of all. Labels are those granted, else
    inferred (`attacks.labels`). A weight delta counts as one step of its length.
    """

    def solve(
        self, tasks: Iterable[AttackTask[GiasConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks side by side where their model allows it."""
        from attacks.engine import generative

        yield from generative.solve(tasks, env, _plan, prior=PRIOR)


def _plan(config: GiasConfig) -> Plan:
    iterations = config.parameter_iterations
    return Plan(
        recipe=recipe(config, restarts=config.restarts, steps=config.latent_iterations, lr=config.latent_lr),
        restarts=config.restarts,
        latent=Phase(config.latent_iterations, config.latent_lr, config.decay),
        parameters=Phase(iterations, config.parameter_lr, config.decay) if iterations else None,
        latent_norm=config.latent_norm,
    )
