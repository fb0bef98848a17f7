"""Where an attack runs in the conformance kits."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from attacks.base import Snapshot
from defenses.base import Defense
from fl.models import materialise
from fl.types import ModelState, Wrapper


class SmallEnv:
    """Where an attack runs (`attacks.base.AttackEnv`): the CPU, keeping every snapshot.

    Attributes:
        snapshots: What was recorded, by task.
    """

    def __init__(self, defense: Defense[Any] | None = None, stop_after: int | None = None) -> None:
        self.snapshots: dict[str, list[Snapshot]] = {}
        self._defense = defense
        self._patience = stop_after

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def build(self, state: ModelState) -> nn.Module:
        """Return the module with the state's weights."""
        return materialise(state, wrap=partial(wrap_with, self._defense))

    def record(self, task_id: str, snapshot: Snapshot) -> None:
        """Keep a snapshot."""
        self.snapshots.setdefault(task_id, []).append(snapshot)

    def stopping(self, task_id: str) -> bool:
        """Say yes after `stop_after` calls."""
        if self._patience is None:
            return False
        self._patience -= 1
        return self._patience < 0


def wrap_with(defense: Defense[Any] | None, wrapper: Wrapper, model: nn.Module) -> nn.Module:
    """Apply a defense's change of architecture, or none."""
    return model if defense is None else defense.wrap_model(model)
