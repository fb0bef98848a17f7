"""One target as gradient matching sees it: the observed update, and the update of dummy images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from attacks.base import AttackEnv, AttackTask, Params
from attacks.labels import expect, head_gradient, infer
from attacks.regularisers import as_moments
from fl.batch_norm import Moments, observed_moments
from fl.data.folder_pixels import open_resized
from fl.errors import NotApplicableError
from fl.losses import task_loss
from fl.specs import Task
from fl.types import ImageSpec, Observation, Tensors

Init = Literal["randn", "rand", "zeros", "mean", "image"]
"""The first guess in normalised space: N(0, 1), U(-1, 1), zeros, the mean public image, a given picture."""

CONFIDENCE = 0.99
"""Probability of a label from which optimisation of labels sets out."""

LabelsName = Literal["joint", "infer", "refine"]
"""Where labels come from that are not granted (`Problem.labelling`)."""

AUXILIARY_IMAGES = 64
"""Images of its own from which an attacker takes what it expects of the model."""


class Labelling(NamedTuple):
    """Where labels come from; tensors on the device.

    Attributes:
        fixed: What is not optimised: `n` int64 or `n x outputs`; None where label logits are variables.
        start: What the logits start at, likewise; None to draw them.
        inferred: What was read from the head's gradient, where it was.
    """

    fixed: Tensor | None
    start: Tensor | None
    inferred: Tensor | None


@dataclass(frozen=True)
class Problem:
    """A target to match gradients against.

    Attributes:
        task: The attack task.
        model: The model that was sent; its weights are never optimised.
        device: Where it computes.
        observed: What was observed, by parameter name, as a gradient (a weight delta divided by `scale`).
        scale: What a gradient is multiplied by in the update: 1, or for a weight delta -lr x local steps
            (-1 where these are unknown and only the direction counts).
        params: What the defense's parameters are estimated to be; None where its mirror is not used.
        simulated: Whether dummy updates come from the simulated client, with all its local steps and, for an
            adaptive attacker, its defense; else they are gradients at the weights sent, mirrored.
    """

    task: AttackTask[Any]
    model: nn.Module
    device: torch.device
    observed: Tensors
    scale: float
    params: Params | None
    simulated: bool

    @classmethod
    def of(cls, task: AttackTask[Any], env: AttackEnv, *, unroll: bool) -> Problem:
        """Set up the problem behind a task.

        Raises:
            NotApplicableError: If `unroll` is asked for where there are no known local steps.
        """
        update = task.observation.update
        if unroll:
            _check_unrolled(task.observation)
        simulated = unroll or task.simulates
        scale = _scale(task.observation)
        return cls(
            task=task,
            model=env.build(task.observation.sent),
            device=env.device,
            observed={name: tensor.to(env.device) / scale for name, tensor in update.tensors.items()},
            scale=scale,
            params=None if task.defense is None or simulated else task.defense.estimate(task.observation),
            simulated=simulated,
        )

    @property
    def images(self) -> int:
        """How many images are behind the update."""
        return self.task.observation.n_images

    @property
    def evaluations(self) -> int:
        """Gradient evaluations of the model in one call of `gradients`."""
        local = self.task.observation.knowledge.local_training
        all_steps = self.simulated and self.task.observation.update.kind == "delta"
        return local.steps if all_steps and local is not None else 1

    def gradients(self, inputs: Tensor, labels: Tensor) -> Tensors:
        """Return what the attacker would have observed of dummy images, as a gradient.

        Args:
            inputs: `n x C x H x W`, normalised; the result is differentiable in them.
            labels: `n` int64, or `n x outputs` in [0, 1], in which it is differentiable as well.
        """
        return self._simulate(inputs, labels) if self.simulated else self._differentiate(inputs, labels)

    def observe(self, inputs: Tensor, labels: Tensor) -> tuple[Tensors, Mapping[str, Moments]]:
        """Return what `gradients` returns and the moments of batch norms' inputs under the weights sent."""
        with observed_moments(self.model) as moments:
            gradients = self.gradients(inputs, labels)
            if self.simulated:
                self.model(inputs)
        return gradients, moments

    def statistics(self) -> Mapping[str, Moments]:
        """Return what is known of batch norms' inputs, by layer; nothing where no tier grants it."""
        granted = self.task.observation.knowledge.batch_norm or {}
        return as_moments(granted, self.device)

    def mirrored(self, gradients: Tensors) -> Tensors:
        """Return gradients of dummy images as the defense would leave them, where its mirror is known.

        The mirror acts in units of the update.
        """
        if self.task.defense is None:
            return gradients
        update = {name: tensor * self.scale for name, tensor in gradients.items()}
        mirrored = self.task.defense.mirror(self.params, update)
        return {name: tensor / self.scale for name, tensor in mirrored.items()}

    def _differentiate(self, inputs: Tensor, labels: Tensor) -> Tensors:
        """The gradient at the weights sent, mirrored."""
        loss = task_loss(self.task.observation.task, self.model(inputs), labels)
        parameters = [self.model.get_parameter(name) for name in self.observed]
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        return self.mirrored(dict(zip(self.observed, gradients, strict=True)))

    def _simulate(self, inputs: Tensor, labels: Tensor) -> Tensors:
        """All local steps; the same stream every time keeps the objective a function of its arguments."""
        observation = self.task.observation
        images = observation.image.denormalise(inputs)
        stream = self.task.streams.torch("simulation")
        update = self.task.simulate(images, labels, observation.sent, stream)
        return {name: update.tensors[name] / self.scale for name in self.observed}

    def first_guess(
        self, init: Init, restart: int, *, image: str | None = None, jitter: float = 0.0
    ) -> Tensor:
        """Return dummy inputs, `n x C x H x W` in normalised space, the same for every defense and attack.

        Args:
            init: What to start from; `mean` and `image` are the same for all n images.
            restart: Names the draw.
            image: The picture file of `init: image`.
            jitter: Standard deviation of what is added to each image of each restart, where they would else
                be alike.

        Raises:
            NotApplicableError: If the mean public image is asked for and there are no public images, or the
                images have a number of channels that no picture has.
            DataUnavailableError: If the picture cannot be read.
        """
        shape = (self.images, *self.task.observation.image.shape)
        stream = self.task.streams.torch("first_guess", restart=restart)
        if init == "randn":
            guess = torch.randn(shape, generator=stream)
        elif init == "rand":
            guess = torch.rand(shape, generator=stream) * 2 - 1
        else:
            guess = self._given_guess(init, image).expand(shape).clone()
        if jitter:
            guess += jitter * torch.randn(shape, generator=stream)
        return guess.to(self.device)

    def _given_guess(self, init: Literal["zeros", "mean", "image"], path: str | None) -> Tensor:
        """Return a first guess that is not drawn, `C x H x W` in normalised space."""
        image = self.task.observation.image
        if init == "zeros":
            return torch.zeros(image.shape)
        if init == "mean":
            if self.task.public is None:
                raise NotApplicableError("init: mean needs public images (knowledge.public_data: true)")
            return image.normalise(self.task.public.mean_image)
        assert path is not None
        return image.normalise(_picture(path, image))

    def noise(self, restart: int) -> torch.Generator:
        """Return the stream of what is added to images between steps."""
        return self.task.streams.torch("jitter", restart=restart)

    def first_logits(self, restart: int, labels: Tensor | None = None) -> Tensor:
        """Return dummy label logits, `n x outputs`, from N(0, 1), or those of labels held for almost certain.

        Args:
            restart: Names the draw.
            labels: `n` int64, or `n x outputs` of 0 and 1.
        """
        if labels is not None:
            return _confident(labels, self.task.observation.task)
        stream = self.task.streams.torch("labels", restart=restart)
        outputs = self.task.observation.task.outputs
        return torch.randn(self.images, outputs, generator=stream).to(self.device)

    def labelling(self, labels: LabelsName) -> Labelling:
        """Return where labels come from; granted ones are taken instead of drawing or reading any.

        Args:
            labels: `joint`: logits are optimised with the images; `infer`: they are read from the head's
                gradient; `refine`: granted or read, they are optimised from there.

        Raises:
            NotApplicableError: If labels must be read and cannot be.
        """
        known = self.known_labels()
        inferred = self.inferred_labels() if known is None and labels != "joint" else None
        found = inferred if known is None else known
        return Labelling(None, found, inferred) if labels == "refine" else Labelling(found, None, inferred)

    def known_labels(self) -> Tensor | None:
        """Return the labels that the threat model grants, on the device, or None."""
        labels = self.task.observation.knowledge.labels
        return None if labels is None else labels.to(self.device)

    def inferred_labels(self, *, through_noise: bool = False) -> Tensor:
        """Return labels read from the head's gradient (`attacks.labels.infer`).

        Raises:
            NotApplicableError: If they cannot be read.
        """
        observation = self.task.observation
        head = head_gradient(self.model, self.observed)
        expected = expect(self.model, self._auxiliary_inputs(), observation.task)
        return infer(head, observation.task, self.images, expected, through_noise=through_noise)

    def _auxiliary_inputs(self) -> Tensor:
        """Return the attacker's own images, normalised: public ones, or uniform noise if it has none."""
        image, public = self.task.observation.image, self.task.public
        stream = self.task.streams.torch("labels")
        if public is None:
            own = torch.rand(AUXILIARY_IMAGES, *image.shape, generator=stream)
        else:
            available = len(public.images)
            own = public.images[torch.randperm(available, generator=stream)[:AUXILIARY_IMAGES]]
        return image.normalise(own.to(self.device))


def _confident(labels: Tensor, task: Task) -> Tensor:
    """Return logits whose softmax or sigmoid gives labels the probability `CONFIDENCE`."""
    odds = CONFIDENCE / (1 - CONFIDENCE)
    if task.kind == "multiclass":
        return one_hot(labels, task.outputs).float() * math.log(odds * max(task.outputs - 1, 1))
    return (labels.float().reshape(len(labels), task.outputs) * 2 - 1) * math.log(odds)


def _picture(path: str, image: ImageSpec) -> Tensor:
    """Return a picture file as `C x H x W` in [0, 1], resized and cropped as a `folder`'s images are."""
    if image.channels not in (1, 3):
        raise NotApplicableError(f"init: image gives 1 or 3 channels, these images have {image.channels}")
    opened = open_resized(Path(path), image.size, "gray" if image.channels == 1 else "rgb")
    pixels = np.array(opened, dtype=np.float32).reshape(image.size, image.size, image.channels)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def _scale(observation: Observation) -> float:
    local = observation.knowledge.local_training
    if observation.update.kind == "gradient":
        return 1.0
    return -local.reach if local is not None else -1.0


def _check_unrolled(observation: Observation) -> None:
    if observation.kind != "update" or observation.update.kind != "delta":
        raise NotApplicableError(
            f"expected one client's weight delta for unroll: true, got a {observation.update.kind} "
            f"({observation.kind}); set unroll: false"
        )
    if observation.knowledge.local_training is None:
        raise NotApplicableError("unroll: true needs knowledge.local_hyperparameters: true")
