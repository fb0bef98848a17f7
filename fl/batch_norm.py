"""Statistics of what batch-norm layers take in, in the tiers in which an adversary may know them.

Everywhere they go by the names of the running statistics, `<layer>.running_mean` and `<layer>.running_var`,
a value per channel, on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fl.errors import NotApplicableError
from fl.types import ImageSpec, LocalTraining, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".running_mean", ".running_var")


class Moments(NamedTuple):
    """Of a batch-norm layer's input, per channel.

    Attributes:
        mean: Over images and positions.
        variance: Likewise, biased: divided by their number.
    """

    mean: Tensor
    variance: Tensor


@contextmanager
def observed_moments(module: nn.Module) -> Iterator[dict[str, Moments]]:
    """Note the moments of every batch norm's input while the module runs, differentiable, by layer."""
    found: dict[str, Moments] = {}

    def note(name: str, inputs: Tensor) -> None:
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        variance, mean = torch.var_mean(inputs, dim=axes, correction=0)
        found[name] = Moments(mean, variance)

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, layer in _batch_norms(module)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def batch_statistics(module: nn.Module, inputs: Tensor) -> Tensors:
    """Return mean and biased variance of every batch-norm layer's input.

    Args:
        module: The model; its mode decides with which statistics the layers before normalise.
        inputs: The batch, normalised, `n x C x H x W`.
    """
    with observed_moments(module) as found, torch.no_grad():
        module(inputs)
    return {
        name + suffix: value.cpu()
        for name, moments in found.items()
        for suffix, value in zip(SUFFIXES, moments, strict=True)
    }


def running_statistics(tensors: Tensors) -> Tensors:
    """Return those that a model's state holds."""
    return {name: tensor for name, tensor in tensors.items() if name.endswith(SUFFIXES)}


def inferred_statistics(
    module: nn.Module,
    before: Tensors,
    update: Update,
    *,
    image: ImageSpec,
    clients: int,
    local: LocalTraining | None,
) -> Tensors | None:
    """Return the batch's statistics, worked out of the running ones before and after local training.

    A step with momentum m turns the running statistic r into (1 - m) r + m s, so after k of them

        s = (after - (1 - m)^k before) / (1 - (1 - m)^k)

    is the batch's own for k = 1, and for k > 1 a mean of the steps' that favours the later ones. Running
    variances gather unbiased ones; what is returned is biased, for batches of the usual size. Several
    clients' statistics are averaged like their updates.

    Args:
        module: The model sent.
        before: Its tensors.
        update: What came back, with its buffers.
        image: Shape of the images.
        clients: How many clients' update it is.
        local: Their hyper-parameters; where unknown, one step is assumed.

    Returns:
        The statistics; None where the update holds no running statistics.

    Raises:
        NotApplicableError: If a batch norm keeps a plain average over all batches instead.
    """
    if not running_statistics(update.buffers):
        return None
    steps = 1 if local is None else local.steps
    images = max(update.n_images // max(clients, 1), 1)
    if local is not None:
        images = min(images, local.batch_size)
    found: dict[str, Tensor] = {}
    for name, positions in _positions(module, image).items():
        momentum = _momentum(name, module.get_submodule(name))
        kept = (1 - momentum) ** steps
        mean, variance = (
            (update.buffers[name + suffix].double() - kept * before[name + suffix].double()) / (1 - kept)
            for suffix in SUFFIXES
        )
        count = images * positions
        biased = (variance * (count - 1) / count).clamp(min=0)
        found |= {name + SUFFIXES[0]: mean.float(), name + SUFFIXES[1]: biased.float()}
    return found


def _positions(module: nn.Module, image: ImageSpec) -> dict[str, int]:
    """Return how many positions the input of each batch norm has in one image."""
    found: dict[str, int] = {}
    probe = copy.deepcopy(module).eval()
    for name, layer in _batch_norms(probe):

        def note(_: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
            found[name] = inputs[0][0, 0].numel()

        layer.register_forward_pre_hook(note)
    like = next(probe.parameters())
    with torch.no_grad():
        probe(like.new_zeros(1, *image.shape))
    return found


def _momentum(name: str, layer: nn.Module) -> float:
    momentum = layer.momentum
    if not isinstance(momentum, float):
        raise NotApplicableError(
            f"{name!r}: expected batch norm with a momentum, got one that averages all batches "
            "(knowledge.batch_norm: inferred)"
        )
    return momentum


def _batch_norms(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
