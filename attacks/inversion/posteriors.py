"""Families of distributions over latent vectors, several members side by side, all beginning as N(0, I).

Each is a map from noise N(0, I) to latent vectors whose volume change is the same everywhere. Stacked members
share no parameter and draw their own first weights, so that each is what it would be alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Posteriors(nn.Module, ABC):
    """P distributions q over latent vectors of d entries."""

    @abstractmethod
    def forward(self, noise: Tensor) -> Tensor:
        """From noise, `P x b x d`, to latent vectors distributed as q, `P x b x d`."""

    @abstractmethod
    def log_volume(self) -> Tensor:
        """Return log |det| of that map's Jacobian, `P`."""

    def log_ratio(self, noise: Tensor, latents: Tensor) -> Tensor:
        """Return log q(z) - log N(z; 0, I) of the latent vectors z that noise becomes, `P x b`."""
        grown = (latents.square() - noise.square()).sum(2) / 2
        return grown - self.log_volume()[:, None]

    def divergence(self, noise: Tensor, latents: Tensor) -> Tensor:
        """Return KL(q || N(0, I)), `P`, estimated from what noise becomes."""
        return self.log_ratio(noise, latents).mean(1)


class Gaussian(Posteriors):
    """Normal distributions with full covariance: z = m + L e, L a lower triangle.

    Args:
        members: P.
        entries: d.
    """

    def __init__(self, members: int, entries: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(members, 1, entries))
        self.factor = nn.Parameter(torch.eye(entries).repeat(members, 1, 1))

    def forward(self, noise: Tensor) -> Tensor:
        """From noise, `P x b x d`, to latent vectors, `P x b x d`."""
        return torch.baddbmm(self.mean, noise, self.factor.tril().mT)

    def log_volume(self) -> Tensor:
        """Return the sum of the logarithms of the diagonal, `P`."""
        return self.factor.diagonal(dim1=1, dim2=2).abs().log().sum(1)

    def divergence(self, noise: Tensor, latents: Tensor) -> Tensor:
        """Return KL(q || N(0, I)), `P`: 1/2 (|L|_F^2 + |m|^2 - d) - log |det L|, whatever was drawn."""
        spread = self.factor.tril().square().sum((1, 2))
        return (spread + self.mean.square().sum((1, 2)) - noise.shape[2]) / 2 - self.log_volume()


class Flow(Posteriors):
    """Normalising flows of scales and steps: Glow (Kingma and Dhariwal 2018, arXiv 1807.03039) for vectors.

    Noise enters in parts (Dinh et al. 2017, arXiv 1605.08803, section 3.6): the steps of the first scale see
    the first d / 2^(scales - 1) entries, rounded up, each further scale twice as many, the last one all.

    Args:
        streams: Of the first weights and the permutations of each member.
        entries: d.
        steps: Of each scale.
        scales: At least 1; the first must see two entries.
        hidden: Units of the two hidden layers of a coupling.
    """

    def __init__(
        self, streams: Sequence[torch.Generator], entries: int, *, steps: int, scales: int, hidden: int
    ) -> None:
        super().__init__()
        self._sizes = [-(-entries // 2**scale) for scale in reversed(range(scales))]
        self._each = steps
        self.steps = nn.ModuleList(Step(streams, size, hidden) for size in self._sizes for _ in range(steps))

    def forward(self, noise: Tensor) -> Tensor:
        """From noise, `P x b x d`, to latent vectors, `P x b x d`."""
        found = noise[..., :0]
        for number, step in enumerate(self.steps):
            size = self._sizes[number // self._each]
            found = step(torch.cat([found, noise[..., found.shape[2] : size]], 2))
        return found

    def log_volume(self) -> Tensor:
        """Return the sum of the logarithms of all steps' scales, `P`."""
        named = self.named_parameters()
        scales: list[Tensor] = [scale for name, scale in named if name.endswith("log_scale")]
        return torch.cat(scales, 2).sum((1, 2))


class Step(nn.Module):
    """A scale and shift of every entry, a fixed permutation, and an additive coupling of the two halves.

    Scales and shifts are 1 and 0 at first. Glow takes them from a batch of draws, here N(0, I), of which
    those are the limit. A coupling's last layer is zero at first, so that a step begins as its permutation.

    Args:
        streams: As of the flow.
        entries: Of the vectors that it sees, at least 2.
        hidden: Units of the two hidden layers.
    """

    order: Tensor

    def __init__(self, streams: Sequence[torch.Generator], entries: int, hidden: int) -> None:
        super().__init__()
        members, kept = len(streams), (entries + 1) // 2
        self.log_scale = nn.Parameter(torch.zeros(members, 1, entries))
        self.shift = nn.Parameter(torch.zeros(members, 1, entries))
        order = torch.stack([torch.randperm(entries, generator=stream) for stream in streams])
        self.register_buffer("order", order[:, None])
        self.coupling = nn.Sequential(
            Linear(members, kept, hidden, streams),
            nn.ELU(),
            Linear(members, hidden, hidden, streams),
            nn.ELU(),
            Linear(members, hidden, entries - kept),
        )
        self._kept = kept

    def forward(self, vectors: Tensor) -> Tensor:
        """Keep the shape of `P x b x entries`."""
        scaled = vectors * self.log_scale.exp() + self.shift
        ordered = scaled.gather(2, self.order.expand_as(scaled))
        kept, moved = ordered[..., : self._kept], ordered[..., self._kept :]
        return torch.cat([kept, moved + self.coupling(kept)], 2)


class Linear(nn.Module):
    """P linear layers side by side, their weights N(0, 2 / inputs), or zero without streams."""

    def __init__(
        self, members: int, inputs: int, outputs: int, streams: Sequence[torch.Generator] = ()
    ) -> None:
        super().__init__()
        first = torch.zeros(members, inputs, outputs)
        for weight, stream in zip(first, streams, strict=False):
            weight.normal_(0.0, (2 / inputs) ** 0.5, generator=stream)
        self.weight = nn.Parameter(first)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, vectors: Tensor) -> Tensor:
        """From `P x b x inputs` to `P x b x outputs`."""
        return torch.baddbmm(self.bias, vectors, self.weight)
