"""Improved deep leakage from gradients (Zhao, Mopuri and Bilen 2020, arXiv 2001.02610)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attacks import matching
from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.catalog import IdlgConfig
from attacks.dlg import lbfgs
from attacks.matching import Recipe


class Idlg(Attack[IdlgConfig]):
    """Read the label from the head's gradient, then match in images alone (Algorithm 1).

    The label is the class whose entry of the head's bias gradient is negative; the paper's rule on weights
    needs non-negative features and is used only where there is no bias (`attacks.labels`). The paper takes
    one image; for several, labels are counted per class. The rest is DLG (`attacks.dlg`).
    """

    def solve(
        self, tasks: Iterable[AttackTask[IdlgConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks in turn."""
        return matching.solve(tasks, env, _recipe)


def _recipe(config: IdlgConfig) -> Recipe:
    return Recipe(
        cost="l2",
        total_variation=0.0,
        labels="infer",
        init="randn",
        restarts=config.restarts,
        optimizer=lambda problem: lbfgs(config, problem),
    )
