"""What is frozen stays as it was and is absent from the update, in every architecture."""

import pytest
import torch
from torch import nn

ARCHITECTURES = [
    ("lenet", {"convs": 2}, 8, "body.conv1"),
    ("convnet", {"width": 2}, 9, "body.conv1"),
    ("mcnn", {}, 16, "body.block1.conv"),
    ("resnet20", {}, 8, "conv"),
    ("resnet32", {}, 8, "conv"),
    ("resnet18", {"stem": "cifar"}, 9, "body.conv1"),
    ("resnet50", {"stem": "cifar"}, 9, "body.conv1"),
    ("densenet121", {"stem": "cifar"}, 16, "body.conv0"),
    ("vgg16", {"batch_norm": True}, 32, "body.0"),
]
"""Name, configuration, image side, first convolution."""


def expected_names(model, freeze, first):
    """The trainable names, found by layer type and by the first convolution's name."""
    layers = {name: m for name, m in model.named_modules() if list(m.parameters(recurse=False))}
    if freeze == "batch_norm":
        layers = {name: m for name, m in layers.items() if not isinstance(m, nn.BatchNorm2d)}
    elif freeze != "none":
        layers = {
            name: layers[name] for name in {"all_but_last": ["head"], "middle": ["head", first]}[freeze]
        }
    return {f"{name}.{p}" for name, m in layers.items() for p, _ in m.named_parameters(recurse=False)}


@pytest.mark.parametrize("freeze", ["none", "batch_norm", "all_but_last", "middle"])
@pytest.mark.parametrize("case", ARCHITECTURES, ids=lambda case: case[0])
def test_frozen_tensors_stay_and_are_not_sent(case, freeze, model_plugin, make_data, make_federation):
    name, config, size, first = case
    federation = make_federation(
        data=make_data(size=size, images=2, kind="binary", classes=2),
        model=model_plugin(name, **config),
        algorithm="fedavg",
        clients=1,
        rounds=1,
        batch_size=2,
        batch_norm="train",
        freeze=freeze,
    )
    start = federation.initial()
    model = federation.build(start.model)
    normalised = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    expected = expected_names(model, freeze, first)

    sent = federation.client_update(start, 0).update
    ((end, _),) = federation.run(start)

    assert sent.tensors.keys() == expected
    assert all(delta.any() for name, delta in sent.tensors.items() if name.startswith("head."))
    moved = {n for n, t in end.model.tensors.items() if not torch.equal(t, start.model.tensors[n])}
    statistics = {f"{n}.{s}" for n in normalised for s in ("running_mean", "running_var")}
    if freeze == "batch_norm":
        assert sent.buffers == {}
        assert moved <= expected
    else:
        assert sent.buffers.keys() == statistics
        assert statistics <= moved <= expected | statistics
    assert {n for n in expected if sent.tensors[n].any()} == moved - statistics
