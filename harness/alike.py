"""Alike attack tasks on packaged images, for measuring how fast they are solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

import fl.data
from attacks.base import AttackTask
from fl.errors import UsageError
from fl.losses import task_loss
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import Config, Plugin
from fl.types import Knowledge, LocalTraining, ModelState, Observation, RoundView, Update
from harness.execute.environment import Simulator

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.base import Dataset

CLASSES = 10
"""Outputs of the models; the images are of four."""


@dataclass(frozen=True)
class AlikeTasks:
    """One image each of `photographs`, and the gradient of an untrained model on it.

    Attributes:
        model: The model.
        size: H = W of the images.
        knows_labels: Whether the attacker is granted the labels.
        device: Where to compute.
    """

    model: Plugin
    size: int
    knows_labels: bool
    device: torch.device

    @classmethod
    def on(
        cls, model: str, options: Mapping[str, Any], *, size: int, knows_labels: bool, device: torch.device
    ) -> AlikeTasks:
        """Return tasks on a model by name and options.

        Raises:
            UnknownPluginError: If there is no such model.
            UsageError: If it has no such options.
        """
        card = MODELS.get(model)
        try:
            config = card.config.model_validate(dict(options))
        except ValidationError as error:
            raise UsageError(f"{model}: {error}") from error
        plugin = Plugin(card.name, card.version, config)
        return cls(plugin, size, knows_labels, device)

    @cached_property
    def dataset(self) -> Dataset:
        """The images: tiles of the photographs that ship with scikit-image."""
        card = fl.data.DATASETS.get("photographs")
        return fl.data.load(
            Plugin(card.name, card.version, card.config(size=self.size, task_classes=CLASSES))
        )

    @property
    def mflop(self) -> float:
        """MFLOP of one forward pass on one image, a multiplication and an addition being two."""
        card = MODELS.get(self.model.name)
        return card.traits(self.model.config, self.dataset.info).mflop_per_image

    def image(self, index: int) -> Tensor:
        """Return what task `index` is after, `1 x C x H x W` in [0, 1]."""
        return self._example(index)[0]

    def task(self, index: int, config: Config, *, streams: type[Streams] = Streams) -> AttackTask[Any]:
        """Return a task; its weights, image and first guess are drawn for its index.

        Args:
            index: Which, from 0.
            config: The attack's configuration.
            streams: What the attack draws from.
        """
        info = self.dataset.info
        own = streams(index)
        state = initial_state(architecture(self.model, info), streams=own, freeze="none", batch_norm="eval")
        images, labels = self._example(index)
        observation = Observation(
            kind="update",
            clients=(0,),
            history=(RoundView(0, state, self._update(state, images, labels)),),
            task=info.task,
            image=state.architecture.image,
            knowledge=Knowledge(labels=labels if self.knows_labels else None),
        )
        local = LocalTraining(lr=1.0, steps=1, batch_size=1, epochs=1)
        client = Simulator(observation, local, None, own, self.device)
        return AttackTask(f"task-{index}", observation, config, own, None, client)

    def tasks(
        self, indices: Sequence[int], config: Config, *, streams: type[Streams] = Streams
    ) -> list[AttackTask[Any]]:
        """Return several tasks."""
        return [self.task(index, config, streams=streams) for index in indices]

    def _example(self, index: int) -> tuple[Tensor, Tensor]:
        part = self.dataset.part("private")
        position = Streams(index).numpy("targets").integers(len(part))
        return part.images([int(position)]), part.labels[int(position)].view(1)

    def _update(self, state: ModelState, images: Tensor, labels: Tensor) -> Update:
        model = materialise(state, device=self.device)
        inputs = state.architecture.image.normalise(images.to(self.device))
        loss = task_loss(self.dataset.info.task, model(inputs), labels.to(self.device))
        parameters = [model.get_parameter(name) for name in state.trainable]
        gradients = torch.autograd.grad(loss, parameters)
        named = zip(state.trainable, gradients, strict=True)
        return Update("gradient", {name: gradient.cpu() for name, gradient in named}, {}, len(images))
