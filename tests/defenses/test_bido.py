"""BiDO and the dependence penalty on logits: loss, gradients, training, and who attacks them."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from attacks.catalog import DlgConfig
from attacks.problem import Problem
from defenses import DEFENSES
from defenses.bido import Bido, outputs
from defenses.cards_dependence import BidoConfig, MidDependenceConfig
from defenses.mid_dependence import MidDependence
from defenses.none import NoDefense
from fl.data import DATASETS, load
from fl.dependence import ESTIMATORS, kernel_matrix
from fl.federation import Federation
from fl.hooks import Batch
from fl.models import MODELS, materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, NoConfig, Plugin, Task
from harness.testing import SmallProblem
from harness.testing.small_setting import small_setting

NONE = NoDefense(NoConfig())
TASKS = [Task("multiclass", 10), Task("multilabel", 3), Task("binary", 2)]


def client_loss(small):
    client = small.defense.for_client(small.client_context)
    step = small.step(Streams(0).torch("step"))
    batch = Batch(small.images, small.labels, tuple(map(str, range(small.n))))
    return client.loss(step, batch), step.trainer.parameters


def released_by_hand(first, second):
    """The normalised HSIC of the released code, kernels centred on one side."""
    n = len(first)
    h, identity = np.eye(n) - np.ones((n, n)) / n, np.eye(n)
    r = [k @ h @ np.linalg.inv(k @ h + 1e-5 * n * identity) for k in (first, second)]
    return np.trace(r[0] @ r[1])


def kernel_by_hand(values, gaussian):
    flat = values.detach().reshape(len(values), -1).double().numpy()
    if not gaussian:
        return flat @ flat.T
    squares = ((flat[:, None] - flat[None]) ** 2).sum(2)
    return np.exp(-squares / (2 * 25 * flat.shape[1]))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_the_loss_of_bido_is_the_released_one(task):
    small = SmallProblem(n=5, task=task, defense=Bido(BidoConfig(lambda_x=0.3, label_ratio=7)))
    loss, _ = client_loss(small)
    model = materialise(small.sent)
    inputs = small.image.normalise(small.images)
    hidden, x = [], inputs
    for name, layer in model.body.named_children():
        x = layer(x)
        if name.startswith("act"):
            hidden.append(x)
    if task.kind == "multiclass":
        expected = F.cross_entropy(model(inputs), small.labels).item()
        labels = torch.eye(10)[small.labels]
    else:
        expected = F.binary_cross_entropy_with_logits(model(inputs), small.labels).item()
        labels = small.labels
    ky = kernel_by_hand(labels, gaussian=False)
    kx = kernel_by_hand(small.images, gaussian=True)
    for z in hidden:
        kz = kernel_by_hand(z, gaussian=True)
        expected += 0.3 * released_by_hand(kz, kx) - 2.1 * released_by_hand(kz, ky)
    assert len(hidden) == 3
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_mid_dependence_is_that_of_images_and_logits():
    small = SmallProblem(n=5, defense=MidDependence(MidDependenceConfig(lambda_x=3.0)))
    loss, _ = client_loss(small)
    logits = materialise(small.sent)(small.image.normalise(small.images))
    h = np.eye(5) - 0.2
    kx, kz = kernel_by_hand(small.images, gaussian=True), kernel_by_hand(logits, gaussian=False)
    product = h @ kz @ h @ h @ kx @ h
    expected = F.cross_entropy(logits, small.labels).item() + 3 * np.linalg.norm(product) ** 0.5 / 5
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "defense",
    [
        *(Bido(BidoConfig(measure=m, estimator=e, lambda_x=2.0)) for m, e in sorted(ESTIMATORS)),
        MidDependence(MidDependenceConfig(lambda_x=10.0)),
        MidDependence(MidDependenceConfig(measure="hsic", logit_kernel="gaussian")),
    ],
)
def test_gradients_are_those_of_finite_differences(defense):
    small = SmallProblem(n=6, defense=defense)
    loss, parameters = client_loss(small)
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    step = small.step(Streams(0).torch("step"))
    client = defense.for_client(small.client_context)
    trainer = step.trainer
    batch = Batch(small.images.double(), small.labels, tuple("012345"))
    stream = Streams(1).torch("direction")
    directions = [torch.randn(p.shape, generator=stream, dtype=torch.float64) for p in parameters.values()]
    ends = []
    for sign in (1, -1):
        trainer.parameters = {
            name: (p.detach().double() + sign * 1e-5 * d)
            for (name, p), d in zip(parameters.items(), directions, strict=True)
        }
        ends.append(client.loss(step, batch).item())
    slope = sum((g.double() * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-3)


@pytest.mark.parametrize("defense", [Bido(BidoConfig()), MidDependence(MidDependenceConfig())])
def test_the_model_stays_as_it_is(defense):
    bare, defended = SmallProblem(n=2), SmallProblem(n=2, defense=defense)
    assert defense.wrapper() is None
    assert list(bare.sent.tensors) == list(defended.sent.tensors)
    assert all(torch.equal(tensor, defended.sent.tensors[name]) for name, tensor in bare.sent.tensors.items())


def test_no_hook_is_left_behind():
    small = SmallProblem(n=2, defense=Bido(BidoConfig()))
    step = small.step(Streams(0).torch("step"))
    batch = Batch(small.images, small.labels, ("0", "1"))
    small.defense.for_client(small.client_context).loss(step, batch)
    assert not any(module._forward_hooks for module in step.trainer.model.modules())


@pytest.mark.parametrize("kind", ["gradient", "delta"])
@pytest.mark.parametrize(
    "defense", [Bido(BidoConfig(lambda_x=0)), MidDependence(MidDependenceConfig(lambda_x=0))]
)
def test_a_weight_of_0_is_plain_training_to_the_bit(defense, kind):
    bare, off = SmallProblem(n=4, kind=kind), SmallProblem(n=4, kind=kind, defense=defense)
    for name, tensor in bare.update.tensors.items():
        assert torch.equal(tensor, off.update.tensors[name])


@pytest.mark.parametrize(
    ("defense", "smallest"),
    [
        (Bido(BidoConfig(lambda_x=1.0)), 2),
        (Bido(BidoConfig(measure="coco", lambda_x=1.0)), 2),
        (Bido(BidoConfig(estimator="cka", lambda_x=1.0)), 3),
        (Bido(BidoConfig(estimator="unbiased", kernel="linear", lambda_x=1.0)), 4),
        (MidDependence(MidDependenceConfig(lambda_x=10.0)), 2),
    ],
)
def test_smaller_batches_have_the_tasks_loss_alone(defense, smallest):
    for n in (1, smallest - 1, smallest):
        bare, defended = (SmallProblem(n=n, defense=d).update.tensors for d in (None, defense))
        same = all(torch.equal(tensor, defended[name]) for name, tensor in bare.items())
        assert same == (n < smallest)
    name = "bido" if isinstance(defense, Bido) else "mid_dependence"
    for size, applies in ((smallest - 1, False), (smallest, True)):
        reason = DEFENSES.get(name).compatible(defense.config, setting(batch_size=size))
        assert (reason is None) == applies
        if not applies:
            assert f"at least {smallest} images" in reason
    off = defense.config.model_copy(update={"lambda_x": 0.0})
    assert DEFENSES.get(name).compatible(off, setting(batch_size=1)) is None


def setting(**federation):
    digits = DATASETS.get("digits")
    return small_setting(
        digits.describe(digits.config()), federation=FederationSpec.model_validate(federation)
    )


def test_some_larger_batches_are_enough():
    reason = DEFENSES.get("bido").compatible(BidoConfig(), setting(clients=2, batch_sizes=[1, 2]))
    assert reason is None


@pytest.mark.parametrize(
    "defense",
    [
        Bido(BidoConfig(lambda_x=0.5)),
        Bido(BidoConfig(measure="coco", estimator="spectral", lambda_x=5.0)),
        MidDependence(MidDependenceConfig(lambda_x=5.0)),
    ],
)
def test_who_knows_the_defense_meets_the_observation_at_the_truth(defense):
    """And the distance's derivative in the images, through the loss's, is exact."""
    small = SmallProblem(n=3, defense=defense, know_labels=True)
    problem, static = (
        Problem.of(
            small.attack_task(DlgConfig(), adaptive=adaptive, mirrored=False), small.env(), unroll=False
        )
        for adaptive in (True, False)
    )

    def distance(problem, images):
        found = problem.gradients(small.image.normalise(images), small.labels)
        return sum((found[name] - seen).double().square().sum() for name, seen in problem.observed.items())

    assert distance(problem, small.images).item() < 1e-9
    assert distance(static, small.images).item() > 1e-4
    leaf = SmallProblem(n=3, seed=1).images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(problem, leaf), leaf)
    direction = torch.randn(leaf.shape, generator=Streams(0).torch("direction"))
    ends = [distance(problem, (leaf + s * 1e-2 * direction).detach()).item() for s in (1, -1)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.03)


@pytest.fixture(scope="module")
def digits():
    return load(Plugin("digits", 1, DATASETS.get("digits").config(size=8)))


TRAINING = {
    "fedavg": {"local_epochs": 2, "rounds": 6, "lr": 0.05, "batch_size": 16},
    "fedsgd": {"algorithm": "fedsgd", "rounds": 80, "lr": 0.1, "batch_size": 32},
}


def trained(digits, defense, training):
    """Return four clients' model, its accuracy, and its last loss."""
    convnet = MODELS.get("convnet")
    spec = {
        "algorithm": "fedavg",
        "clients": 4,
        "partition": {"name": "sizes", "sizes": [100] * 4},
        **TRAINING[training],
    }
    federation = Federation(
        data=digits,
        model=Plugin("convnet", convnet.version, convnet.config(width=8, convs=2)),
        spec=FederationSpec.model_validate(spec),
        defense=defense,
        streams=Streams(0),
    )
    checkpoint = [checkpoint for checkpoint, _ in federation.run()][-1]
    logits, labels = federation.predict(checkpoint)
    return checkpoint.model, float((logits.argmax(1) == labels).float().mean())


def dependence_on_images(state, config, digits, *, logits_only):
    """Measure on 32 test images what a defense with this configuration keeps down."""
    images = digits.part("test").images(range(32))
    model = materialise(state).eval()
    with torch.no_grad(), outputs([*model.blocks.values(), model.head]) as seen:
        model(state.architecture.image.normalise(images))
    seen = seen[-1:] if logits_only else seen[:-1]
    kernel = config.logit_kernel if logits_only else config.kernel
    of_images = kernel_matrix(images, config.kernel, config.bandwidth)
    of_seen = (kernel_matrix(z, kernel, config.bandwidth) for z in seen)
    return sum(float(ESTIMATORS[config.measure, config.estimator](z, of_images)) for z in of_seen)


@pytest.mark.parametrize("training", sorted(TRAINING))
@pytest.mark.parametrize(
    "defense",
    [
        Bido(BidoConfig(measure="coco", lambda_x=100.0, label_ratio=0)),
        Bido(BidoConfig(estimator="unbiased", kernel="linear", lambda_x=0.02, label_ratio=0)),
        MidDependence(MidDependenceConfig(lambda_x=10.0)),
    ],
    ids=["bido_coco", "bido_unbiased", "mid_dependence"],
)
def test_training_lowers_dependence_on_the_images(defense, training, digits):
    on_logits = isinstance(defense, MidDependence)
    plain, _ = trained(digits, NONE, training)
    defended, accuracy = trained(digits, defense, training)
    values = [
        dependence_on_images(state, defense.config, digits, logits_only=on_logits)
        for state in (plain, defended)
    ]
    assert values[1] < 0.8 * values[0]
    assert accuracy > 0.3


@pytest.mark.parametrize("training", sorted(TRAINING))
def test_bido_trains_with_the_released_measure(training, digits):
    _, plain = trained(digits, NONE, training)
    defended, accuracy = trained(digits, Bido(BidoConfig()), training)
    assert all(tensor.isfinite().all() for tensor in defended.tensors.values())
    assert accuracy > plain - 0.1


def test_a_measure_without_scale_and_without_labels_ends_in_a_constant(digits):
    """Shrinking hidden layers does not lower CKA; only silencing them does, and nothing brings them back."""
    config = BidoConfig(estimator="cka", lambda_x=1.0, label_ratio=0)
    state, accuracy = trained(digits, Bido(config), "fedavg")
    assert all(tensor.isfinite().all() for tensor in state.tensors.values())
    assert accuracy < 0.2


def test_outputs_are_gathered_in_order_and_only_within():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    x = torch.ones(4, 3)
    with outputs([model[0], model[1]]) as seen:
        model(x)
    assert [tuple(tensor.shape) for tensor in seen] == [(4, 2), (4, 2)]
    assert torch.equal(seen[1], seen[0].relu())
    model(x)
    assert len(seen) == 2
    with pytest.raises(RuntimeError), outputs([model[0]]):
        model(torch.ones(4, 4))
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("config", [BidoConfig, MidDependenceConfig])
def test_an_estimator_belongs_to_its_measure(config):
    for name in ESTIMATORS:
        made = config(measure=name[0], estimator=name[1])
        assert (made.measure, made.estimator) == name
    for measure, other in (("coco", "unbiased"), ("coco", "cka"), ("hsic", "spectral")):
        with pytest.raises(ValidationError, match="expected estimator"):
            config(measure=measure, estimator=other)
