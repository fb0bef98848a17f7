"""A generator trained a little on smooth images, and clients, steps and federations under ShadowDef."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional as F

from defenses.base import Batch, Defense, Step
from defenses.cards_shadowdef import GENERATOR, ShadowDefConfig
from defenses.shadowdef.defense import ShadowDef
from fl.cards import PARTS, DataInfo
from fl.data import Dataset, Part
from fl.federation import Federation
from fl.generators import stage
from fl.generators.config import GeneratorConfig
from fl.models import MODELS
from fl.seeds import Streams
from fl.specs import FederationSpec, NoConfig, Plugin, Task
from fl.stage_context import StageContext
from harness.testing.small_images import SmallPublicData

SIZE = 16


def smooth(n, channels, seed):
    """Smooth random images, `n x C x 16 x 16` in [0, 1]."""
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=True).clamp(0, 1)


@functools.cache
def trained(channels):
    images = smooth(64, channels, seed=1)
    config = GeneratorConfig(latent=8, width=4, mapping_layers=2, steps=80, batch_size=16, lr=1e-3)
    context = StageContext(
        streams=Streams(0),
        device=torch.device("cpu"),
        public=SmallPublicData(images, torch.zeros(64, dtype=torch.long)),
        build=lambda state: None,
        progress=lambda share, word: None,
    )
    return stage.train({"generator": config.resolved(), "image": [channels, SIZE]}, {}, context)


@pytest.fixture
def artifacts():
    """From a number of channels to what the defense's stage makes."""
    return lambda channels=1: {GENERATOR: trained(channels)}


@pytest.fixture
def config():
    """From options to a configuration of the test's scale."""

    def make(**options):
        return ShadowDefConfig(**{"latent_steps": 60, "latent_lr": 0.05, "shadow_final": 2, **options})

    return make


@pytest.fixture
def make_federation(artifacts):
    """From a configuration (None: no defense) to a federation on smooth images."""

    def make(config, *, channels=1, kind="multiclass", classes=3, model="convnet", options=None, **spec):
        info = DataInfo(
            task=Task(kind, classes),
            channels=channels,
            size=SIZE,
            images=dict.fromkeys(PARTS, 24),
            public=True,
            fingerprint="smooth",
            mean=(0.4,) * channels,
            std=(0.25, 0.2, 0.3)[:channels],
        )
        card = MODELS.get(model)
        options = {"width": 4, "convs": 3} if model == "convnet" else options or {}
        return Federation(
            data=Dataset(info, {name: _part(name, info, seed) for seed, name in enumerate(PARTS, start=2)}),
            model=Plugin(model, card.version, card.config(**options)),
            spec=FederationSpec(
                **{"clients": 3, "rounds": 4, "batch_size": 4, "batch_norm": "train", "lr": 0.05, **spec}
            ),
            defense=Defense(NoConfig()) if config is None else ShadowDef(config),
            streams=Streams(0),
            artifacts=artifacts(channels),
        )

    return make


def _part(name, info, seed):
    n, task = info.images[name], info.task
    images = smooth(n, info.channels, seed)
    labels = torch.arange(n) % task.classes
    if task.kind == "binary":
        labels = labels.float().unsqueeze(1)
    elif task.kind == "multilabel":
        labels = (torch.rand(n, task.classes, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    return Part(tuple(f"{name}/{i}" for i in range(n)), labels, None, lambda chosen: images[list(chosen)])


class Bench:
    """One client of a federation at the start of a round, for calling its hooks one by one."""

    def __init__(self, federation, round_=0, client=0):
        self.federation, self.round, self.index = federation, round_, client
        self.client = federation.client(client)
        self.received = federation.initial().model
        self.trainer = federation._trainer(self.received, round_)
        self.defense = self.client.defense(round_)

    def step(self, index=0, round_=None, seed=7):
        return Step(
            self.round if round_ is None else round_,
            index,
            Streams(seed).torch("step", step=index),
            self.received,
            self.trainer,
        )

    def batch(self, n=4, start=0):
        data = self.client.data
        chosen = slice(start, start + n)
        return Batch(data.images[chosen], data.labels[chosen], data.image_ids[chosen])

    def normalise(self, images):
        return self.received.architecture.image.normalise(images)


@pytest.fixture
def bench():
    """From a federation (and round and client) to one client at work."""
    return Bench
