"""GMI's released nets, and critics that are kept."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import fl.data
from fl.cards import DataInfo, Setting
from fl.data import DATASETS
from fl.errors import NotApplicableError
from fl.generators import GeneratorConfig, generator_unfit, stage
from fl.generators.architecture import Critic, Generator
from fl.generators.gmi import initialise
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.models import MODELS
from fl.seeds import Streams
from fl.specs import FederationSpec, Plugin, Task, ThreatModel
from fl.stage_context import StageContext

SMALL = GeneratorConfig(
    kind="wgan_gp", architecture="gmi", latent=12, width=4, steps=3, batch_size=8, average=0, critic=True
)


def digits():
    return fl.data.load(Plugin("digits", 1, DATASETS.get("digits").config(size=16)))


def context(**changes):
    settings = {
        "streams": Streams(0),
        "device": torch.device("cpu"),
        "public": fl.data.public_data(digits()),
        "build": None,
        "progress": lambda share, words: None,
    }
    return StageContext(**settings | changes)


def artifact(config=SMALL, **changes):
    return stage.train({"generator": config.resolved(), "image": [1, 16]}, {}, context(**changes))


def released(size):
    """The released generator and critic for faces (64 pixels) or digits (32), written out."""
    maps = {32: [256, 128, 64], 64: [512, 256, 128, 64]}[size]
    channels = {32: 1, 64: 3}[size]
    layers = [nn.Linear(100, maps[0] * 16, bias=False), nn.BatchNorm1d(maps[0] * 16), nn.ReLU()]
    layers.append(nn.Unflatten(1, (maps[0], 4, 4)))
    for inputs, outputs in pairwise(maps):
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 5, 2, padding=2, output_padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    layers += [nn.ConvTranspose2d(64, channels, 5, 2, padding=2, output_padding=1), nn.Sigmoid()]
    critic = [nn.Conv2d(channels, 64, 5, 2, 2), nn.LeakyReLU(0.2)]
    for outputs, inputs in reversed(list(pairwise(maps))):
        critic += [nn.Conv2d(inputs, outputs, 5, 2, 2), nn.InstanceNorm2d(outputs, affine=True)]
        critic.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers), nn.Sequential(*critic, nn.Conv2d(maps[0], 1, 4))


def copy_by_order(module, other):
    """Give `other` the weights of `module`, one after the other."""
    theirs = dict(other.state_dict())
    for name, tensor in zip(theirs, module.state_dict().values(), strict=True):
        theirs[name] = tensor.reshape(theirs[name].shape)
    other.load_state_dict(theirs)


@pytest.mark.parametrize(("size", "parameters"), [(32, (1_443_777, 1_030_913)), (64, (5_142_083, 4_316_545))])
def test_they_are_the_released_nets(size, parameters):
    channels = 1 if size == 32 else 3
    layout = Layout("gmi", channels, size, 100, 64)
    generator, critic = Generator(layout), Critic(layout)
    theirs = released(size)
    counts = tuple(sum(p.numel() for p in net.parameters()) for net in theirs)
    assert tuple(sum(p.numel() for p in net.parameters()) for net in (generator, critic)) == counts
    assert counts == parameters
    initialise(generator, Streams(0).torch("generator"))
    initialise(critic, Streams(0).torch("critic"))
    copy_by_order(generator, theirs[0])
    copy_by_order(critic, theirs[1])
    latents = torch.randn(4, 100, generator=Streams(0).torch("latents"))
    for module in (generator, theirs[0]):
        module.train()  # batch norm by the batch
    images = generator(latents)
    assert images.shape == (4, channels, size, size)
    torch.testing.assert_close(images, theirs[0](latents), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(critic(images), theirs[1](images).flatten(), atol=1e-5, rtol=1e-4)


def test_a_critic_scores_each_image_alone():
    critic = Critic(Layout("gmi", 1, 16, 12, 4)).eval()
    images = torch.rand(5, 1, 16, 16, generator=Streams(0).torch("images"))
    torch.testing.assert_close(critic(images)[2:3], critic(images[2:3]))
    assert critic.features(images).shape == (5, 8 * 16)


def test_weights_are_drawn_as_pytorch_draws_them():
    layout = Layout("gmi", 3, 32, 40, 16)
    for module in (Generator(layout), Critic(layout)):
        initialise(module, Streams(0).torch("weights"))
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                largest = float(layer.weight.detach().abs().max())
                assert 0.9 * bound < largest <= bound
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d):
                assert bool((layer.weight == 1).all())
                assert not layer.bias.any()


def test_training_is_the_released_one():
    """Adam's betas, and five steps of the critic for one of the generator."""
    training = Training(SMALL, Layout("gmi", 1, 16, 12, 4), torch.rand(20, 1, 16, 16), Streams(0))
    training.step()
    for name, steps in (("generator", 1), ("critic", 5)):
        rule = training._rules[name]
        assert rule.param_groups[0]["betas"] == (0.5, 0.999)
        assert {int(entry["step"]) for entry in rule.state_dict()["state"].values()} == {steps}


def test_the_critic_is_kept_where_asked_for():
    kept, plain = artifact(), artifact(SMALL.model_copy(update={"critic": False}))
    assert all(torch.equal(kept.tensors[name], tensor) for name, tensor in plain.tensors.items())
    assert not any(name.startswith("critic.") for name in plain.tensors)
    critic = stage.load_critic(kept)
    assert not critic.training
    assert not any(p.requires_grad for p in critic.parameters())
    training = Training(
        SMALL,
        Layout("gmi", 1, 16, 12, 4),
        stage.split(context().public.images, Streams(0))[0],
        Streams(0),
    )
    for _ in range(3):
        training.step()
    for name, tensor in training.critic.state_dict().items():
        assert torch.equal(critic.state_dict()[name], tensor)
    with pytest.raises(NotApplicableError, match="critic: true"):
        stage.load_critic(plain)


def test_a_checkpoint_has_no_critic():
    with pytest.raises(ValueError, match="leave out critic"):
        GeneratorConfig(checkpoint="x.safetensors", critic=True)


def test_new_options_leave_old_identities_alone():
    assert "critic" not in GeneratorConfig().resolved()
    assert "architecture" not in GeneratorConfig().resolved()
    assert SMALL.resolved()["critic"] is True


@pytest.mark.parametrize(("size", "fits"), [(16, True), (28, False), (32, True), (64, True), (128, False)])
def test_it_draws_the_released_sizes(size, fits):
    info = DataInfo(Task("multiclass", 10), 1, size, {"public": 100}, True, "x")
    traits = MODELS.get("lenet").traits(MODELS.get("lenet").config(), info)
    setting = Setting(info, traits, FederationSpec(), ThreatModel(), "global_model")
    reason = generator_unfit(SMALL, setting)
    assert (reason is None) == fits
    if reason:
        assert "16, 32 or 64 pixels" in reason
