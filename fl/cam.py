"""Class activation maps: where in an image a classifier sees a class.

Both maps weight the channels of the last spatial layer (`Classifier.cam_layer`) by what the class's score
gains from them, keep what speaks for the class, and enlarge the result to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.errors import NotApplicableError

_EPSILON = 1e-7
"""Keeps Grad-CAM++'s coefficients finite where a gradient vanishes."""


class _Activations(NamedTuple):
    """A layer's output `n x K x h x w`, and the gradient of the classes' scores with respect to it."""

    values: Tensor
    gradients: Tensor


def grad_cam(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Return Grad-CAM, `n x H x W` in [0, 1]: ReLU(sum_k w_k A_k), w_k the mean gradient of channel k.

    Each map is enlarged bilinearly to the image and then stretched so that its least value is 0 and its
    largest 1; a constant map becomes 0. The model computes in evaluation mode, so images do not mix; its
    mode, buffers and gradients are left as they were.

    Source: Selvaraju et al. 2017, Grad-CAM, arXiv 1610.02391, section 3, equations 1 and 2.

    Args:
        model: A classifier with a `cam_layer` (`fl.models.base.Classifier`).
        inputs: `n x C x H x W`, normalised.
        classes: `n` int64, whose logit is explained; with a single logit, class 0's score is its negative.

    Raises:
        NotApplicableError: If the model has no layer with a spatial output.
    """
    return _maps(model, inputs, classes, lambda a: a.gradients.mean((2, 3)))


def grad_cam_pp(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Return Grad-CAM++, `n x H x W` in [0, 1]; everything but the channels' weights is as in `grad_cam`.

    With A the activations and G the gradient of the score S, alpha = G^2 / (2 G^2 + sum_uv A G^3) and
    w_k = sum_uv alpha ReLU(exp(S) G). The factor exp(S) is one for the whole image and falls out when the map
    is stretched; it is left out, since it overflows.

    Source: Chattopadhay et al. 2018, Grad-CAM++, arXiv 1710.11063, equations 11, 12 and 19.

    Args:
        model: A classifier with a `cam_layer` (`fl.models.base.Classifier`).
        inputs: `n x C x H x W`, normalised.
        classes: `n` int64, whose logit is explained; with a single logit, class 0's score is its negative.

    Raises:
        NotApplicableError: If the model has no layer with a spatial output.
    """
    return _maps(model, inputs, classes, _plus_plus_weights)


def _plus_plus_weights(activations: _Activations) -> Tensor:
    values, gradients = activations
    total = (values * gradients**3).sum((2, 3), keepdim=True)
    denominator = 2 * gradients**2 + total + _EPSILON
    alpha = gradients**2 / torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return (alpha * gradients.relu()).sum((2, 3))


def _maps(
    model: nn.Module, inputs: Tensor, classes: Tensor, weigh: Callable[[_Activations], Tensor]
) -> Tensor:
    if not len(inputs):
        return inputs.new_zeros(0, *inputs.shape[2:])
    activations = _activations(model, inputs.detach(), classes)
    weights = weigh(activations)[:, :, None, None]
    maps = (weights * activations.values).sum(1, keepdim=True).relu()
    enlarged = F.interpolate(maps, size=inputs.shape[2:], mode="bilinear", align_corners=False)
    return _stretch(enlarged.squeeze(1))


def _activations(model: nn.Module, inputs: Tensor, classes: Tensor) -> _Activations:
    layer = getattr(model, "cam_layer", None)
    if layer is None:
        raise NotApplicableError(
            f"expected a model with a spatial layer for a class activation map, got {type(model).__name__}"
        )
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        kept.append(leaf)
        return leaf

    hook = layer.register_forward_hook(keep)
    try:
        with _evaluating(model), torch.enable_grad():
            logits = model(inputs)
            (gradients,) = torch.autograd.grad(_scores(logits, classes.to(logits.device)).sum(), kept[-1])
    finally:
        hook.remove()
    return _Activations(kept[-1].detach(), gradients)


def _scores(logits: Tensor, classes: Tensor) -> Tensor:
    """Return each image's score of its class, `n`, from `n x outputs`."""
    if logits.shape[1] == 1:
        return torch.where(classes.bool(), logits[:, 0], -logits[:, 0])
    return logits.gather(1, classes[:, None])[:, 0]


def _stretch(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, torch.ones_like(span)), 0.0)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Compute in evaluation mode, and give every layer its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
