import pytest
import torch
from torch import nn

from fl.cards import DataInfo
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import Plugin, Task

MULTICLASS = Task("multiclass", 7)


def build(name, *, seed=0, size=16, channels=3, task=MULTICLASS, mode="eval", **config):
    """A model of the zoo in float64 with lively batch-norm statistics and parameters."""
    card = MODELS.get(name)
    info = DataInfo(
        task=task,
        channels=channels,
        size=size,
        images={},
        public=True,
        fingerprint="engine",
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    plugin = Plugin(card.name, card.version, card.config.model_validate(config))
    state = initial_state(architecture(plugin, info), streams=Streams(seed), freeze="none", batch_norm=mode)
    model = materialise(state).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight += 0.1 * torch.randn(module.weight.shape, generator=generator)
                module.bias += 0.1 * torch.randn(module.bias.shape, generator=generator)
                module.running_mean += 0.1 * torch.randn(module.running_mean.shape, generator=generator)
                module.running_var += torch.rand(module.running_var.shape, generator=generator)
    return model


@pytest.fixture(name="build")
def build_fixture():
    return build
