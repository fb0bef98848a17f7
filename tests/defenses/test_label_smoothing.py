import pytest
import torch
from torch.nn import functional as F

from defenses.catalog import LabelSmoothingConfig
from defenses.label_smoothing import LabelSmoothing
from fl.hooks import Batch
from fl.models import materialise
from fl.seeds import Streams
from fl.specs import Task
from harness.testing import SmallProblem

MULTILABEL = Task("multilabel", 5)
BINARY = Task("binary", 2)


def smooth(labels, epsilon, task):
    small = SmallProblem(task=task)
    client = LabelSmoothing(LabelSmoothingConfig(epsilon=epsilon)).for_client(small.client_context)
    batch = Batch(torch.zeros(len(labels), *small.image.shape), labels, tuple(map(str, range(len(labels)))))
    return client.perturb_batch(small.step(Streams(0).torch("step")), batch).labels


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (Task("multiclass", 4), torch.tensor([2]), [[0.05, 0.05, 0.85, 0.05]]),
        (Task("multiclass", 2), torch.tensor([[0.25, 0.75]]), [[0.3, 0.7]]),
        (BINARY, torch.tensor([0, 1]), [0.1, 0.9]),
        (BINARY, torch.tensor([[1.0], [0.0]]), [[0.9], [0.1]]),
        (MULTILABEL, torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]), [[0.9, 0.1, 0.1, 0.9, 0.9]]),
    ],
)
def test_labels_by_hand(task, labels, expected):
    torch.testing.assert_close(smooth(labels, 0.2, task), torch.tensor(expected))


def test_negative_smoothing_sharpens_and_still_sums_to_one():
    smoothed = smooth(torch.tensor([1]), -0.3, Task("multiclass", 3))
    torch.testing.assert_close(smoothed, torch.tensor([[-0.1, 1.2, -0.1]]))


def test_the_gradient_is_that_of_torchs_smoothed_cross_entropy():
    small = SmallProblem(n=3, defense=LabelSmoothing(LabelSmoothingConfig(epsilon=0.3)))
    model = materialise(small.sent)
    logits = model(small.image.normalise(small.images))
    loss = F.cross_entropy(logits, small.labels, label_smoothing=0.3)
    names = list(small.update.tensors)
    expected = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    for name, tensor in zip(names, expected, strict=True):
        torch.testing.assert_close(small.update.tensors[name], tensor)


@pytest.mark.parametrize("task", [MULTILABEL, BINARY])
def test_sigmoid_tasks_train_on_smoothed_targets(task):
    small = SmallProblem(n=3, task=task, defense=LabelSmoothing(LabelSmoothingConfig(epsilon=0.4)))
    model = materialise(small.sent)
    logits = model(small.image.normalise(small.images))
    targets = 0.6 * small.labels + 0.2
    loss = -(targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)).mean()
    (expected,) = torch.autograd.grad(loss, [model.get_parameter("head.weight")])
    torch.testing.assert_close(small.update.tensors["head.weight"], expected)


def test_an_attacker_can_differentiate_in_soft_labels():
    small = SmallProblem(n=2, defense=LabelSmoothing(LabelSmoothingConfig(epsilon=0.2)))
    simulate = small.simulator(small.defense.for_client(small.client_context))
    logits = torch.zeros(2, 10, requires_grad=True)
    update = simulate(small.images, logits.softmax(1), small.sent, Streams(0).torch("simulation"))
    (derivative,) = torch.autograd.grad(update.tensors["head.weight"].square().sum(), logits)
    assert derivative.any()
