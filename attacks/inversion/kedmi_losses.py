"""What KED-MI's GAN and its recovery minimise (Chen et al. 2021, arXiv 2010.04092)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def realism(logits: Tensor) -> Tensor:
    """Return -log of the probability that an image is real, `n`.

    With Z the logsumexp of an image's k logits and 0 the logit of a generated image, that probability is
    sigmoid(Z), and -log of it softplus(Z) - Z.

    Args:
        logits: `n x k`.
    """
    evidence = logits.logsumexp(1)
    return F.softplus(evidence) - evidence


def discriminator_loss(
    labelled: Tensor, soft_labels: Tensor, unlabelled: Tensor, generated: Tensor
) -> Tensor:
    """Return the discriminator's loss: the attacked model's soft labels, and real against generated images.

    Args:
        labelled: `n x k` logits of public images.
        soft_labels: `n x k`, what the attacked model says about them.
        unlabelled: `n x k` logits of other public images.
        generated: `n x k` logits of generated images.
    """
    taught = -(soft_labels * labelled.log_softmax(1)).sum(1).mean()
    told = F.softplus(generated.logsumexp(1)).mean()
    return taught + (realism(unlabelled).mean() + told) / 2


def feature_matching(generated: Tensor, real: Tensor) -> Tensor:
    """Return the mean distance between two batches' mean features (Salimans et al. 2016, section 3.1).

    Args:
        generated: `n x entries`.
        real: `n x entries`.
    """
    return (generated.mean(0) - real.mean(0)).abs().mean()


def summed_entropy(logits: Tensor) -> Tensor:
    """Return the entropies of `n x k` logits' softmax, their sum."""
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum()
