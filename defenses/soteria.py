"""Soteria: gradients without the features that tell most about an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_representation import SoteriaConfig
from defenses.observed import one_gradient_of_one_image
from fl.types import ImageSpec, Observation, Tensors

HEAD = "head"
"""The module whose input is the representation (`fl.models.base.Classifier`)."""
HEAD_WEIGHT = f"{HEAD}.weight"
SMALLEST_FEATURE = 1e-10
"""Added to |r| in the score; from the reference implementation of Li et al. 2022, arXiv 2203.15696."""
SEEDS_AT_ONCE = 128
"""Derivatives, of one feature of one image each, that one backward pass carries."""


@dataclass(frozen=True)
class Soteria(Defense[SoteriaConfig]):
    """Prune the features r_f of smallest |dr_f/dx| / |r_f|, x the image as the model takes it.

    `original`: the features themselves are pruned, each image's own, and all gradients are those of what is
    left (Sun et al. 2021, arXiv 2012.06043, section 4). `ggl`: gradients are taken of whole features, and the
    head's weight gradient loses the columns of smallest mean score over the batch (Li et al. 2022, arXiv
    2203.15696; the code of Sun et al. does the same). With `percent: 0` nothing is done.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that prunes features."""
        return _Prune(self.config)

    def simulated(self, context: ClientContext, observation: Observation) -> ClientDefense:
        """Return a client that prunes what is seen to be pruned, where that is the same for all images."""
        masked = self.config.variant == "ggl" and observation.kind == "update"
        if not (masked or one_gradient_of_one_image(observation)):
            return _Prune(self.config)
        kept = self.estimate(observation)
        # Noise that came after leaves no column empty and tells nothing.
        return _Prune(self.config, None if bool(kept.all()) else kept)

    def estimate(self, observation: Observation) -> Tensor:
        """Return which columns of the head's weight are not all 0, `features` of 0 and 1."""
        weight = observation.update.tensors[HEAD_WEIGHT]
        return weight.ne(0).any(0).to(weight.dtype)

    def mirror(self, params: Tensor, gradients: Tensors) -> Tensors:
        """Drop the columns that the observation lacks."""
        weight = gradients[HEAD_WEIGHT]
        return {**gradients, HEAD_WEIGHT: weight * params.to(weight)}


class _Prune(ClientDefense):
    """Prunes by score, or at given features.

    Args:
        config: How much, and of what.
        kept: `features` of 0 and 1, where it is known which are kept of every image.
    """

    def __init__(self, config: SoteriaConfig, kept: Tensor | None = None) -> None:
        self._config = config
        self._kept = kept

    def gradients(self, step: Step, batch: Batch) -> Tensors:
        """Prune while the head computes: its input is the representation."""
        if self._config.percent == 0 or not len(batch):
            return super().gradients(step, batch)
        images = batch.images if batch.images.requires_grad else batch.images.detach().requires_grad_()
        masks: list[Tensor] = []

        def prune(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
            (features,) = inputs
            masks.append(self._mask(features, images, step.received.architecture.image))
            return (features * masks[-1],) if self._config.variant == "original" else None

        handle = step.trainer.model.get_submodule(HEAD).register_forward_pre_hook(prune)
        try:
            gradients = super().gradients(step, replace(batch, images=images))
        finally:
            handle.remove()
        if self._config.variant == "original":
            return gradients
        return {**gradients, HEAD_WEIGHT: gradients[HEAD_WEIGHT] * masks[-1]}

    def _mask(self, features: Tensor, images: Tensor, image: ImageSpec) -> Tensor:
        """Return 1 for features that are kept, else 0: `n x features`, or `features` for all images."""
        if self._kept is not None:
            return self._kept.to(features)
        scores = sensitivity(features, images, image)
        return kept_features(
            scores if self._config.variant == "original" else scores.mean(0), self._config.percent
        )


def sensitivity(features: Tensor, images: Tensor, image: ImageSpec) -> Tensor:
    """Return |dr_f/dx| / (|r_f| + 1e-10) of every feature of every image, `n x features`, without a graph.

    Features are taken to depend on their own image only, which they do unless batch norm uses batch
    statistics; then the other images' share is in the norm as well, as in the reference implementations.

    Args:
        features: `n x features`, with a graph back to `images`; the graph is kept.
        images: `n x C x H x W` in [0, 1].
        image: Their normalisation: the derivative is that in the model's input.
    """
    n, count = features.shape
    std = images.new_tensor(image.std).view(-1, 1, 1)
    norms = []
    for chosen in torch.split(torch.eye(count).to(features), max(SEEDS_AT_ONCE // n, 1)):
        seeds = chosen.unsqueeze(1).expand(-1, n, -1)
        (rows,) = torch.autograd.grad(features, images, seeds, retain_graph=True, is_grads_batched=True)
        norms.append(torch.linalg.vector_norm((rows * std).flatten(2), dim=2))
    return torch.cat(norms).T / (features.detach().abs() + SMALLEST_FEATURE)


def kept_features(scores: Tensor, percent: float) -> Tensor:
    """Return 0 where a score is below that percentile of its row, else 1; percentiles are interpolated.

    Args:
        scores: `... x features`.
        percent: In [0, 100].
    """
    exact = scores.double()
    threshold = torch.quantile(exact, percent / 100, dim=-1, keepdim=True)
    return exact.ge(threshold).to(scores.dtype)
