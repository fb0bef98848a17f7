"""The two ways to train locally: in place, as clients do, and unrolled, as an attacker who differentiates."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl.losses import task_loss
from fl.specs import Task
from fl.types import ImageSpec, LocalTraining, ModelState, Tensors


class LocalTrainer:
    """Trains one module in place; an `fl.hooks.Trainer`.

    One trainer serves any number of clients: `load` puts a received model into the same module.

    Args:
        module: The module, built for the states that will be loaded, on the device to compute on.
        state: A state of the kind that will be loaded: its architecture, trainable names and mode count.
        task: Decides the loss.
        local: The hyper-parameters of SGD, or None where no local step is taken (FedSGD).
    """

    differentiable = False

    def __init__(
        self, module: nn.Module, state: ModelState, *, task: Task, local: LocalTraining | None
    ) -> None:
        named = dict(module.named_parameters())
        self.model = module
        self.parameters: Mapping[str, Tensor] = {name: named[name] for name in state.trainable}
        self.optimizer: torch.optim.Optimizer | None = None
        if local is not None:
            self.optimizer = torch.optim.SGD(
                self.parameters.values(),
                lr=local.lr,
                momentum=local.momentum,
                weight_decay=local.weight_decay,
            )
        self._mu = 0.0 if local is None else local.mu
        self.last_loss: float | None = None
        """The latest task loss, or None before the first and where only per-sample ones were computed."""
        self._image = state.architecture.image
        self.task = task
        self._storage = module.state_dict(keep_vars=True)
        self._received: Mapping[str, Tensor] = {}

    def load(self, state: ModelState, *, lr: float | None = None) -> None:
        """Take up a received model of the same architecture, and begin a round: no velocity is left.

        Args:
            state: The received model.
            lr: The round's learning rate; None keeps the last one.
        """
        with torch.no_grad():
            for name, tensor in self._storage.items():
                tensor.copy_(state.tensors[name])
        if self.optimizer is not None:
            self.optimizer.state.clear()
            if lr is not None:
                self.optimizer.param_groups[0]["lr"] = lr
        self._received = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.last_loss = None

    def descend(self, gradients: Tensors) -> None:
        """Take one optimizer step along the negative gradients.

        FedProx adds mu (w - w_received), the gradient of its proximal term (Li et al. 2020, arXiv 1812.06127,
        equation 2), to what the defense made of the loss's.
        """
        if self.optimizer is None:
            raise ValueError("expected a trainer with a learning rate, got one for gradients only")
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            if self._mu:
                gradient = gradient + self._mu * (parameter.detach() - self._received[name])
            parameter.grad = gradient
        self.optimizer.step()

    def delta(self) -> dict[str, Tensor]:
        """Return the trainable weights minus the received ones."""
        return {name: p.detach() - self._received[name] for name, p in self.parameters.items()}

    def float_buffers(self) -> dict[str, Tensor]:
        """Return copies of the floating-point buffers (batch-norm statistics) as they are now."""
        return {name: b.clone() for name, b in self.model.named_buffers() if b.is_floating_point()}

    def snapshot(self) -> Any:
        """Return model (buffers included) and optimizer state, to be given to `restore`."""
        weights = {name: tensor.detach().clone() for name, tensor in self._storage.items()}
        return weights, copy.deepcopy(self.optimizer.state_dict()) if self.optimizer else None

    def restore(self, state: Any) -> None:
        """Put model and optimizer back, bit for bit."""
        weights, optimizer = state
        with torch.no_grad():
            for name, tensor in self._storage.items():
                tensor.copy_(weights[name])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(optimizer)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, `n x outputs`, of images in [0, 1], `n x C x H x W`."""
        logits: Tensor = self.model(self._image.normalise(images))
        return logits

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the task's mean loss; labels may be soft."""
        loss = task_loss(self.task, logits, labels)
        self.last_loss = _value(loss)
        return loss


class UnrolledTrainer:
    """Trains functionally, keeping the graph, so that the update is differentiable in the images.

    Nothing is written to the module; an `fl.hooks.Trainer` whose `optimizer` is None.

    Args:
        module: The received model's module; only its structure and mode are used.
        state: The received model.
        task: Decides the loss.
        image: Normalisation of the images.
        local: The hyper-parameters of SGD.
        device: Where to compute.
        differentiable: Whether to keep the graph.
    """

    optimizer: torch.optim.Optimizer | None = None
    last_loss: float | None = None

    def __init__(
        self,
        module: nn.Module,
        state: ModelState,
        *,
        task: Task,
        image: ImageSpec,
        local: LocalTraining,
        device: torch.device,
        differentiable: bool,
    ) -> None:
        tensors = {name: tensor.detach().to(device) for name, tensor in state.tensors.items()}
        buffers = {name for name, _ in module.named_buffers()}
        self.model = module
        self.differentiable = differentiable
        self.parameters: Mapping[str, Tensor] = {
            name: tensors[name].clone().requires_grad_() for name in state.trainable
        }
        self._received = dict(self.parameters)
        self._fixed = {k: v for k, v in tensors.items() if k not in self.parameters and k not in buffers}
        self._buffers = {name: tensors[name].clone() for name in tensors if name in buffers}
        self._image = image
        self.task = task
        self._local = local
        self._velocity: Mapping[str, Tensor] = {}

    def descend(self, gradients: Tensors) -> None:
        """Take one step of SGD, rounded as `torch.optim.SGD` rounds it."""
        velocity = {name: self._direction(name, gradients[name]) for name in self.parameters}
        self.parameters = {
            name: torch.add(p, velocity[name], alpha=-self._local.lr) for name, p in self.parameters.items()
        }
        self._velocity = velocity if self._local.momentum else {}

    def _direction(self, name: str, gradient: Tensor) -> Tensor:
        local, parameter = self._local, self.parameters[name]
        if local.mu:
            gradient = gradient + local.mu * (parameter - self._received[name].detach())
        if local.weight_decay:
            gradient = torch.add(gradient, parameter, alpha=local.weight_decay)
        if name in self._velocity:
            gradient = local.momentum * self._velocity[name] + gradient
        return gradient

    def delta(self) -> dict[str, Tensor]:
        """Return the trainable weights minus the received ones."""
        final = self.parameters
        if not self.differentiable:
            final = {name: p.detach() for name, p in final.items()}
        return {name: p - self._received[name].detach() for name, p in final.items()}

    def float_buffers(self) -> dict[str, Tensor]:
        """Return copies of the floating-point buffers (batch-norm statistics) as they are now."""
        return {name: b.clone() for name, b in self._buffers.items() if b.is_floating_point()}

    def snapshot(self) -> Any:
        """Return parameters, buffers and velocity, to be given to `restore`."""
        buffers = {name: b.clone() for name, b in self._buffers.items()}
        return self.parameters, buffers, self._velocity

    def restore(self, state: Any) -> None:
        """Put parameters, buffers and velocity back, bit for bit."""
        parameters, buffers, self._velocity = state
        self.parameters = dict(parameters)
        self._buffers = {name: b.clone() for name, b in buffers.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, `n x outputs`, of images in [0, 1], `n x C x H x W`."""
        weights = {**self._fixed, **self._buffers, **self.parameters}
        logits: Tensor = torch.func.functional_call(self.model, weights, (self._image.normalise(images),))
        return logits

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the task's mean loss; labels may be soft."""
        return task_loss(self.task, logits, labels)


def _value(loss: Tensor) -> float | None:
    try:
        return loss.item()
    except RuntimeError:  # inside torch.vmap, where a tensor has no single value
        return None
