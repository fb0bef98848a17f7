"""The loop of local training, the same for a client in place and for an attacker who differentiates it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import torch

from fl.hooks import Batch, ClientDefense, Step
from fl.trainers import LocalTrainer, UnrolledTrainer
from fl.types import Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["gradient", "delta"]


class BatchLog:
    """What a client has trained on and lost, gathered while it trains.

    Attributes:
        image_ids: The images so far, each once, in order of first use.
    """

    def __init__(self) -> None:
        self.image_ids: list[str] = []
        self._seen: set[str] = set()
        self._rows: list[Tensor] = []
        self._changed = False
        self._losses: list[float] = []

    def add(self, batch: Batch, perturbed: Batch, loss: float | None) -> None:
        """Note one step: the client's own batch, what the defense made of it, and the training loss."""
        new = [i for i, image_id in enumerate(perturbed.image_ids) if image_id not in self._seen]
        self.image_ids += [image_id for image_id in batch.image_ids if image_id not in self._seen]
        self._seen |= {*batch.image_ids, *perturbed.image_ids}
        self._rows.append(perturbed.images[new])
        self._changed |= not (perturbed.images is batch.images or torch.equal(perturbed.images, batch.images))
        if loss is not None:
            self._losses.append(loss)

    def protected(self) -> Tensor | None:
        """Return the images as trained on, `m x C x H x W` on the CPU, if the defense changed any."""
        return torch.cat(self._rows).detach().cpu() if self._changed else None

    def loss(self) -> float | None:
        """Return the mean training loss over the steps, or None if there is none."""
        return math.fsum(self._losses) / len(self._losses) if self._losses else None


def local_update(
    trainer: LocalTrainer | UnrolledTrainer,
    defense: ClientDefense,
    batches: Iterable[Batch],
    *,
    kind: Kind,
    n_images: int | None,
    step: Callable[[int, str], Step],
    log: BatchLog | None,
    share_buffers: bool,
) -> Update:
    """Train on the batches and return the update, before `ClientDefense.protect`.

    Args:
        trainer: The training, at the received model.
        defense: Called for every batch: `perturb_batch`, then `gradients`.
        batches: `delta`: one local step each. `gradient`: one batch, or none for a gradient of zero.
        kind: Kind of update.
        n_images: Images the client reports; None for those of the batch.
        step: From index and purpose of its random stream to the step handed to the defense.
        log: Notes what was trained on, or None.
        share_buffers: Whether floating-point buffers are part of the update.
    """
    gradients: Tensors = {name: torch.zeros_like(p) for name, p in trainer.parameters.items()}
    trained_on = 0
    for index, batch in enumerate(batches):
        now = step(index, "step")
        perturbed = defense.perturb_batch(now, batch)
        gradients = defense.gradients(now, perturbed)
        if kind == "delta":
            trainer.descend(gradients)
        if log is not None:
            log.add(batch, perturbed, trainer.last_loss)
        trained_on = len(batch)
    return Update(
        kind=kind,
        tensors=gradients if kind == "gradient" else trainer.delta(),
        buffers=trainer.float_buffers() if share_buffers else {},
        n_images=trained_on if n_images is None else n_images,
    )
