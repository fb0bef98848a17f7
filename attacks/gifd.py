"""Generative gradient inversion in feature domains (Fang et al., ICCV 2023, arXiv 2308.04699)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.cards_generative import PRIOR
from attacks.cards_gifd import GifdConfig
from attacks.generative_plan import Features, Phase, Plan, recipe


class Gifd(Attack[GifdConfig]):
    """Find latent vectors, then the features that enter one block of the generator after the other.

    With G = G_K o ... o G_0: first argmin over z of the cost of G(z); then, for k = 1, 2, ..., over the
    features v that enter block k, starting at what block k - 1 made of the last phase's, and held within an
    l1 ball of radius r_k around it (section 3.2). All restarts walk all the way; the answer is the iterate
    with the lowest matching cost of all. Labels are those granted, else inferred (`attacks.labels`).
    """

    def solve(
        self, tasks: Iterable[AttackTask[GifdConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks side by side where their model allows it."""
        from attacks.engine import generative

        yield from generative.solve(tasks, env, _plan, prior=PRIOR)


def _plan(config: GifdConfig) -> Plan:
    phase = Phase(config.iterations, config.lr, decay=None)
    return Plan(
        recipe=recipe(config, restarts=config.restarts, steps=config.iterations, lr=config.lr),
        restarts=config.restarts,
        latent=phase,
        parameters=None,
        features=Features(phase, config.bounds),
        latent_norm=config.latent_norm,
    )
