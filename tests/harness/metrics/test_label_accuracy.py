import pytest
import torch

from harness.metrics.labels import as_labels, label_accuracy


@pytest.mark.parametrize(
    ("truth", "recovered", "expected"),
    [
        ([3], [3], 1.0),
        ([3], [4], 0.0),
        ([1, 2, 2, 5], [2, 5, 2, 1], 1.0),  # order does not matter
        ([1, 2, 2, 5], [2, 2, 2, 2], 0.5),  # each recovered label counts once
        ([1, 2], [1], 0.5),
        ([1], [0, 1, 2], 1.0),
        ([1, 2], [], 0.0),
        ([(0, 1), (1, 1)], [(1, 1), (1, 0)], 0.5),  # multilabel: a whole vector is one label
    ],
)
def test_share_of_labels_recovered(truth, recovered, expected):
    assert label_accuracy(truth, recovered) == expected


def test_labels_from_tensors():
    assert as_labels(torch.tensor([2, 0])) == (2, 0)
    assert as_labels(torch.tensor([[0.9], [0.2]])) == (1, 0)
    assert as_labels(torch.tensor([[0.9, 0.1], [0.0, 1.0]])) == ((1, 0), (0, 1))
    assert as_labels(torch.tensor([], dtype=torch.long)) == ()
