"""Every registered classifier is what its card says and does what the model protocol promises."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fl.cards import PARTS, DataInfo
from fl.errors import UsageError
from fl.losses import task_loss
from fl.models import MODELS, architecture, initial_state, materialise
from fl.models.base import Classifier
from fl.seeds import Streams
from fl.specs import Plugin, Task
from fl.types import ModelState

SMALL = [
    ("lenet", {}),
    ("lenet", {"convs": 2, "init": "default"}),
    ("lenet", {"convs": 3, "activation": "relu"}),
    ("lenet", {"activation": "tanh"}),
    ("convnet", {"width": 2}),
    ("convnet", {"width": 3, "batch_norm": False}),
    ("convnet", {"width": 2, "convs": 3}),
    ("convnet", {"width": 2, "convs": 6}),
    ("convnet", {"width": 2, "convs": 3}),
    ("convnet", {"width": 2, "convs": 6}),
    ("mcnn", {}),
    ("resnet20", {}),
    ("resnet32", {}),
]
LARGE = [
    *((n, {"stem": s}) for n in ("resnet18", "resnet50", "densenet121") for s in ("cifar", "imagenet")),
    ("vgg16", {}),
    ("vgg16", {"batch_norm": True, "pooled": 2, "hidden": 8}),
]
BINARY, MULTICLASS = Task("binary", 2), Task("multiclass", 5)
CASES = [
    *((name, config, 1, 0, BINARY) for name, config in SMALL),
    *((name, config, 3, 9, MULTICLASS) for name, config in SMALL),
    *((name, config, 1, 0, BINARY) for name, config in LARGE[::2]),
    *((name, config, 3, 1, MULTICLASS) for name, config in LARGE[1::2]),
]
"""Name, configuration, channels, pixels beyond the smallest side, task."""
KINKS = (nn.ReLU, nn.LeakyReLU, nn.MaxPool2d)


class Case(NamedTuple):
    plugin: Plugin
    info: DataInfo
    state: ModelState
    model: Classifier

    def traits(self):
        return traits_of(self.plugin, self.info)

    def images(self, n=2):
        shape = (n, self.info.channels, self.info.size, self.info.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def labels(self):
        return torch.tensor([[1.0], [0.0]]) if self.info.task == BINARY else torch.tensor([3, 1])


def traits_of(plugin, info):
    return MODELS.get(plugin.name).traits(plugin.config, info)


def info_of(channels, size, task=MULTICLASS):
    return DataInfo(task, channels, size, dict.fromkeys(PARTS, 24), public=True, fingerprint="f")


def state_of(plugin, info, *, seed=0, batch_norm="eval"):
    return initial_state(
        architecture(plugin, info), streams=Streams(seed), freeze="none", batch_norm=batch_norm
    )


def plugin_of(name, **config):
    card = MODELS.get(name)
    return Plugin(card.name, card.version, card.config(**config))


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case[:4])), scope="module")
def case(request):
    name, config, channels, beyond, task = request.param
    plugin = plugin_of(name, **config)
    smallest = traits_of(plugin, info_of(channels, 64)).min_size
    info = info_of(channels, smallest + beyond, task)
    state = state_of(plugin, info)
    return Case(plugin, info, state, materialise(state))


def test_every_builtin_model_is_here():
    builtin = {card.name for card in MODELS if card.origin == "fl"}

    assert {name for name, *_ in CASES} == builtin


def test_declared_traits_are_those_of_the_built_model(case):
    traits, modules = case.traits(), list(case.model.modules())
    with torch.no_grad():
        features = case.model.features(case.images(6))

    assert isinstance(case.model, Classifier)
    assert traits.batch_norm == any(isinstance(m, nn.BatchNorm2d) for m in modules)
    assert traits.convolution == any(isinstance(m, nn.Conv2d) for m in modules)
    assert traits.head_bias == (case.model.head.bias is not None)
    assert traits.twice_differentiable == (not any(isinstance(m, KINKS) for m in modules))
    assert traits.non_negative_features == bool((features >= 0).all())
    assert traits.channels is None


def test_declared_mflop_is_what_torch_counts(case):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        case.model(case.images(1))

    assert case.traits().mflop_per_image == pytest.approx(counter.get_total_flops() / 1e6, rel=1e-9)


def test_images_below_the_smallest_are_refused(case):
    smallest = case.traits().min_size
    message = rf"expected images of at least {smallest} px .* got {smallest - 1} px"

    with pytest.raises(UsageError, match=message):
        architecture(case.plugin, info_of(1, smallest - 1))


def test_declared_batch_is_the_smallest_with_batch_statistics(case):
    model = materialise(state_of(case.plugin, case.info, batch_norm="train"))
    smallest = case.traits().min_train_batch

    assert model(case.images(smallest)).isfinite().all()
    if smallest > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(case.images(smallest - 1))


def test_forward_is_the_head_of_the_features(case):
    x = case.images()
    features = case.model.features(x)

    assert features.shape == (2, case.model.head.in_features)
    assert torch.equal(case.model(x), case.model.head(features))
    assert case.model(x).shape == (2, case.info.task.outputs)


@torch.no_grad()
def test_all_that_reaches_the_head_goes_through_every_block_in_order(case):
    one, other = case.images().split(1)
    order = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output, name=name: order.append(name))
        for name, block in case.model.blocks.items()
    ]
    assert not torch.equal(case.model.features(one), case.model.features(other))
    for hook in hooks:
        hook.remove()
    assert order == 2 * list(case.model.blocks)
    for name, block in case.model.blocks.items():
        hook = block.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        assert torch.equal(case.model.features(one), case.model.features(other)), f"a way around {name}"
        hook.remove()


def test_the_cam_layer_gives_maps(case):
    shapes = []
    hook = case.model.cam_layer.register_forward_hook(lambda module, i, output: shapes.append(output.shape))
    with torch.no_grad():
        case.model(case.images())
    hook.remove()

    assert [len(shape) for shape in shapes] == [4]


def test_no_layer_changes_what_another_gave(case):
    given = []
    hooks = [
        module.register_forward_hook(lambda module, i, output: given.append((output, output.clone())))
        for module in case.model.modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        case.model(case.images())
    for hook in hooks:
        hook.remove()

    assert all(torch.equal(now, then) for now, then in given)


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_gradients_can_be_differentiated_again(case, batch_norm):
    model = materialise(case.state).train(batch_norm == "train")
    x = case.images().requires_grad_()
    loss = task_loss(case.info.task, model(x), case.labels())
    first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)

    (second,) = torch.autograd.grad(sum(g.square().sum() for g in first), x)

    assert all(g.isfinite().all() for g in first)
    assert second.isfinite().all()
    assert second.abs().sum() > 0


def test_lanes_with_their_own_weights_run_together(case):
    # in float64: in float32 a deep network's ReLUs may switch by rounding
    plain = {n: t.double() if t.is_floating_point() else t for n, t in case.state.tensors.items()}
    nudged = {n: t * 1.01 if t.is_floating_point() else t for n, t in plain.items()}
    lanes = [plain, nudged]
    stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in nudged}
    images = torch.stack([case.images(), case.images().flip(0)]).double()

    def energy(weights, x):
        return torch.func.functional_call(case.model, weights, (x,)).square().sum()

    with torch.no_grad():
        together = torch.func.vmap(torch.func.grad(energy, argnums=1))(stacked, images)
        alone = [torch.func.grad(energy, argnums=1)(*lane) for lane in zip(lanes, images, strict=True)]

    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * other.abs().max().item())


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_left_alone(case):
    before = torch.random.get_rng_state()
    again, other = (state_of(case.plugin, case.info, seed=seed).tensors for seed in (0, 1))

    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, again[name]) for name, tensor in case.state.tensors.items())
    drawn = [name for name, t in case.state.tensors.items() if t.dim() > 1]
    assert not any(torch.equal(case.state.tensors[name], other[name]) for name in drawn)


def test_state_survives_a_module_bit_for_bit(case):
    module = materialise(case.state)
    held = module.state_dict()

    assert held.keys() == case.state.tensors.keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in case.state.tensors.items())
    module.head.weight.data.zero_()
    assert case.state.tensors["head.weight"].abs().sum() > 0
