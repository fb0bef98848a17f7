"""A formulation that no machine has memory for beyond so many lanes."""

from __future__ import annotations

import torch

from attacks.engine.formulations import FORMULATIONS, Layers
from attacks.engine.table import Choice, EngineTable

PIB = 2**50
TABLE = EngineTable({"cpu": {"lenet": Choice("layers", 32)}}, {})


class Hungry(Layers):
    """Asks for a pebibyte if it has more than `most` lanes, when it is made or at its first gradients."""

    most = 16
    late = False

    def __init__(self, model, lanes):
        super().__init__(model, lanes)
        self._lanes = lanes
        if not self.late:
            self._eat()

    def gradients(self, inputs, labels, task, names):
        if self.late:
            self._eat()
        return super().gradients(inputs, labels, task, names)

    def products(self, inputs, labels, task, names):
        if self.late:
            self._eat()
        return super().products(inputs, labels, task, names)

    def _eat(self):
        if self._lanes > self.most:
            torch.empty(PIB, dtype=torch.uint8)


def register(formulations=FORMULATIONS):
    """Have `layers` be hungry."""
    formulations["layers"] = Hungry
