import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch.nn import functional as F

from fl.specs import Task
from harness.metrics.utility import utility

MULTICLASS = Task("multiclass", 4)
BINARY = Task("binary", 2)
MULTILABEL = Task("multilabel", 3)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_multiclass_agrees_with_scikit_learn(seed):
    logits = draw(60, 4, seed=seed).round(decimals=1)
    labels = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(seed))
    found = utility(logits, labels, MULTICLASS)
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    chances = logits.double().softmax(1).numpy()
    assert found.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found.auroc == pytest.approx(reference.roc_auc_score(truth, chances, multi_class="ovr"))
    assert found.loss == pytest.approx(reference.log_loss(truth, chances), rel=1e-9)
    assert found.null_reasons == {}


def test_classes_that_never_occur():
    logits = torch.eye(4)[[0, 1, 1, 3]] * 3
    labels = torch.tensor([0, 1, 0, 1])
    found = utility(logits, labels, MULTICLASS)
    predicted = logits.argmax(1).numpy()
    assert found.balanced_accuracy == 0.5
    expected = reference.f1_score(labels.numpy(), predicted, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(expected)
    assert found.auroc is None
    assert found.null_reasons == {"auroc": "2 of 4 outputs lack positive or negative images"}


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_binary_agrees_with_scikit_learn(shape):
    logits = draw(50, 1, seed=5).round(decimals=1)  # ties
    labels = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(6))
    found = utility(logits, labels, BINARY)
    truth, predicted = labels.flatten().numpy(), (logits.flatten() > 0).long().numpy()
    assert found.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found.auroc == pytest.approx(reference.roc_auc_score(truth, logits.flatten().numpy()))
    chances = logits.double().sigmoid().flatten().numpy()
    assert found.loss == pytest.approx(reference.log_loss(truth, chances), rel=1e-9)


def test_multilabel_agrees_with_scikit_learn():
    logits = draw(80, 3, seed=7)
    labels = (draw(80, 3, seed=8) > 0.5).float()
    found = utility(logits, labels, MULTILABEL)
    truth, predicted = labels.numpy().astype(int), (logits > 0).numpy().astype(int)
    assert found.accuracy == pytest.approx(1 - reference.hamming_loss(truth, predicted))
    columns = zip(truth.T, predicted.T, strict=True)
    expected = np.mean([reference.balanced_accuracy_score(t, p) for t, p in columns])
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found.auroc == pytest.approx(reference.roc_auc_score(truth, logits.numpy(), average="macro"))
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize("task", [MULTICLASS, BINARY, MULTILABEL])
def test_a_diverged_model_is_wrong_everywhere(task):
    logits = torch.full((6, task.outputs), math.nan)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    if task.kind == "multilabel":
        labels = F.one_hot(labels, task.outputs)
    found = utility(logits, labels, task)
    assert found.accuracy == found.balanced_accuracy == found.macro_f1 == 0
    assert found.auroc is None
    assert found.loss is None
    assert set(found.null_reasons) == {"auroc", "loss"}


def test_one_class_only_has_no_roc_curve():
    found = utility(draw(5, 1, seed=9), torch.ones(5), BINARY)
    assert found.auroc is None
    assert found.null_reasons == {"auroc": "1 of 1 outputs lack positive or negative images"}


def test_no_images_at_all():
    found = utility(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), MULTICLASS)
    assert found.accuracy is None
    assert found.null_reasons["accuracy"] == "no images to test on"
