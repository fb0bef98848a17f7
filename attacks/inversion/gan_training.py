"""A generator trained against a critic with the help of the attacked model: what such stages share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fl.encoding import under
from fl.errors import BenchError, NotApplicableError
from fl.generators import resumable
from fl.generators.architecture import Generator
from fl.generators.layout import Layout
from fl.generators.stage import as_bytes
from fl.generators.training import draw_weights
from fl.specs import JSON
from fl.types import Artifact

if TYPE_CHECKING:
    from fl.seeds import Streams
    from fl.stage_context import StageContext
    from fl.types import ImageSpec

SAMPLES = 64
"""Images kept in the artifact for people to look at."""

_CHUNK = 256
_GENERATOR, _CRITIC = "weights.", "critic."


class Attacked:
    """The attacked model in eval mode and without gradients of its weights, from images in [0, 1].

    Args:
        model: The module.
        image: What it takes.
        classes: Logits it gives.

    Attributes:
        image: As given.
        classes: As given.
    """

    def __init__(self, model: nn.Module, image: ImageSpec, classes: int) -> None:
        self._model = model.eval().requires_grad_(False)
        self.image = image
        self.classes = classes

    @classmethod
    def of(cls, context: StageContext) -> Attacked:
        """Return the global model that a stage is made with.

        Raises:
            NotApplicableError: If there is none.
        """
        if context.model is None:
            raise NotApplicableError("expected the global model of a round, got none; plan the trial with it")
        architecture = context.model.architecture
        return cls(context.build(context.model), architecture.image, architecture.outputs)

    def logits(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to `n x classes`, differentiable in the images."""
        found: Tensor = self._model(self.image.normalise(images))
        return found

    def probabilities(self, images: Tensor) -> Tensor:
        """Return what it says about any number of images, `N x classes`.

        Raises:
            BenchError: If that is not finite.
        """
        with torch.no_grad():
            found = torch.cat([self.logits(chunk).softmax(1) for chunk in torch.split(images, _CHUNK)])
        if not bool(found.isfinite().all()):
            raise BenchError(
                "expected a global model with finite outputs, got one with others: its federation diverged; "
                "give the federation a smaller lr, or attack an earlier round"
            )
        return found


class GanTraining(ABC):
    """A generator and a critic in training, by Adam.

    Every draw of a step comes from a stream that names the step, so a training that was interrupted goes on
    from its last kept state to the same weights, bit for bit.

    Args:
        generator: With its first weights.
        critic: With its first weights.
        lr: Adam's step, of both.
        betas: Adam's decays, of both.
        streams: Every draw's.
        device: Where to compute.

    Attributes:
        generator: As it is optimised.
        critic: As it is optimised.
        streams: As given.
        device: As given.
        done: Steps taken.
    """

    def __init__(
        self,
        generator: Generator,
        critic: nn.Module,
        *,
        lr: float,
        betas: tuple[float, float],
        streams: Streams,
        device: torch.device,
    ) -> None:
        self.generator, self.critic = generator.to(device), critic.to(device)
        self.streams, self.device = streams, device
        self.done = 0
        self._lr = lr
        self._modules: Mapping[str, nn.Module] = {"generator": self.generator, "critic": self.critic}
        self._rules = {
            name: torch.optim.Adam(module.parameters(), lr=lr, betas=betas)
            for name, module in self._modules.items()
        }

    @abstractmethod
    def step(self) -> None:
        """Train both as much as a step asks for, and count it."""

    def state(self) -> Artifact:
        """Return all that a training goes on from."""
        return resumable.state(self._modules, self._rules, self.done)

    def resume(self, kept: Artifact) -> None:
        """Go on from what `state` returned."""
        self.done = resumable.resume(kept, self._modules, self._rules, self.device)

    def finish(self, steps: int, context: StageContext) -> Artifact:
        """Take the steps that are left; return generator, critic and a few samples as an artifact.

        Returns:
            Tensors: the generator's weights under `weights.`, the critic's under `critic.`, and `samples`,
            uint8, `64 x C x H x W`. Data: the generator's `layout` (`fl.generators.stage.load` takes it).

        Raises:
            BenchError: If the training diverged, or images are not finite.
        """
        remedy = f"give gan: a smaller lr than {self._lr:g}"
        resumable.finish(self, self.step, context, steps=steps, name="gan", remedy=remedy)
        return self._artifact()

    def descend(self, name: str, loss: Tensor) -> None:
        """Take one step of `generator` or `critic` along the slope of `loss`."""
        resumable.descend(self._rules[name], self._modules[name], loss)

    def latents(self, number: int, stream: torch.Generator) -> Tensor:
        """Draw latent vectors from N(0, I), `number x latent`."""
        return torch.randn(number, self.generator.latent, generator=stream).to(self.device)

    def _artifact(self) -> Artifact:
        stream = self.streams.torch("gan_samples")
        self.generator.eval()
        classes = self.generator.classes
        labels = (torch.arange(SAMPLES) % classes).sort()[0].to(self.device) if classes else None
        with torch.no_grad():
            samples = self.generator(self.latents(SAMPLES, stream), labels).cpu()
        tensors = {"samples": as_bytes(samples)}
        for prefix, module in ((_GENERATOR, self.generator), (_CRITIC, self.critic)):
            tensors |= {f"{prefix}{name}": tensor.cpu() for name, tensor in module.state_dict().items()}
        return Artifact(tensors, {"layout": self.generator.layout.document()})


def new_generator(layout: Layout, streams: Streams) -> Generator:
    """Return a generator with first weights from its own stream."""
    generator = Generator(layout)
    draw_weights(generator, layout.family, streams.torch("generator_weights"))
    return generator


def load_critic(critic: nn.Module, artifact: Artifact, device: torch.device) -> None:
    """Give a critic the weights of a stage's artifact; put it into eval mode, without their gradients."""
    critic.load_state_dict(under(_CRITIC, artifact.tensors))
    critic.to(device).eval().requires_grad_(False)


def described(artifact: Artifact, **data: JSON) -> Artifact:
    """Return the artifact with more data."""
    return Artifact(artifact.tensors, {**artifact.data, **data})
