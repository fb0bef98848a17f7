"""Variational model inversion (Wang et al., NeurIPS 2021, arXiv 2201.10787)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.cards_vmi import VmiConfig
from attacks.inversion.config import PRIOR
from attacks.inversion.diversity import diversity
from attacks.inversion.groups import Group, GroupAttack
from attacks.inversion.posteriors import Flow, Gaussian, Posteriors
from attacks.optimizers import SNAPSHOTS
from fl.errors import NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fl.generators.architecture import Critic

MOST_IMAGES = 256
"""Images of one iteration, all labels together: further labels wait."""

SHOWN = 4
"""Images of a label in a snapshot."""


class Vmi(GroupAttack[VmiConfig]):
    """Fit q_y to the posterior of the latent vectors of each label y, and draw from it (section 3).

    Minimised is E over z ~ q_y of -log T_y(G(z)) + weight x KL(q_y || N(0, I)), T being the attacked model
    and G the generator. No label's q depends on another's, nor does anything end early.
    """

    def invert(self, group: Group[VmiConfig]) -> Iterator[Reconstruction | TaskFailure]:
        """Fit the distributions of as many labels at a time as `MOST_IMAGES` allows."""
        together = max(1, MOST_IMAGES // group.config.batch_size)
        for start in range(0, len(group.tasks), together):
            yield from _Inference(Group(group.tasks[start : start + together], group.env)).run()


class _Inference:
    """The distributions of n labels, on their way."""

    def __init__(self, group: Group[VmiConfig]) -> None:
        self._group, self._config = group, group.config
        self._layers = _layers(group)
        self._posteriors = _posteriors(group, self._layers).to(group.device, torch.float64)
        self._parameters = list(self._posteriors.parameters())
        config = self._config
        self._rule = torch.optim.SGD(self._parameters, lr=config.lr, momentum=config.momentum)
        self._critic = _critic(group)
        self._noise = [task.streams.torch("posterior_noise") for task in group.tasks]
        self._best = torch.full((len(group.tasks),), torch.inf, dtype=torch.float64)

    def run(self) -> list[Reconstruction | TaskFailure]:
        """Go all the way, and draw."""
        group = self._group
        terms: dict[str, Tensor] = {}
        iterations = group.allowed(self._config.iterations)
        stride = max(1, iterations // SNAPSHOTS)
        for iteration in range(iterations):
            if group.stopping():
                return list(group.stopped())
            terms, images = self._step()
            self._best = torch.minimum(self._best, terms["total"].cpu())
            if iteration % stride == 0 or iteration == iterations - 1:
                group.record(iteration, terms, self._best, images[:, :SHOWN])
        images = self._drawn()
        return list(group.reconstructions(images, terms, evaluations=iterations, iterations=iterations))

    def _step(self) -> tuple[dict[str, Tensor], Tensor]:
        """Descend once; return the terms, each `n`, and the images, both from before."""
        shape = (self._layers, self._config.batch_size, self._group.generator.latent)
        drawn = [torch.randn(shape, generator=stream, dtype=torch.float64) for stream in self._noise]
        noise = torch.cat(drawn).to(self._group.device)
        latents = self._posteriors(noise)
        images = self._images(latents)
        terms = self._terms(noise, latents, images)
        slopes = torch.autograd.grad(terms["total"].sum(), self._parameters)
        for parameter, slope in zip(self._parameters, self._clipped(slopes), strict=True):
            parameter.grad = slope
        self._rule.step()
        return {name: term.detach() for name, term in terms.items()}, images.detach()

    def _terms(self, noise: Tensor, latents: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Return the terms of every label's objective, each `n`."""
        config, n = self._config, len(self._group.tasks)
        logits = self._group.logits(images.flatten(0, 1)).double()
        labels = self._group.labels.repeat_interleave(images.shape[1])
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=config.label_smoothing)
        divergence = self._posteriors.divergence(noise, latents)
        terms = {
            "identity": losses.view(n, -1).mean(1),
            "kl": divergence.view(n, -1).mean(1),
        }
        total = terms["identity"] + config.kl * terms["kl"]
        if config.entropy:
            terms["entropy"] = _entropies(logits).view(n, -1).mean(1)
            total = total - config.entropy * terms["entropy"]
        if config.diversity.weight:
            terms["diversity"] = self._diversities(images)
            total = total + config.diversity.weight * terms["diversity"]
        return terms | {"total": total}

    def _diversities(self, images: Tensor) -> Tensor:
        """Return FedInverse's term for every label, `n`."""
        label = self._group.labels.new_zeros(images.shape[1])
        seen = images if self._critic is None else [self._critic.features(own) for own in images]
        return torch.stack([diversity(own, label, self._config.diversity) for own in seen]).double()

    def _clipped(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        """Return the slopes, those of a label no longer than they may be; each stacks the labels' members."""
        clip = self._config.clip
        if clip is None:
            return list(slopes)
        squares = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0)
        lengths = squares.view(-1, self._layers).sum(1).sqrt()
        factors = (clip / lengths.clamp_min(clip)).repeat_interleave(self._layers)
        return [slope * factors.view(-1, *[1] * (slope.ndim - 1)) for slope in slopes]

    def _drawn(self) -> Tensor:
        """Draw from the distributions: `n x samples x C x H x W`, beginning where other attacks do."""
        latent, samples = self._group.generator.latent, self._config.samples
        drawn = self._group.draw(self._layers * latent, samples).double()
        noise = drawn.view(-1, samples, self._layers, latent).transpose(1, 2).flatten(0, 1)
        with torch.no_grad():
            return self._images(self._posteriors(noise))

    def _images(self, latents: Tensor) -> Tensor:
        """From `P x b x latent`, the layers of a label side by side, to images, `n x b x C x H x W`."""
        generator, batch = self._group.generator, latents.shape[1]
        if self._layers == 1:
            images: Tensor = generator(latents.float().flatten(0, 1))
        else:
            by_image = latents.float().view(-1, self._layers, *latents.shape[1:]).transpose(1, 2)
            styles = generator.styles(by_image.flatten(0, 2))
            images = generator.synthesis(styles.view(-1, self._layers, styles.shape[1]))
        return images.view(-1, batch, *images.shape[1:])


def _layers(group: Group[VmiConfig]) -> int:
    """Return the latent vectors of an image.

    Raises:
        NotApplicableError: If each layer is to have one, and the generator has but one for all.
    """
    if group.config.layers == "one":
        return 1
    if group.generator.layers == 1:
        raise NotApplicableError("expected a generator with a style per layer (layers: all), got one without")
    return group.generator.layers


def _critic(group: Group[VmiConfig]) -> Critic | None:
    """Return the critic that the generator was trained against, where images are compared by its features."""
    from fl.generators.stage import load_critic

    if group.config.diversity.features == "pixels":
        return None
    return load_critic(group.artifact(PRIOR), group.device)


def _posteriors(group: Group[VmiConfig], layers: int) -> Posteriors:
    """Return the distributions of all labels, those of the layers of a label side by side."""
    config, entries = group.config, group.generator.latent
    if config.posterior == "gaussian":
        return Gaussian(len(group.tasks) * layers, entries)
    members = [(task.streams, layer) for task in group.tasks for layer in range(layers)]
    streams = [own.torch("posterior_weights", layer=layer) for own, layer in members]
    steps, scales, hidden = config.flow_steps, config.flow_scales, config.flow_hidden
    return Flow(streams, entries, steps=steps, scales=scales, hidden=hidden)


def _entropies(logits: Tensor) -> Tensor:
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)
