"""The training losses against their formulas."""

import math

import pytest
import torch

from fl.losses import task_loss
from fl.specs import Task


def test_cross_entropy_of_classes_and_of_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    expected = (-math.log(3 / 4) - math.log(1 / 2)) / 2

    hard = task_loss(Task("multiclass", 2), logits, torch.tensor([1, 0]))
    soft = task_loss(Task("multiclass", 2), logits, torch.tensor([[0.0, 1.0], [0.5, 0.5]]))

    assert hard.item() == pytest.approx(expected)
    assert soft.item() == pytest.approx(expected)


def test_sigmoid_loss_is_the_mean_over_batch_and_outputs():
    logits = torch.tensor([[0.0, math.log(3.0)], [-math.log(3.0), 0.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.25]])
    expected = (math.log(2) - math.log(1 / 4) - math.log(3 / 4) + math.log(2)) / 4

    assert task_loss(Task("multilabel", 2), logits, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("labels", [torch.tensor([1, 0]), torch.tensor([[1.0], [0.0]])])
def test_binary_labels_may_be_classes_or_a_column(labels):
    logits = torch.tensor([[math.log(3.0)], [math.log(3.0)]])
    expected = (-math.log(3 / 4) - math.log(1 / 4)) / 2

    assert task_loss(Task("binary", 2), logits, labels).item() == pytest.approx(expected)
