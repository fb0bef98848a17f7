"""What attacks reconstructed, kept as it was made, so that it can be scored again without attacking again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attacks.base import Reconstruction
from fl.specs import digest
from fl.types import Artifact

if TYPE_CHECKING:
    from torch import Tensor

    from harness.store.artifacts import ArtifactStore


def answers_key(trial_id: str) -> str:
    """Return the content address of a trial's reconstructions."""
    return digest(f"answers/{trial_id}")


def store_answers(store: ArtifactStore, trial_id: str, answers: Mapping[str, Reconstruction]) -> None:
    """Store a trial's reconstructions by target.

    Args:
        store: The artifact store where the data set is public, else the private one.
        trial_id: The trial.
        answers: What the attack made of each target; images keep their bits.
    """
    tensors: dict[str, Tensor] = {}
    data: dict[str, Any] = {}
    for target, answer in answers.items():
        tensors[f"{target}/images"] = answer.images
        if answer.labels is not None:
            tensors[f"{target}/labels"] = answer.labels
        data[target] = {
            "task_id": answer.task_id,
            "objective": dict(answer.objective),
            "gradient_evaluations": answer.gradient_evaluations,
            "lane_iterations": answer.lane_iterations,
            "formulation": answer.formulation,
            "lane_width": answer.lane_width,
            "tabled": answer.tabled,
        }
    store.put(answers_key(trial_id), Artifact(tensors, data))


def load_answers(store: ArtifactStore, trial_id: str) -> dict[str, Reconstruction]:
    """Return a trial's reconstructions by target.

    Raises:
        StoreError: If they are not stored, or damaged.
    """
    artifact = store.get(answers_key(trial_id))
    data: Any = artifact.data
    return {
        target: Reconstruction(
            images=artifact.tensors[f"{target}/images"],
            labels=artifact.tensors.get(f"{target}/labels"),
            **facts,
        )
        for target, facts in data.items()
    }
