"""Training on labels mixed with the uniform distribution."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_batch import LabelSmoothingConfig
from defenses.soft_labels import soft_labels


@dataclass(frozen=True)
class LabelSmoothing(Defense[LabelSmoothingConfig]):
    """Replace a label y by (1 - epsilon) y + epsilon u, u uniform over what the label can be.

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7, for softmax: u = 1 / classes. A sigmoid output
    has two outcomes, so there u = 1 / 2. Epsilon may be negative (Struppek et al. 2024, arXiv 2310.06549).
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that trains on smoothed labels."""
        return _SmoothLabels(self.config.epsilon)


class _SmoothLabels(ClientDefense):
    def __init__(self, epsilon: float) -> None:
        self._epsilon = epsilon

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        if self._epsilon == 0:
            return batch
        task = step.trainer.task
        uniform = 1 / task.classes if task.kind == "multiclass" else 0.5
        labels = soft_labels(batch.labels, task, like=batch.images)
        return replace(batch, labels=(1 - self._epsilon) * labels + self._epsilon * uniform)
