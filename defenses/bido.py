"""BiDO: hidden layers that depend less on the images and more on the labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_dependence import BidoConfig
from defenses.soft_labels import soft_labels
from fl.dependence import ESTIMATORS, kernel_matrix
from fl.models.base import Classifier


@dataclass(frozen=True)
class Bido(Defense[BidoConfig]):
    """Add sum_j lambda_x d(X, Z_j) - lambda_y d(Y, Z_j) to the loss, Z_j a hidden layer's outputs.

    Source: Peng et al. 2022, arXiv 2206.05483. X are the images in [0, 1], Y the labels (one-hot), and the
    hidden layers are the classifier's `blocks`. A batch of too few images to measure d on has the task's
    loss alone, and so has every batch with `lambda_x: 0`.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client with this loss."""
        return _Bilateral(self.config)


class _Bilateral(ClientDefense):
    def __init__(self, config: BidoConfig) -> None:
        self._config = config

    def loss(self, step: Step, batch: Batch) -> Tensor:
        if self._config.lambda_x == 0 or len(batch) < self._config.smallest_batch:
            return super().loss(step, batch)
        model = step.trainer.model
        assert isinstance(model, Classifier)
        with outputs(model.blocks.values()) as hidden:
            logits = step.trainer.forward(batch.images)
        labels = soft_labels(batch.labels, step.trainer.task, like=batch.images)
        penalty = self._config.lambda_x * self._penalty(batch.images, labels, hidden)
        return step.trainer.task_loss(logits, batch.labels) + penalty.to(logits.dtype)

    def _penalty(self, images: Tensor, labels: Tensor, hidden: list[Tensor]) -> Tensor:
        """Return the sum over layers of d(X, Z) - ratio d(Y, Z), a float64 scalar."""
        config = self._config
        dependence = ESTIMATORS[config.measure, config.estimator]
        of_images = kernel_matrix(images, config.kernel, config.bandwidth)
        of_labels = kernel_matrix(labels, config.label_kernel, config.bandwidth)
        terms = []
        for layer in hidden:
            kernels = kernel_matrix(layer, config.kernel, config.bandwidth)
            on_labels = config.label_ratio * dependence(kernels, of_labels)
            terms.append(dependence(kernels, of_images) - on_labels)
        return torch.stack(terms).sum()


@contextmanager
def outputs(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Gather what modules put out while the block lasts, in the order in which they do."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append(output)

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
