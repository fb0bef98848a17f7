"""Small data sets in memory and federations on them."""

from __future__ import annotations

import pytest
import torch

from defenses.base import Defense
from fl.cards import PARTS, DataInfo
from fl.data import Dataset, Part
from fl.federation import Federation
from fl.models import MODELS
from fl.seeds import Streams
from fl.specs import FederationSpec, NoConfig, Plugin, Task


@pytest.fixture
def model_plugin():
    def make(name="lenet", **config):
        card = MODELS.get(name)
        return Plugin(card.name, card.version, card.config(**config))

    return make


@pytest.fixture
def make_info():
    def make(kind="multiclass", classes=3, channels=1, size=8, images=24, **other):
        return DataInfo(
            task=Task(kind, classes),
            channels=channels,
            size=size,
            images=dict.fromkeys(PARTS, images),
            public=True,
            fingerprint="f" * 8,
            **other,
        )

    return make


@pytest.fixture
def make_data(make_info):
    """A data set of uniform noise; class `i mod classes`."""

    def make(**info):
        described = make_info(**info)
        task = described.task
        generator = torch.Generator().manual_seed(5)
        parts = {}
        for name, n in described.images.items():
            pixels = torch.rand(n, described.channels, described.size, described.size, generator=generator)
            labels = torch.arange(n) % task.classes
            if task.kind == "binary":
                labels = labels.float().unsqueeze(1)
            elif task.kind == "multilabel":
                labels = (torch.rand(n, task.classes, generator=generator) < 0.5).float()
            ids = tuple(f"{name}-{i}" for i in range(n))
            parts[name] = Part(ids, labels, None, lambda chosen, pixels=pixels: pixels[list(chosen)])
        return Dataset(described, parts)

    return make


@pytest.fixture
def make_federation(make_data, model_plugin):
    def make(*, data=None, model=None, defense=None, seed=0, manipulation=None, **spec):
        return Federation(
            data=data or make_data(),
            model=model or model_plugin(convs=2),
            spec=FederationSpec(**{"clients": 4, "rounds": 2, "batch_size": 4, **spec}),
            defense=defense or Defense(NoConfig()),
            streams=Streams(seed),
            manipulation=manipulation,
        )

    return make
