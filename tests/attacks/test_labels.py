import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.catalog import IdlgConfig
from attacks.labels import (
    Expected,
    HeadGradient,
    bias_rule,
    class_counts,
    head_gradient,
    infer,
    positive_counts,
    weight_rule,
)
from attacks.problem import Problem
from fl.errors import NotApplicableError
from fl.specs import Task
from harness.testing import SmallProblem

MULTICLASS = Task("multiclass", 10)


def problem_of(small):
    return Problem.of(small.attack_task(IdlgConfig()), small.env(), unroll=False)


def head_of(small):
    problem = problem_of(small)
    return head_gradient(problem.model, problem.observed)


@pytest.mark.parametrize(
    "model",
    [
        {"convs": 2},
        {"convs": 2, "activation": "tanh", "init": "default"},
        {"convs": 2, "activation": "relu", "init": "default"},
    ],
)
def test_bias_rule_reads_every_label(model):
    for seed in range(40):
        small = SmallProblem(seed=seed, model=model)
        assert torch.equal(bias_rule(head_of(small).bias), small.labels)


def weight_rule_hits(model):
    smalls = [SmallProblem(seed=seed, model=model) for seed in range(40)]
    return sum(torch.equal(weight_rule(head_of(small).weight), small.labels) for small in smalls)


def test_weight_rule_needs_non_negative_features():
    assert weight_rule_hits({"convs": 2}) == 40
    assert weight_rule_hits({"convs": 2, "activation": "relu", "init": "default"}) == 40
    assert weight_rule_hits({"convs": 2, "activation": "tanh", "init": "default"}) < 30


def test_weights_of_negative_features_are_refused():
    expected = Expected(torch.full((10,), 0.1), torch.tensor(1.0), non_negative=False)
    head = HeadGradient(torch.randn(10, 3), None)
    with pytest.raises(NotApplicableError, match="never negative"):
        infer(head, MULTICLASS, 1, expected)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_labels_of_a_batch_are_counted(n):
    exact = 0
    for seed in range(20):
        small = SmallProblem(seed=seed, n=n, model={"convs": 2, "init": "default"})
        inferred = problem_of(small).inferred_labels()
        assert inferred.dtype == torch.int64
        exact += torch.equal(inferred, small.labels.sort().values)
    assert exact == 20


def test_counts_hold_repeated_labels():
    labels = torch.tensor([3, 3, 3, 7])
    probabilities = torch.full((10,), 0.1)
    bias = probabilities - torch.bincount(labels, minlength=10) / 4  # every image predicted alike

    assert torch.equal(class_counts(bias, 4, probabilities), torch.bincount(labels, minlength=10))


def test_counts_use_what_the_model_is_expected_to_say():
    """Class 0 gets most of the probability: only with that known is its count right."""
    probabilities = torch.tensor([0.7, 0.1, 0.1, 0.1])
    counts = torch.tensor([3, 1, 0, 0])
    bias = probabilities - counts / 4

    assert torch.equal(class_counts(bias, 4, probabilities), counts)
    assert not torch.equal(class_counts(bias, 4, torch.full((4,), 0.25)), counts)


def test_more_negative_entries_than_images_leave_the_smallest():
    bias = torch.tensor([-0.3, -0.1, -0.5, 0.9])  # as under noise
    assert torch.equal(class_counts(bias, 2, torch.full((4,), 0.25)), torch.tensor([1, 0, 1, 0]))


@pytest.mark.parametrize("task", [Task("binary", 2), Task("multilabel", 6)])
def test_signs_read_sigmoid_labels(task):
    for seed in range(20):
        small = SmallProblem(seed=seed, task=task, model={"convs": 2})
        assert torch.equal(problem_of(small).inferred_labels(), small.labels)


def test_positives_of_a_batch_are_counted_per_output():
    probabilities = torch.tensor([0.6, 0.2, 0.5])
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    bias = (probabilities - labels.mean(0)) / 3  # every image predicted alike; mean over 3 outputs

    assert torch.equal(positive_counts(bias, 4, probabilities), torch.tensor([3, 1, 2]))
    inferred = infer(HeadGradient(None, bias), Task("multilabel", 3), 4, Expected(probabilities, None, True))
    assert torch.equal(inferred.sum(0), labels.sum(0))


SIGMOID = [Task("binary", 2), Task("multilabel", 6)]


class HeadOnly:
    """The head's gradient of sigmoid cross-entropy, by plain autograd, on non-negative features."""

    def __init__(self, task, *, n, seed):
        generator = torch.Generator().manual_seed(seed)
        head = nn.Linear(32, task.outputs)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 32**0.5)
        base = torch.rand(32, generator=generator)  # features of images of one kind are alike
        features = (base + 0.1 * torch.randn(n + 64, 32, generator=generator)).relu()
        own, private = features[:64], features[64:]
        self.labels = torch.randint(2, (n, task.outputs), generator=generator).float()
        loss = nn.functional.binary_cross_entropy_with_logits(head(private), self.labels)
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        self.with_bias, self.without = HeadGradient(weight, bias), HeadGradient(weight, None)
        with torch.no_grad():
            probabilities = head(own).sigmoid().mean(0)
        self.expected = Expected(probabilities, own.sum(1).mean(), non_negative=True)


@pytest.mark.parametrize("task", SIGMOID)
def test_sigmoid_labels_of_one_image_are_certain_with_and_without_a_bias(task):
    for seed in range(200):
        case = HeadOnly(task, n=1, seed=seed)
        for head in (case.with_bias, case.without):
            assert torch.equal(infer(head, task, 1, case.expected), case.labels)


@pytest.mark.parametrize("task", SIGMOID)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_positives_of_a_batch_are_nearly_always_counted_right(task, n):
    hits = {"with_bias": 0, "without": 0}
    for seed, name in itertools.product(range(100), hits):
        case = HeadOnly(task, n=n, seed=seed)
        counts = infer(getattr(case, name), task, n, case.expected).sum(0)
        hits[name] += int(torch.equal(counts, case.labels.sum(0)))
    assert hits["with_bias"] >= 95
    assert hits["without"] >= 85


@pytest.mark.parametrize("task", [MULTICLASS, *SIGMOID])
def test_labels_are_read_where_only_the_head_was_trained(task):
    """Frozen body: the update holds the head's tensors alone."""
    for seed in range(5):
        small = SmallProblem(seed=seed, task=task, model={"convs": 2})
        whole = problem_of(small)
        head = {name: t for name, t in whole.observed.items() if name.startswith("head.")}
        assert 0 < len(head) < len(whole.observed)
        assert torch.equal(replace(whole, observed=head).inferred_labels(), small.labels)


class HeadFirst(nn.Module):
    """A model whose head is registered first and has no bias; the last tensor belongs to something else."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5, bias=False)
        self.body = nn.Linear(4, 8)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_head_is_found_by_name_not_position():
    model = HeadFirst()
    gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}

    found = head_gradient(model, gradients)

    assert found.weight is gradients["head.weight"]
    assert found.bias is None


def test_a_head_that_is_not_shared_is_an_error():
    with pytest.raises(NotApplicableError, match="not shared"):
        head_gradient(HeadFirst(), {"body.weight": torch.zeros(8, 4)})


def test_row_sums_read_a_label_that_noise_on_the_bias_hides():
    """Features that add up to 60 lift the label's evidence above noise that drowns it in the bias."""
    probabilities, features = torch.full((10,), 0.1), torch.full((60,), 1.0)
    slope = probabilities - torch.eye(10)[3]
    weight = slope.outer(features)
    bias = slope.clone()
    bias[7] = -2.0
    weight[:, ::2] += 2.0
    weight[:, 1::2] -= 2.0
    expected = Expected(probabilities, features.sum(), non_negative=True)
    task, head = Task("multiclass", 10), HeadGradient(weight, bias)
    assert infer(head, task, 1, expected).tolist() == [7]
    assert infer(head, task, 1, expected, through_noise=True).tolist() == [3]
    signed = expected._replace(non_negative=False)
    assert infer(head, task, 1, signed, through_noise=True).tolist() == [7]
    unshared = HeadGradient(None, slope)
    assert infer(unshared, task, 1, expected, through_noise=True).tolist() == [3]
