"""Every registered classifier is what its card says."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fl.errors import UsageError
from fl.models import MODELS, architecture, initial_state, materialise
from fl.models.base import Classifier
from fl.seeds import Streams

VARIANTS = [
    *((name, {}) for name in MODELS.names() if name != "convnet"),
    *(("lenet", {"convs": convs, "init": "default"}) for convs in (2, 3)),
    ("lenet", {"activation": "tanh"}),
    ("lenet", {"activation": "relu", "convs": 3}),
    ("convnet", {"width": 2}),
    ("convnet", {"width": 3, "batch_norm": False}),
]
IMAGES = [(1, None), (3, 17)]  # None: the smallest size


@pytest.fixture(params=VARIANTS, ids=str)
def plugin(request, model_plugin):
    name, config = request.param
    return model_plugin(name, **config)


@pytest.fixture(params=IMAGES, ids=str)
def info(request, plugin, make_info):
    channels, size = request.param
    smallest = MODELS.get(plugin.name).traits(plugin.config, make_info(size=64)).min_size
    return make_info(channels=channels, size=size or smallest, classes=5)


def state_of(plugin, info, *, seed=0, freeze="none", batch_norm="eval"):
    return initial_state(
        architecture(plugin, info), streams=Streams(seed), freeze=freeze, batch_norm=batch_norm
    )


def inputs_for(info, n=6):
    return torch.randn(n, info.channels, info.size, info.size, generator=torch.Generator().manual_seed(1))


def test_declared_traits_are_those_of_the_built_model(plugin, info):
    traits = MODELS.get(plugin.name).traits(plugin.config, info)
    model = materialise(state_of(plugin, info))
    modules = list(model.modules())
    kinks = (nn.ReLU, nn.MaxPool2d)
    functional = plugin.name == "resnet20"  # applies F.relu
    with torch.no_grad():
        features = model.features(inputs_for(info))

    assert isinstance(model, Classifier)
    assert traits.batch_norm == any(isinstance(m, nn.BatchNorm2d) for m in modules)
    assert traits.convolution == any(isinstance(m, nn.Conv2d) for m in modules)
    assert traits.head_bias == (model.head.bias is not None)
    assert traits.twice_differentiable == (not functional and not any(isinstance(m, kinks) for m in modules))
    assert traits.non_negative_features == bool((features >= 0).all())
    assert traits.channels is None or info.channels in traits.channels


def test_declared_mflop_is_what_torch_counts(plugin, info):
    model = materialise(state_of(plugin, info))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_for(info, 1))

    declared = MODELS.get(plugin.name).traits(plugin.config, info).mflop_per_image

    assert declared == pytest.approx(counter.get_total_flops() / 1e6, rel=1e-9)


def test_forward_is_the_head_of_the_features(plugin, info):
    model = materialise(state_of(plugin, info))
    x = inputs_for(info)

    assert model.features(x).shape == (6, model.head.in_features)
    assert torch.equal(model(x), model.head(model.features(x)))
    assert model(x).shape == (6, 5)


def test_blocks_and_cam_layer_take_part_in_the_forward_pass(plugin, info):
    model = materialise(state_of(plugin, info))
    seen = {}

    def note(name):
        def hook(module, inputs, output):
            seen[name] = output.shape

        return hook

    for name, block in {**model.blocks, "cam": model.cam_layer}.items():
        block.register_forward_hook(note(name))
    model(inputs_for(info))

    assert list(seen)[: len(model.blocks)] == list(model.blocks)
    assert len(seen["cam"]) == 4


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_gradients_can_be_differentiated_again(plugin, info, batch_norm):
    model = materialise(state_of(plugin, info, batch_norm=batch_norm))
    x = inputs_for(info).requires_grad_()
    loss = nn.functional.cross_entropy(model(x), torch.arange(6) % 5)
    first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)

    (second,) = torch.autograd.grad(sum(g.square().sum() for g in first), x)

    assert second.isfinite().all()
    assert second.abs().sum() > 0


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_left_alone(plugin, info):
    before = torch.random.get_rng_state()
    first, again, other = (state_of(plugin, info, seed=seed) for seed in (3, 3, 4))

    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["head.weight"], other.tensors["head.weight"])


def test_state_survives_a_module_bit_for_bit(plugin, info):
    state = state_of(plugin, info)
    module = materialise(state)

    assert {name: t.shape for name, t in module.state_dict().items()} == {
        name: t.shape for name, t in state.tensors.items()
    }
    assert all(torch.equal(t, state.tensors[name]) for name, t in module.state_dict().items())
    module.head.weight.data.zero_()
    assert state.tensors["head.weight"].abs().sum() > 0


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
    model(inputs_for(info))

    assert len(spread) == 8
    assert all(0.2 < s < 2 for s in spread)
    assert model.body.conv8.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["lenet", "convnet", "resnet20"])
def test_too_small_images_are_refused(name, model_plugin, make_info):
    with pytest.raises(UsageError, match=r"expected images of at least \d px .* got 7 px"):
        architecture(model_plugin(name), make_info(size=7))


@pytest.mark.parametrize(
    ("freeze", "kept"),
    [
        ("none", lambda name: True),
        ("batch_norm", lambda name: "norm" not in name),
        ("all_but_last", lambda name: name.startswith("head.")),
        ("middle", lambda name: name.startswith(("head.", "body.conv1."))),
    ],
)
def test_freeze_names_the_trainable_parameters(freeze, kept, model_plugin, make_info):
    state = state_of(model_plugin("convnet", width=2), make_info(size=9), freeze=freeze)
    model = materialise(state)

    assert state.trainable == tuple(name for name, _ in model.named_parameters() if kept(name))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(state.trainable)


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
