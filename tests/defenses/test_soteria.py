from collections.abc import Mapping

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from attacks.catalog import DlgConfig
from attacks.dlg import Dlg
from defenses.cards_representation import SOTERIA, SoteriaConfig
from defenses.catalog import is_mirrored
from defenses.soteria import Soteria, kept_features, sensitivity
from fl.cards import DataInfo
from fl.client import simulate
from fl.data import DATASETS, load
from fl.federation import Federation
from fl.hooks import Batch
from fl.models import MODELS, architecture, initial_state, materialise
from fl.models.base import Classifier
from fl.seeds import Streams
from fl.specs import FederationSpec, Plugin, Task
from fl.types import ImageSpec, LocalTraining
from harness.testing import SmallProblem

TASK = Task("multiclass", 5)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.5, 0.1)


def a_model(name, options=None, size=16):
    """A model of the zoo for images of three channels that are normalised unequally."""
    card = MODELS.get(name)
    info = DataInfo(TASK, 3, size, images={}, public=True, fingerprint="x", mean=MEAN, std=STD)
    plugin = Plugin(name, card.version, card.config.model_validate(options or {}))
    return initial_state(
        architecture(plugin, info), streams=Streams(3), freeze="none", batch_norm="eval", wrap=None
    )


def a_batch(n, size=16):
    stream = Streams(5).torch("batch")
    return torch.rand(n, 3, size, size, generator=stream), torch.randint(5, (n,), generator=stream)


def gradients(sent, images, labels, defense=None):
    """What a client sends in FedSGD."""
    client = None if defense is None else defense.for_client(SmallProblem().client_context)
    update = simulate(
        images,
        labels,
        sent,
        Streams(0).torch("step"),
        task=TASK,
        image=sent.architecture.image,
        local=LocalTraining(lr=1.0, steps=1, batch_size=len(images), epochs=1),
        kind="gradient",
        build=materialise,
        defense=client,
    )
    return {name: tensor.detach() for name, tensor in update.tensors.items()}


def scores_one_by_one(model, inputs, every=1):
    """|dr_f/dx| / (|r_f| + 1e-10), feature by feature and image by image, in NumPy; of every so-many-th."""
    rows = []
    for single in inputs.split(1):
        leaf = single.clone().requires_grad_()
        features = model.features(leaf)[0, ::every]
        norms = [
            np.linalg.norm(torch.autograd.grad(feature, leaf, retain_graph=True)[0].double().numpy())
            for feature in features
        ]
        rows.append(np.array(norms) / (np.abs(features.detach().double().numpy()) + 1e-10))
    return np.stack(rows)


ZOO = [
    ("lenet", {"convs": 3}),
    ("convnet", {"width": 4, "convs": 3}),
    ("resnet20", {}),
    ("mcnn", {}),
]


@pytest.mark.parametrize(("name", "options"), ZOO)
def test_scores_are_those_of_one_backward_pass_for_each_feature(name, options):
    size = 32 if name == "mcnn" else 16
    sent = a_model(name, options, size)
    model, (images, _) = materialise(sent), a_batch(2, size)
    leaf = images.clone().requires_grad_()
    features = model.features(sent.architecture.image.normalise(leaf))
    every = -(-features.shape[1] // 64)
    scores = sensitivity(features, leaf, sent.architecture.image)[:, ::every]
    expected = scores_one_by_one(model, sent.architecture.image.normalise(images), every)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("percent", [1, 25, 50, 80, 99, 100])
@pytest.mark.parametrize("count", [1, 11, 64])
def test_the_threshold_is_numpys_percentile(percent, count):
    scores = torch.rand(3, count, generator=Streams(0).torch("scores"))
    expected = scores.double().numpy() >= np.percentile(
        scores.double().numpy(), percent, axis=1, keepdims=True
    )
    assert np.array_equal(kept_features(scores, percent).bool().numpy(), expected)


@pytest.mark.parametrize("n", [1, 3])
def test_the_original_takes_every_gradient_of_the_pruned_features(n):
    sent = a_model("lenet", {"convs": 3})
    model, (images, labels) = materialise(sent), a_batch(n)
    inputs = sent.architecture.image.normalise(images)
    scores = scores_one_by_one(model, inputs)
    masks = torch.from_numpy(scores >= np.percentile(scores, 60, axis=1, keepdims=True)).float()
    loss = F.cross_entropy(model.head(model.features(inputs) * masks), labels)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))

    got = gradients(sent, images, labels, Soteria(SoteriaConfig(percent=60)))
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor)
    plain = gradients(sent, images, labels)
    assert all(not torch.allclose(plain[name], tensor) for name, tensor in got.items())
    empty = ~got["head.weight"].any(0)
    assert torch.equal(empty, ~masks.any(0).bool())


@pytest.mark.parametrize("n", [1, 3])
def test_ggls_form_only_drops_columns_of_the_heads_weight(n):
    sent = a_model("lenet", {"convs": 3})
    images, labels = a_batch(n)
    scores = scores_one_by_one(materialise(sent), sent.architecture.image.normalise(images)).mean(0)
    kept = torch.from_numpy(scores >= np.percentile(scores, 80))

    plain = gradients(sent, images, labels)
    got = gradients(sent, images, labels, Soteria(SoteriaConfig(percent=80, variant="ggl")))
    for name, tensor in plain.items():
        expected = tensor * kept if name == "head.weight" else tensor
        assert torch.equal(got[name], expected), name
    assert 0 < int(kept.sum()) < len(kept)


def test_dead_features_go_first_and_dead_columns_count_as_pruned():
    features = torch.tensor([[0.0, 2.0, 1.0, 4.0]])
    images = torch.zeros(1, 1, 1, 4, requires_grad=True)
    live = images.flatten(1) * torch.tensor([0.0, 1.0, 3.0, 8.0]) + features
    scores = sensitivity(live, images, ImageSpec(1, 4))
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.5, 3.0, 2.0]]))
    assert kept_features(scores, 50).tolist() == [[0.0, 0.0, 1.0, 1.0]]


class HeadFirst(Classifier):
    """The head is neither the last module nor the last parameter."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10)
        self.body = nn.Linear(256, 6)

    def features(self, x):
        return self.body(x.flatten(1)).tanh()

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        return {}


def test_the_head_is_found_as_a_module():
    small = SmallProblem(n=2)
    step = small.step(Streams(0).torch("step"))
    model = HeadFirst()
    trainer = step.trainer
    trainer.model, trainer._fixed, trainer._buffers = model, {}, {}
    trainer.parameters = dict(model.named_parameters())
    client = Soteria(SoteriaConfig(percent=50, variant="ggl")).for_client(small.client_context)
    got = client.gradients(step, Batch(small.images, small.labels, ("0", "1")))
    assert list(got) == ["head.weight", "head.bias", "body.weight", "body.bias"]
    assert int((~got["head.weight"].any(0)).sum()) == 3
    assert got["body.weight"].all()


def test_no_hook_and_no_graph_is_left_behind():
    small = SmallProblem(n=2)
    step = small.step(Streams(0).torch("step"))
    client = Soteria(SoteriaConfig()).for_client(small.client_context)
    client.gradients(step, Batch(small.images, small.labels, ("0", "1")))
    assert not step.trainer.model.head._forward_pre_hooks
    assert not small.images.requires_grad


@pytest.mark.parametrize("variant", ["original", "ggl"])
def test_an_empty_batch_has_no_features(variant):
    small = SmallProblem()
    client = Soteria(SoteriaConfig(variant=variant)).for_client(small.client_context)
    nothing = Batch(small.images[:0], small.labels[:0], ())
    got = client.gradients(small.step(Streams(0).torch("step")), nothing)
    assert not any(tensor.any() for tensor in got.values())


@pytest.mark.parametrize("variant", ["original", "ggl"])
def test_of_one_image_the_simulated_client_takes_what_was_seen(variant):
    small = SmallProblem(defense=Soteria(SoteriaConfig(variant=variant)))
    seen = small.defense.estimate(small.observation)
    assert float(seen.mean()) == pytest.approx(0.2, abs=0.01)
    other = SmallProblem(seed=1).images  # at another image its own scores would give other features
    client = small.defense.simulated(small.client_context, small.observation)
    update = small.simulator(client)(other, small.labels, small.sent, Streams(0).torch("simulation"))
    assert torch.equal(update.tensors["head.weight"].detach().any(0), seen.bool())
    own = small.simulator(small.defense.for_client(small.client_context))
    update = own(other, small.labels, small.sent, Streams(0).torch("simulation"))
    assert not torch.equal(update.tensors["head.weight"].detach().any(0), seen.bool())


def test_only_the_mask_on_the_gradient_has_a_mirror():
    assert is_mirrored(Plugin("soteria", 1, SoteriaConfig(variant="ggl")))
    assert not is_mirrored(Plugin("soteria", 1, SoteriaConfig()))
    assert "passed back" in SOTERIA.unmirrored(SoteriaConfig())
    assert SOTERIA.unmirrored(SoteriaConfig(variant="ggl")) is None


def test_the_observed_columns_may_be_empty_in_some_rows():
    small = SmallProblem()
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    update = small.update
    observed = type(update)("gradient", {**update.tensors, "head.weight": weight}, {}, 1)
    view = type(small.observation.history[0])(0, small.sent, observed)
    observation = type(small.observation)(
        "update", (0,), (view,), small.task, small.image, small.observation.knowledge
    )
    assert Soteria(SoteriaConfig()).estimate(observation).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_percents_are_percents(percent):
    with pytest.raises(ValidationError, match="100" if percent > 0 else "0"):
        SoteriaConfig(percent=percent)


@pytest.mark.parametrize("variant", ["original", "ggl"])
def test_each_local_step_prunes_anew(variant, make_digits):
    federation = make_digits(Soteria(SoteriaConfig(variant=variant)), local_steps=3)
    start = federation.initial()
    delta = federation.client_update(start, 0).update.tensors["head.weight"]
    single = make_digits(Soteria(SoteriaConfig(variant=variant)), local_steps=1)
    first = single.client_update(start, 0).update.tensors["head.weight"]
    touched, at_first = (tensor.any(0) for tensor in (delta, first))
    assert bool(touched[at_first].all())
    assert at_first.sum() <= touched.sum() < len(touched) or variant == "original"
    again = federation.client_update(start, 0).update.tensors["head.weight"]
    assert torch.equal(delta, again)


@pytest.fixture
def make_digits():
    """Federations of four clients on digits."""
    data = load(Plugin("digits", 1, DATASETS.get("digits").config(size=8)))
    lenet = MODELS.get("lenet")

    def make(defense, **settings):
        spec = {"algorithm": "fedavg", "clients": 4, "rounds": 1, "batch_size": 4, "lr": 0.1, **settings}
        return Federation(
            data=data,
            model=Plugin("lenet", lenet.version, lenet.config(convs=2)),
            spec=FederationSpec(**spec),
            defense=defense,
            streams=Streams(0),
        )

    return make


@pytest.mark.parametrize("variant", ["original", "ggl"])
def test_who_knows_of_the_pruned_features_recovers_the_image(variant):
    config = SoteriaConfig(variant=variant)
    small = SmallProblem(defense=Soteria(config), know_labels=True)
    mirrored = is_mirrored(Plugin("soteria", 1, config))
    psnr = {}
    for adaptive in (False, True):
        task = small.attack_task(DlgConfig(iterations=40), adaptive=adaptive, mirrored=mirrored)
        (answer,) = Dlg().solve([task], small.env())
        psnr[adaptive] = float(-10 * (answer.images - small.images).square().mean().log10())
    assert psnr[True] > psnr[False] + 10
