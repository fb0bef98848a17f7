"""Training an evaluator on few images: Adam, warped images, and a running mean of the weights.

Every draw of a step comes from a stream that names the step, so a training that was interrupted goes on from
its last kept state to the same weights, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from fl.generators import resumable
from fl.seeds import Streams
from fl.types import Artifact
from harness.metrics.evaluator_costs import BATCH
from harness.metrics.evaluator_network import EvaluatorNetwork, initialise

LR = 3e-3
"""Largest step of Adam: it rises for a tenth of the training, then falls along a cosine."""
DECAY = 0.998
"""Of the running mean of the weights."""

ROTATION = math.radians(15)
STRETCH = 0.15
SHEAR = 0.15
SHIFT = 0.1
"""Of the image's side."""
WAVES, WAVE = 5, 0.06
"""A smooth displacement is drawn at so many points a side, with this standard deviation (2: the side)."""


@dataclass
class Training:
    """An evaluator in training.

    Args:
        network: Its weights are drawn here.
        steps: How many will be taken.
        streams: Every draw's.
        device: Where to compute.

    Attributes:
        done: Steps taken.
        average: The running mean of the network's weights and statistics.
    """

    network: EvaluatorNetwork
    average: EvaluatorNetwork
    steps: int
    streams: Streams
    device: torch.device
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        initialise(self.network, self.streams.torch("evaluator_weights"))
        self.average.load_state_dict(self.network.state_dict())
        for module in self._modules.values():
            module.to(self.device)
        self._rule = torch.optim.Adam(self.network.parameters(), lr=LR)

    def draw(self, images: int) -> list[int]:
        """Return the positions of the next step's images among so many."""
        stream = self.streams.torch("evaluator_batch", step=self.done)
        chosen: list[int] = torch.randint(images, (BATCH,), generator=stream).tolist()
        return chosen

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take a step on `n x C x H x W` in [0, 1] with n classes."""
        warped = warp(images, self.streams.torch("evaluator_warp", step=self.done))
        loss = F.cross_entropy(self.network(warped.to(self.device)), labels.to(self.device))
        for group in self._rule.param_groups:
            group["lr"] = LR * self._schedule()
        resumable.descend(self._rule, self.network, loss)
        self.done += 1
        self._follow()

    def state(self) -> Artifact:
        """Return all that a training goes on from."""
        return resumable.state(self._modules, {"network": self._rule}, self.done)

    def resume(self, kept: Artifact) -> None:
        """Go on from what `state` returned."""
        self.done = resumable.resume(kept, self._modules, {"network": self._rule}, self.device)

    @property
    def _modules(self) -> dict[str, EvaluatorNetwork]:
        return {"network": self.network, "average": self.average}

    def _schedule(self) -> float:
        rise = min(1.0, (self.done + 1) / (self.steps / 10))
        return rise * (1 + math.cos(math.pi * self.done / self.steps)) / 2

    def _follow(self) -> None:
        """Move the average; a short way at first, lest it remember the weights it began with."""
        decay = min(DECAY, self.done / (self.done + 10))
        with torch.no_grad():
            latest = self.network.state_dict()
            for name, mean in self.average.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(latest[name], 1 - decay)


def warp(images: Tensor, stream: torch.Generator) -> Tensor:
    """Return images turned, stretched, sheared, shifted and smoothly displaced, each by draws of its own.

    No image is mirrored: a mirrored digit is none. What comes in from outside repeats the border.

    Args:
        images: `n x C x H x W` in [0, 1].
        stream: Decides the draws.
    """
    n = len(images)

    def draw(most: float) -> Tensor:
        return most * (2 * torch.rand(n, generator=stream) - 1)

    angle, wide, high = draw(ROTATION), 1 + draw(STRETCH), 1 + draw(STRETCH)
    shear, right, down = draw(SHEAR), draw(2 * SHIFT), draw(2 * SHIFT)  # coordinates run from -1 to 1
    cosine, sine = angle.cos(), angle.sin()
    rows = [
        torch.stack([cosine * wide, shear - sine * high, right], 1),
        torch.stack([sine * wide, cosine * high, down], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    waves = WAVE * torch.randn(n, 2, WAVES, WAVES, generator=stream)
    displacement = F.interpolate(waves, size=images.shape[-2:], mode="bicubic", align_corners=False)
    grid = grid + displacement.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
