"""Training on convex combinations of a batch's images and labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.special import betaincinv

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_batch import MixupConfig
from defenses.soft_labels import soft_labels


@dataclass(frozen=True)
class Mixup(Defense[MixupConfig]):
    """Replace (x_i, y_i) by lambda (x_i, y_i) + (1 - lambda) (x_p(i), y_p(i)).

    Lambda ~ Beta(alpha, alpha) and the permutation p of the batch are drawn anew at every step. Source: Zhang
    et al. 2018, arXiv 1710.09412, section 2 and its listing. An image that p leaves in place, as one alone in
    its batch is, is mixed with itself: not at all.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that trains on mixed images."""
        return _Mix(self.config.alpha)


class _Mix(ClientDefense):
    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        if self._alpha == 0:
            return batch
        share = _share(self._alpha, step.stream)
        partner = torch.randperm(len(batch), generator=step.stream).to(batch.images.device)
        labels = soft_labels(batch.labels, step.trainer.task, like=batch.images)
        return replace(
            batch,
            images=torch.lerp(batch.images[partner], batch.images, share),
            labels=torch.lerp(labels[partner], labels, share),
        )


def _share(alpha: float, stream: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha), as the quantile of a uniform draw that every alpha shares."""
    uniform = float(torch.rand((), generator=stream, dtype=torch.float64))
    return float(betaincinv(alpha, alpha, uniform))
