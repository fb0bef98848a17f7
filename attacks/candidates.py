"""Where a search for images ended, and what it is handed over as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.base import Reconstruction
from attacks.problem import Problem
from fl.errors import BenchError
from fl.specs import Task


class Candidate(NamedTuple):
    """Where a restart ended: the objective's terms, inputs `n x C x H x W`, label logits if optimised."""

    terms: Mapping[str, float]
    inputs: Tensor
    logits: Tensor | None


def as_images(problem: Problem, inputs: Tensor) -> Tensor:
    """From the model's input space to images in [0, 1]."""
    return problem.task.observation.image.denormalise(inputs).clamp(0, 1)


def reconstruction(
    problem: Problem, best: Candidate | None, *, inferred: Tensor | None, spent: int
) -> Reconstruction:
    """Return the best candidate as the task's answer.

    Args:
        problem: The task's problem.
        best: The candidate with the lowest matching cost; None if no cost was finite.
        inferred: Labels read from the head's gradient, where they were.
        spent: Evaluations of the objective.

    Raises:
        BenchError: If there is no candidate.
    """
    if best is None:
        raise BenchError(
            "expected a finite matching cost from at least one first guess, got none after "
            f"{spent} evaluations"
        )
    task = problem.task
    labels = inferred if best.logits is None else best.logits
    return Reconstruction(
        task_id=task.task_id,
        images=_private(problem, best, inferred).clamp(0, 1).cpu(),
        labels=None if labels is None else _as_classes(labels, task.observation.task).cpu(),
        objective=best.terms,
        gradient_evaluations=spent * problem.evaluations,
        lane_iterations=spent,
    )


def _private(problem: Problem, best: Candidate, inferred: Tensor | None) -> Tensor:
    """Return the candidate's images without what the defense, as far as the attacker knows it, put in."""
    task = problem.task
    images = task.observation.image.denormalise(best.inputs)
    if task.unperturb is None:
        return images
    known = problem.known_labels()
    labels = known if inferred is None else inferred
    if labels is None:
        assert best.logits is not None
        labels = _as_classes(best.logits, task.observation.task).to(images.device)
    return task.unperturb(images, labels)


def _as_classes(labels: Tensor, task: Task) -> Tensor:
    """From labels or logits to int64: `n` classes, or for multilabel `n x outputs` of 0 and 1."""
    if labels.dtype == torch.int64:
        return labels
    if task.kind == "multiclass":
        return labels.argmax(1)
    return labels.gt(0).long().squeeze(1) if task.kind == "binary" else labels.gt(0).long()
