import pytest
import torch
from torch import nn

from fl.errors import NotApplicableError
from fl.types import ImageSpec
from harness.metrics.features import feature_distance, mse_r, penultimate_features
from harness.metrics.pairs import Embedding, Instruments, Pairs, Unavailable

SPEC = ImageSpec(1, 2, mean=(0.5,), std=(0.25,))


class Classifier(nn.Module):
    """Features are the first two normalised pixels, thrice the sum of all, and a dropout's output."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.dropout = nn.Dropout(0.5)

    def features(self, x):
        x = x.flatten(1)
        return self.dropout(torch.stack([x[:, 0], x[:, 1], 3 * x.sum(1)], dim=1))


def test_distance_of_penultimate_features_by_hand():
    none = Unavailable("none")
    features = penultimate_features(Classifier(), SPEC)
    truth = torch.tensor([[[[0.5, 0.5], [0.5, 0.5]]]])
    guess = torch.tensor([[[[0.75, 0.5], [0.5, 0.5]]]])
    instruments = Instruments(none, Embedding(features), none)
    found = feature_distance(Pairs(truth, guess, ("x",), instruments))
    assert found.item() == pytest.approx(10**0.5)  # one pixel is one std away: (1, 0, 3)
    assert mse_r(Pairs(truth, guess, ("x",), instruments)).item() == pytest.approx(10 / 3)


def test_a_model_without_features_has_a_reason(make_pairs):
    assert "Linear" in penultimate_features(nn.Linear(2, 2), SPEC).reason
    images = torch.zeros(1, 1, 2, 2)
    for metric in (feature_distance, mse_r):
        with pytest.raises(NotApplicableError, match="none"):
            metric(make_pairs(images, images))
