"""What is measured: models, attacks, iterations and trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from attacks.catalog import DlgConfig, InvertingGradientsConfig
from fl.specs import Config
from harness.alike import AlikeTasks


@dataclass(frozen=True)
class Case:
    """A row of the benchmark.

    Attributes:
        name: For `--only`.
        model: The model's name.
        options: Its options.
        size: H = W of the images.
        iterations: Of the attack; of DLG these are outer steps of 20 evaluations.
        trials: How many, rounded up to whole batches of the solver.
        attack: `dlg` in images and labels, or `inverting_gradients` with known labels.
    """

    name: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 32
    iterations: int = 100
    trials: int = 8
    attack: str = "inverting_gradients"

    @property
    def config(self) -> Config:
        """The attack's configuration: one start, and every iteration is done."""
        if self.attack == "dlg":
            return DlgConfig(iterations=self.iterations, tolerance=0, patience=self.iterations)
        return InvertingGradientsConfig(iterations=self.iterations)

    @property
    def stopping(self) -> Config | None:
        """The configuration with the early stopping that users get; None where the attack has none."""
        return DlgConfig(iterations=self.iterations) if self.attack == "dlg" else None

    @cached_property
    def alike(self) -> AlikeTasks:
        """Its tasks, on the CPU."""
        known = self.attack != "dlg"
        device = torch.device("cpu")
        return AlikeTasks.on(self.model, self.options, size=self.size, knows_labels=known, device=device)

    def scaled(self, *, trials: int | None = None, iterations: int | None = None) -> Case:
        """Return the case with other numbers of trials or iterations."""
        return replace(self, trials=trials or self.trials, iterations=iterations or self.iterations)

    def quick(self) -> Case:
        """Return the case in small."""
        return self.scaled(trials=min(self.trials, 4), iterations=max(2, self.iterations // 10))


CASES = (
    Case("lenet", "lenet", {"convs": 3}, iterations=100, trials=32, attack="dlg"),
    Case("resnet20", "resnet20", iterations=200),
    Case("resnet18", "resnet18", {"stem": "cifar"}, iterations=100),
    Case("convnet64", "convnet", {"width": 64}, iterations=60),
    Case("densenet121", "densenet121", size=64, iterations=30, trials=4),
)
