"""Floors: attacks that ignore the update, below which an attack has shown nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from fl.specs import NoConfig

if TYPE_CHECKING:
    from torch import Tensor


class RandomGuess(Attack[NoConfig]):
    """Uniform noise in [0, 1]."""

    def solve(
        self, tasks: Iterable[AttackTask[NoConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Draw as many images as are behind the update, or one for a global model."""
        for task in tasks:
            shape = (_images(task), *task.observation.image.shape)
            stream = task.streams.torch("first_guess", restart=0)
            yield _reconstruction(task, torch.rand(shape, generator=stream))


class MeanImage(Attack[NoConfig]):
    """The mean of the public images."""

    def solve(
        self, tasks: Iterable[AttackTask[NoConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Answer the mean as often as there are images behind the update, or once for a global model."""
        for task in tasks:
            if task.public is None:
                error = "the mean public image needs public images (knowledge.public_data: true)"
                yield TaskFailure(task.task_id, error)
            else:
                mean = task.public.mean_image
                yield _reconstruction(task, mean.expand(_images(task), *mean.shape).clone())


def _images(task: AttackTask[NoConfig]) -> int:
    return 1 if task.observation.kind == "global_model" else task.observation.n_images


def _reconstruction(task: AttackTask[NoConfig], images: Tensor) -> Reconstruction:
    return Reconstruction(
        task_id=task.task_id,
        images=images,
        labels=None,
        objective={},
        gradient_evaluations=0,
        lane_iterations=0,
    )
