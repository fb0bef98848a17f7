"""The state of a training of several networks, from which it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl.encoding import under
from fl.types import Artifact

_RULE = "_rule"


def state(
    modules: Mapping[str, nn.Module], rules: Mapping[str, torch.optim.Optimizer], done: int
) -> Artifact:
    """Return all that a training goes on from.

    Args:
        modules: Networks by name, buffers included.
        rules: Optimizers by name.
        done: Steps taken.
    """
    tensors = {f"{m}.{k}": t for m, module in modules.items() for k, t in module.state_dict().items()}
    for rule, optimizer in rules.items():
        for index, entries in optimizer.state_dict()["state"].items():
            tensors |= {f"{rule}{_RULE}.{index}.{name}": tensor for name, tensor in entries.items()}
    kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return Artifact(kept, {"done": done})


def resume(
    kept: Artifact,
    modules: Mapping[str, nn.Module],
    rules: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
) -> int:
    """Take up what `state` returned; return the steps taken."""
    for name, module in modules.items():
        module.load_state_dict(under(f"{name}.", kept.tensors))
    for rule, optimizer in rules.items():
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under(f"{rule}{_RULE}.", kept.tensors).items():
            index, _, entry = name.partition(".")
            entries.setdefault(int(index), {})[entry] = tensor.to("cpu" if entry == "step" else device)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return int(str(kept.data["done"]))


def descend(rule: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
    """Take one step of an optimizer along the slope of `loss` in a network's parameters."""
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    rule.step()
