"""What a step on a batch would give away: its gradients and the statistics of its batch-norm layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fl.hooks import Trainer
from fl.losses import task_loss
from fl.specs import Task
from fl.types import ImageSpec, ModelState, Tensors

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MOMENTUM = 0.1


class Statistics(NamedTuple):
    """Mean and biased variance of one batch-norm layer's input, per channel."""

    mean: Tensor
    variance: Tensor


class Trace(NamedTuple):
    """What a batch leaves behind.

    Attributes:
        gradients: Of the mean loss, by trainable parameter, in order.
        statistics: Of the inputs of the batch-norm layers, in order.
    """

    gradients: tuple[Tensor, ...]
    statistics: tuple[Statistics, ...]


Probe = Callable[[Tensor, Tensor], Trace]
"""From images in [0, 1], `n x C x H x W`, and labels to their trace, differentiable in the images."""


@contextmanager
def rolled_back(trainer: Trainer) -> Iterator[None]:
    """Put model and optimizer back afterwards, bit for bit."""
    before = trainer.snapshot()
    try:
        yield
    finally:
        trainer.restore(before)


def client_probe(trainer: Trainer) -> Probe:
    """Return traces of the client's current weights in its own mode; call it inside `rolled_back`."""

    def probe(images: Tensor, labels: Tensor) -> Trace:
        with _watched(trainer.model) as statistics:
            loss = trainer.task_loss(trainer.forward(images), labels)
        return Trace(_gradients(loss, tuple(trainer.parameters.values()), images), tuple(statistics))

    return probe


def received_probe(model: nn.Module, names: Sequence[str], *, image: ImageSpec, task: Task) -> Probe:
    """Return traces of a model of one's own in evaluation mode, as the released code's shadow takes them.

    Args:
        model: With the weights received.
        names: Its trainable parameters.
        image: Normalisation.
        task: Decides the loss.
    """
    model.eval()
    named = dict(model.named_parameters())
    parameters = tuple(named[name].requires_grad_() for name in names)

    def probe(images: Tensor, labels: Tensor) -> Trace:
        with _watched(model) as statistics:
            loss = task_loss(task, model(image.normalise(images)), labels)
        return Trace(_gradients(loss, parameters, images), tuple(statistics))

    return probe


def received_model(trainer: Trainer, received: ModelState) -> nn.Module:
    """Return a copy of the training's module with the weights received, in evaluation mode."""
    model = copy.deepcopy(trainer.model).eval().requires_grad_(requires_grad=False)
    model.load_state_dict(dict(received.tensors))
    return model


def detached(trace: Trace) -> Trace:
    """Return a trace to aim at."""
    return Trace(
        tuple(gradient.detach() for gradient in trace.gradients),
        tuple(Statistics(s.mean.detach(), s.variance.detach()) for s in trace.statistics),
    )


def recovered_statistics(model: nn.Module, before: Tensors, after: Tensors) -> tuple[Statistics, ...]:
    """Work out a batch's statistics from running ones: s = (after - (1 - m) before) / m.

    Exact only where `before` are the running statistics that the batch was averaged into; the released code
    takes the received model's in every step.

    Args:
        model: Names the batch-norm layers, in order, and their momentum m.
        before: Buffers by name.
        after: Buffers by name.
    """

    def recover(name: str, keep: float) -> Tensor:
        old = before[name].to(after[name].device)
        return (after[name] - keep * old) / (1 - keep)

    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, _NORMS) and layer.running_mean is not None:
            keep = 1 - (_MOMENTUM if layer.momentum is None else layer.momentum)
            mean, variance = recover(f"{name}.running_mean", keep), recover(f"{name}.running_var", keep)
            found.append(Statistics(mean, variance))
    return tuple(found)


def _gradients(loss: Tensor, parameters: tuple[Tensor, ...], images: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, create_graph=images.requires_grad)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Statistics]]:
    """Collect the statistics of the batch-norm layers' inputs while the model computes."""
    collected: list[Statistics] = []

    def collect(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        maps = arguments[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(maps, 1, correction=0)
        collected.append(Statistics(mean, variance))

    layers = [layer for layer in model.modules() if isinstance(layer, _NORMS)]
    hooks = [layer.register_forward_pre_hook(collect) for layer in layers]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()
