"""One client under ShadowDef, and the state that it keeps between rounds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from defenses.base import Batch, ClientContext, ClientDefense, Step
from defenses.cards_shadowdef import GENERATOR, ShadowDefConfig
from defenses.shadowdef.inversion import mixed
from defenses.shadowdef.latents import fit_latents
from defenses.shadowdef.mechanism import Mechanism
from defenses.shadowdef.rehearsal import received_model
from defenses.shadowdef.shadow import Shadow, public_shadow
from fl.encoding import prefixed, under
from fl.types import Tensors

if TYPE_CHECKING:
    from torch import nn

    from fl.types import ModelState

_WEIGHTS, _LATENTS, _MAPS = "weights/", "latents/", "maps/"


class ShadowClient(ClientDefense):
    """Adds noise to every batch; keeps its shadow's weights, and a latent vector and a map for each image.

    Args:
        config: What to do.
        context: Who it is.
    """

    def __init__(self, config: ShadowDefConfig, context: ClientContext) -> None:
        self._config = config
        self._context = context
        self._mechanism = Mechanism(config, context.rounds, context.batch_size)
        self._weights: Tensors | None = None
        self._latents: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._copy: tuple[ModelState, nn.Module] | None = None

    def state_dict(self) -> Tensors:
        """Return the shadow's synthesis weights once tuned, and latent vectors and maps by image id."""
        return {
            **prefixed(_WEIGHTS, self._weights or {}),
            **prefixed(_LATENTS, self._latents),
            **prefixed(_MAPS, self._maps),
        }

    def load_state_dict(self, state: Tensors) -> None:
        """Take up the state of an earlier round."""
        self._weights = under(_WEIGHTS, state) or None
        self._latents = dict(under(_LATENTS, state))
        self._maps = dict(under(_MAPS, state))

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        """Return the batch with its noise, in pixels of [0, 1] but not clipped to them."""
        # An attacker who differentiates looks for the images that were trained on, noise included; what it
        # can undo of the noise it undoes afterwards (`adversary`).
        if self._config.off or step.trainer.differentiable or not len(batch):
            return batch
        with torch.enable_grad():
            model = self._received(step)
            noise = self._noise(step, batch, model)
            area = self._mechanism.salient(step, batch, model)
            offset = self._mechanism.offset(noise, area, step, batch)
        return replace(batch, images=batch.images + offset)

    def _noise(self, step: Step, batch: Batch, model: nn.Module) -> Tensor:
        """Return the noise before steering, `n x C x H x W`; moves shadow and maps on."""
        device, config = batch.images.device, self._config
        if step.round >= config.shadow_final and all(i in self._maps for i in batch.image_ids):
            return self._kept(batch, device)
        shadow = public_shadow(self._context.artifacts[GENERATOR], config, self._context.streams, device)
        shadow = shadow.having(self._weights)
        styles = shadow.styles(self._fitted(shadow, step, batch)).detach()
        if step.round < config.shadow_final:
            tuned = self._mechanism.tune(shadow, styles, step, batch, model)
            noise = self._mechanism.noise(shadow.images(styles, tuned), step, batch)
            self._remember(batch, noise)
            self._weights = mixed(tuned, shadow.weights, config.ema)
            return noise
        # The shadow is at rest: images that it never met get their map from it as it is.
        fresh = self._mechanism.noise(shadow.images(styles), step, batch)
        for image_id, noise in zip(batch.image_ids, fresh, strict=True):
            self._maps.setdefault(image_id, noise.clone())
        return self._kept(batch, device)

    def _kept(self, batch: Batch, device: torch.device) -> Tensor:
        return torch.stack([self._maps[image_id].to(device) for image_id in batch.image_ids])

    def _remember(self, batch: Batch, noise: Tensor) -> None:
        share = self._config.noise_momentum
        for image_id, fresh in zip(batch.image_ids, noise, strict=True):
            old = self._maps.get(image_id)
            kept = fresh if old is None else share * old.to(fresh.device) + (1 - share) * fresh
            self._maps[image_id] = kept.clone()

    def _fitted(self, shadow: Shadow, step: Step, batch: Batch) -> Tensor:
        """Return the batch's latent vectors, `n x latent`; fits those of images seen for the first time."""
        device, ids = batch.images.device, batch.image_ids
        new = [i for i, image_id in enumerate(ids) if image_id not in self._latents]
        if new:
            streams = self._context.streams
            drawn = [torch.randn(shadow.latent, generator=streams.torch("latent", image=ids[i])) for i in new]
            latents = torch.stack(drawn).to(device)
            if not self._config.has("random_latents"):
                image = step.received.architecture.image
                latents = fit_latents(shadow, batch.images[new], latents, config=self._config, image=image)
            self._latents.update((ids[i], latent.clone()) for i, latent in zip(new, latents, strict=True))
        return torch.stack([self._latents[image_id].to(device) for image_id in ids])

    def _received(self, step: Step) -> nn.Module:
        """Return the round's received model, a copy that only this client uses."""
        if self._copy is None or self._copy[0] is not step.received:
            self._copy = (step.received, received_model(step.trainer, step.received))
        return self._copy[1]
