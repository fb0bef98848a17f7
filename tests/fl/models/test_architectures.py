"""Single architectures against what their papers and torchvision say."""

import pytest
import torch
import torchvision
from torch import nn

from fl.errors import UsageError
from fl.models import architecture, build, initial_state, materialise
from fl.models.base import Classifier
from fl.seeds import Streams


def state_of(plugin, info, *, seed=0):
    return initial_state(architecture(plugin, info), streams=Streams(seed), freeze="none", batch_norm="eval")


def on_paper(plugin, info):
    """The module without memory or values."""
    with torch.device("meta"):
        return build(architecture(plugin, info))


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def test_uniform_lenet_fills_minus_half_to_half(model_plugin, make_info):
    state = state_of(model_plugin(), make_info(size=32, channels=3, classes=100))
    values = torch.cat([t.flatten() for t in state.tensors.values()])

    assert values.numel() == 88_648  # the seed notebook's count
    assert values.abs().max() <= 0.5
    assert values.std().item() == pytest.approx(12**-0.5, rel=0.01)


def test_resnet20_has_the_paper_s_size(model_plugin, make_info):
    state = state_of(model_plugin("resnet20"), make_info(size=32, channels=3, classes=10))
    trained = [t for name, t in state.tensors.items() if name in state.trainable]

    assert sum(t.numel() for t in trained) == 269_722  # 0.27 M in He et al. 2016, table 6
    assert sum(t.dim() > 1 for t in trained) == 20


def test_resnet32_has_the_paper_s_size(model_plugin, make_info):
    model = on_paper(model_plugin("resnet32"), make_info(size=32, channels=3, classes=10))

    assert size_of(model) == 464_154  # 0.46 M in He et al. 2016, table 6
    assert sum(p.dim() > 1 for p in model.parameters()) == 32


def test_mcnn_is_as_published_at_32_pixels(model_plugin, make_info):
    model = on_paper(model_plugin("mcnn"), make_info(size=32, channels=1, classes=5))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]

    assert [(c.kernel_size[0], c.padding[0], c.out_channels) for c in convolutions] == [
        (7, 1, 64),
        (5, 0, 128),
        (5, 0, 256),
    ]
    assert model.head.in_features == 256
    maps = []
    for block in model.blocks.values():
        block.register_forward_hook(lambda module, inputs, output: maps.append(tuple(output.shape[1:])))
    model(torch.zeros(2, 1, 32, 32, device="meta"))
    assert maps == [(64, 14, 14), (128, 5, 5), (256, 1, 1)]


@pytest.mark.parametrize(
    ("name", "config", "original"),
    [
        ("resnet18", {}, torchvision.models.resnet18),
        ("resnet50", {}, torchvision.models.resnet50),
        ("densenet121", {}, torchvision.models.densenet121),
        ("vgg16", {"pooled": 7, "hidden": 4096}, torchvision.models.vgg16),
        ("vgg16", {"pooled": 7, "hidden": 4096, "batch_norm": True}, torchvision.models.vgg16_bn),
    ],
)
def test_parameters_are_torchvision_s_in_number_order_and_shape(
    name, config, original, model_plugin, make_info
):
    info = make_info(size=224, channels=3, classes=1000)
    model = on_paper(model_plugin(name, **config), info)
    with torch.device("meta"):
        expected = original()

    assert [p.shape for p in model.parameters()] == [p.shape for p in expected.parameters()]


@pytest.mark.parametrize(
    ("name", "first"),
    [("resnet18", "body.conv1"), ("resnet50", "body.conv1"), ("densenet121", "body.conv0")],
)
def test_the_cifar_stem_keeps_the_resolution(name, first, model_plugin, make_info):
    model = on_paper(model_plugin(name, stem="cifar"), make_info(size=16, channels=1, classes=2))
    stem = model.get_submodule(first)
    shapes = []
    next(iter(model.blocks.values())).register_forward_hook(lambda module, i, o: shapes.append(o.shape[2:]))
    model(torch.zeros(2, 1, 16, 16, device="meta"))

    assert (stem.kernel_size, stem.stride, stem.in_channels) == ((3, 3), (1, 1), 1)
    assert shapes == [(16, 16)]


@pytest.mark.parametrize(
    ("name", "spread"),
    [
        ("resnet18", lambda w: (2 / (w.shape[0] * w[0, 0].numel())) ** 0.5),
        ("densenet121", lambda w: (2 / w[0].numel()) ** 0.5),
        ("vgg16", lambda w: (2 / (w.shape[0] * w[0, 0].numel())) ** 0.5),
    ],
)
def test_convolutions_start_as_torchvision_s(name, spread, model_plugin, make_info):
    model = materialise(state_of(model_plugin(name), make_info(size=32, channels=3, classes=100)))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(spread(module.weight), rel=5 / (2 * n) ** 0.5)
            assert module.weight.mean().abs() < 5 * spread(module.weight) / n**0.5
            assert module.bias is None or not module.bias.any()
    head = model.head
    if name == "vgg16":
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    else:  # U(-1/sqrt(fan_in), 1/sqrt(fan_in))
        assert head.weight.abs().max().item() == pytest.approx(head.in_features**-0.5, rel=1e-3)
    assert head.bias.any() == (name == "resnet18")


def test_convnet_has_eight_convolutions_in_the_paper_s_widths(model_plugin, make_info):
    model = materialise(state_of(model_plugin("convnet"), make_info(size=32, channels=3, classes=10)))
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]

    assert widths == [64, 128, 128, 256, 256, 256, 256, 256]
    assert model.head.in_features == 36 * 64


def test_convnet_without_batch_norm_starts_with_signal_in_every_layer(model_plugin, make_info):
    info = make_info(size=32, channels=3)
    model = materialise(state_of(model_plugin("convnet", width=16, batch_norm=False), info))
    spread = []
    for block in model.blocks.values():
        block.register_forward_hook(lambda module, inputs, output: spread.append(output.std()))
    model(torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)))

    assert len(spread) == 8
    assert all(0.2 < s < 2 for s in spread)
    assert model.body.conv8.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


class _Forgetful(Classifier):
    def __init__(self, config, image, outputs):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(image.size**2, outputs)

    def features(self, x):
        return x.flatten(1) * self.scale

    @property
    def blocks(self):
        return {}


def test_a_model_that_leaves_a_parameter_undrawn_is_refused(monkeypatch, model_plugin, make_info):
    monkeypatch.setattr("fl.models.lenet.LeNet", _Forgetful)

    with pytest.raises(UsageError, match=r"_Forgetful.initialise .* got none for 'scale'"):
        state_of(model_plugin(), make_info())
