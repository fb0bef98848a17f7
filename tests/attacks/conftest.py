from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from torch.nn import functional as F

from defenses.base import ClientDefense, Defense
from fl.batch_norm import batch_statistics, inferred_statistics, running_statistics
from fl.cards import DataInfo
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import BatchNormMode, BatchNormTier, NoConfig, Plugin
from harness.testing import SmallProblem


@dataclass(frozen=True)
class NormProblem(SmallProblem):
    """A small problem on a ConvNet of two layers with lively batch norm, and the statistics of a tier."""

    mode: BatchNormMode = "eval"
    tier: BatchNormTier = "running"
    convs: int = 2
    width: int = 3

    @cached_property
    def sent(self):
        card = MODELS.get("convnet")
        info = DataInfo(
            task=self.task,
            channels=self.channels,
            size=self.image.size,
            images={},
            public=True,
            fingerprint="norm",
            mean=self.image.mean,
            std=self.image.std,
        )
        config = card.config(convs=self.convs, width=self.width, batch_norm=True)
        state = initial_state(
            architecture(Plugin(card.name, card.version, config), info),
            streams=Streams(self.seed),
            freeze="none",
            batch_norm=self.mode,
        )
        draw = Streams(self.seed).torch("lively")
        lively = {
            name: tensor + 0.2 * torch.rand(tensor.shape, generator=draw)
            for name, tensor in state.tensors.items()
            if "norm" in name and tensor.is_floating_point()
        }
        return replace(state, tensors={**state.tensors, **lively})

    @cached_property
    def observation(self):
        seen = super().observation
        return replace(seen, knowledge=replace(seen.knowledge, batch_norm=self.granted()))

    def granted(self):
        module = materialise(self.sent)
        if self.tier == "running":
            return running_statistics(self.sent.tensors)
        if self.tier == "exact":
            return batch_statistics(module, self.image.normalise(self.images))
        if self.tier == "inferred":
            return inferred_statistics(
                module, self.sent.tensors, self.update, image=self.image, clients=1, local=self.local
            )
        return None


@pytest.fixture
def norm_problem():
    return NormProblem


@pytest.fixture
def cosine_and_variation():
    """From a small problem and images to 1 - cosine of all gradients at once, and 0.01 of their variation."""

    def costs(small, images):
        model, x = materialise(small.sent), small.image.normalise(images)
        loss = F.cross_entropy(model(x), small.labels)
        gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
        observed = torch.cat([tensor.flatten() for tensor in small.update.tensors.values()])
        matching = 1 - F.cosine_similarity(torch.cat([g.flatten() for g in gradients]), observed, dim=0)
        variation = F.l1_loss(x[..., 1:], x[..., :-1]) + F.l1_loss(x[..., 1:, :], x[..., :-1, :])
        return matching, 1e-2 * variation

    return costs


class DimmingClient(ClientDefense):
    """Trains on images at half brightness."""

    def perturb_batch(self, step, batch):
        return replace(batch, images=batch.images / 2)


class Dimming(Defense):
    def for_client(self, context):
        return DimmingClient()


@pytest.fixture
def dimming():
    """A defense that acts before the gradient and has no mirror."""
    return Dimming(NoConfig())
