"""Training several networks in a stage: kept states from which it goes on bit for bit, and no end in NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from fl.encoding import under
from fl.errors import BenchError
from fl.types import Artifact

if TYPE_CHECKING:
    from fl.stage_context import StageContext

KEEP_EVERY = 200
"""Steps between two states that an interrupted training can go on from."""

_RULE = "_rule"


class Resumable(Protocol):
    """A training that `finish` can end."""

    @property
    def done(self) -> int:
        """Steps taken."""

    def state(self) -> Artifact:
        """Return all that it goes on from, made by the function `state`."""

    def resume(self, kept: Artifact) -> None:
        """Go on from what `state` returned."""


def finish(
    training: Resumable,
    step: Callable[[], None],
    context: StageContext,
    *,
    steps: int,
    name: str,
    remedy: str,
) -> None:
    """Take the steps that are left, from the last state that was kept.

    Args:
        training: The training.
        step: Takes a step of it.
        context: Of the stage that it is for.
        steps: How many make the whole training.
        name: Of the training, for people.
        remedy: What to try if it diverges, as a clause.

    Raises:
        BenchError: If a weight, or the optimizer's memory of one, is no longer finite; looked at whenever a
            state is kept, and at the end.
    """
    kept = context.kept()
    if kept is not None:
        training.resume(kept)
    while training.done < steps:
        step()
        if training.done % KEEP_EVERY == 0 or training.done == steps:
            reached = training.state()
            _require_finite(reached, name, remedy)
            if training.done < steps:
                context.keep(reached)
        context.progress(training.done / steps, f"{name} step {training.done}")


def _require_finite(reached: Artifact, name: str, remedy: str) -> None:
    lost = {key for key, tensor in reached.tensors.items() if not bool(tensor.isfinite().all())}
    if lost:
        networks = sorted({key.partition(".")[0].removesuffix(_RULE) for key in lost})
        raise BenchError(
            f"expected finite weights after {reached.data['done']} steps of {name} training, got others in "
            f"{', '.join(networks)}: it diverged; {remedy}"
        )


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
