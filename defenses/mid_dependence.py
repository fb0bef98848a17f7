"""Logits that depend less on the images: what FedInverse's released code calls MID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_dependence import MidDependenceConfig
from fl.dependence import ESTIMATORS, kernel_matrix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MidDependence(Defense[MidDependenceConfig]):
    """Add lambda_x d(X, logits) to the loss, X the images in [0, 1].

    Source: the released code of Peng et al. 2022, arXiv 2206.05483, and of Wu et al. 2024 (FedInverse), where
    training without hidden layers means this. A batch of too few images to measure d on has the task's loss
    alone, and so has every batch with `lambda_x: 0`.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client with this loss."""
        return _Independent(self.config)


class _Independent(ClientDefense):
    def __init__(self, config: MidDependenceConfig) -> None:
        self._config = config

    def loss(self, step: Step, batch: Batch) -> Tensor:
        config = self._config
        if config.lambda_x == 0 or len(batch) < config.smallest_batch:
            return super().loss(step, batch)
        logits = step.trainer.forward(batch.images)
        of_images = kernel_matrix(batch.images, config.kernel, config.bandwidth)
        of_logits = kernel_matrix(logits, config.logit_kernel, config.bandwidth)
        dependence = ESTIMATORS[config.measure, config.estimator]
        penalty = config.lambda_x * dependence(of_logits, of_images)
        return step.trainer.task_loss(logits, batch.labels) + penalty.to(logits.dtype)
