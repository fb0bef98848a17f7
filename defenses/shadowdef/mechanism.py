"""From a batch to its noise, without any state: what a client does, and an attacker who imitates one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from defenses.base import Batch, Step
from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef import injection, rehearsal
from defenses.shadowdef.inversion import invert
from defenses.shadowdef.saliency import saliency
from defenses.shadowdef.vulnerability import noise_map

if TYPE_CHECKING:
    from torch import Tensor, nn

    from defenses.shadowdef.rehearsal import Probe, Trace
    from defenses.shadowdef.shadow import Shadow
    from fl.types import Tensors


@dataclass(frozen=True)
class Mechanism:
    """ShadowDef in a federation.

    Attributes:
        config: Its options.
        rounds: Rounds of the federation.
        batch_size: Nominal batch size of the client.
    """

    config: ShadowDefConfig
    rounds: int
    batch_size: int

    def tune(self, shadow: Shadow, styles: Tensor, step: Step, batch: Batch, model: nn.Module) -> Tensors:
        """Return synthesis weights that imitate an attack on the batch; the training is left as it was.

        Args:
            shadow: The generator.
            styles: Of the batch, `n x latent`.
            step: Where the client is.
            batch: The clean batch.
            model: The model received, in evaluation mode.
        """
        image, config = step.received.architecture.image, self.config
        with rehearsal.rolled_back(step.trainer):
            probe = rehearsal.client_probe(step.trainer)
            goal = self._goal(probe, step, batch)
            if config.has("mismatched_modes"):
                names, task = step.received.trainable, step.trainer.task
                probe = rehearsal.received_probe(model, names, image=image, task=task)
            return invert(
                shadow,
                styles,
                probe,
                truth=batch.images,
                labels=batch.labels,
                goal=goal,
                config=config,
                lr=config.step_size(self.batch_size),
                normalise=image.normalise,
            )

    def noise(self, drawn: Tensor, step: Step, batch: Batch) -> Tensor:
        """Return the noise before steering, `n x C x H x W`, from the shadow's images in [0, 1]."""
        image, config = step.received.architecture.image, self.config
        return noise_map(
            (image.normalise(drawn.detach()) - image.normalise(batch.images)).square(),
            temperature=config.temperature,
            bins=config.bins,
            scrambled=config.has("scrambled_map"),
        )

    def salient(self, step: Step, batch: Batch, model: nn.Module) -> Tensor:
        """Return where the model received looks, `n x H x W`: its most salient pixels, the others 0."""
        cam = saliency(
            model,
            step.received.architecture.image.normalise(batch.images),
            batch.labels,
            config=self.config,
            task=step.trainer.task,
            round_=step.round,
        )
        return injection.salient(cam, self.config.cam_share)

    def offset(self, noise: Tensor, area: Tensor, step: Step, batch: Batch) -> Tensor:
        """Return what is added to the images, `n x C x H x W` in units of [0, 1], from noise and saliency."""
        config, image = self.config, step.received.architecture.image
        alpha = injection.attenuation(config, step.round, self.rounds)
        if config.has("flat_cam"):
            steered = injection.steer_flat(noise, area, alpha, temperature=config.temperature)
        else:
            steered = injection.steer(noise, area, alpha)
        share = injection.peak(config, step.round, self.rounds)
        scaled = injection.rescale(steered, image.normalise(batch.images), share)
        pixels = scaled * scaled.new_tensor(image.std).view(-1, 1, 1)
        return injection.place(pixels, config.placement, step.stream)

    def _goal(self, probe: Probe, step: Step, batch: Batch) -> Trace:
        goal = rehearsal.detached(probe(batch.images.detach(), batch.labels))
        if not self.config.has("recovered_statistics"):
            return goal
        after = step.trainer.float_buffers()
        statistics = rehearsal.recovered_statistics(step.trainer.model, step.received.tensors, after)
        return goal._replace(statistics=statistics)
