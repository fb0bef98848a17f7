"""Deep leakage from gradients (Zhu, Liu and Han, NeurIPS 2019, arXiv 1906.08935)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attacks import matching
from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.catalog import DlgConfig
from attacks.matching import Recipe
from attacks.objectives import squared_norm
from attacks.optimizers import Lbfgs
from attacks.problem import Problem


class Dlg(Attack[DlgConfig]):
    """Find images x' and label logits y' whose gradient is the observed one (Algorithm 1).

    argmin over x', y' of sum_i ||grad_i L(f(x'), softmax(y')) - g_i||^2, by L-BFGS from N(0, 1), with one row
    of logits per image (sigmoid for binary and multilabel tasks). A third to a tenth of first guesses end in
    a poor local minimum, which shows in the matching loss: hence restarts. Departures from the reference: a
    restart ends when it is solved or stuck, an objective that stops being finite ends it at the last finite
    iterate, images are clamped to [0, 1] at the end, and labels that the threat model grants are not guessed.
    """

    def solve(
        self, tasks: Iterable[AttackTask[DlgConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks in turn."""
        return matching.solve(tasks, env, _recipe)


def lbfgs(config: DlgConfig, problem: Problem) -> Lbfgs:
    """Return L-BFGS that is content with a share of the observed gradient's squared norm."""
    return Lbfgs(
        iterations=config.iterations,
        solved=config.tolerance * float(squared_norm(problem.observed)),
        patience=config.patience,
    )


def _recipe(config: DlgConfig) -> Recipe:
    return Recipe(
        cost="l2",
        total_variation=0.0,
        labels="joint",
        init="randn",
        restarts=config.restarts,
        optimizer=lambda problem: lbfgs(config, problem),
    )
