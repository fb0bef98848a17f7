from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from defenses.catalog import MIXUP, MixupConfig
from defenses.mixup import Mixup
from fl.hooks import Batch
from fl.seeds import Streams
from fl.specs import FederationSpec, Task
from harness.testing import SmallProblem
from harness.testing.small_setting import small_setting

STEP = SmallProblem().step(Streams(0).torch("step"))


def mix(images, labels, alpha, seed=0, step=STEP):
    client = Mixup(MixupConfig(alpha=alpha)).for_client(SmallProblem().client_context)
    batch = Batch(images, labels, tuple(map(str, range(len(images)))))
    return client.perturb_batch(replace(step, stream=Streams(seed).torch("step")), batch)


def share_of(alpha, seed):
    """Two images of their own colour each tell which share of which is in a mixture."""
    mixed = mix(torch.eye(2).view(2, 2, 1, 1), torch.tensor([0, 1]), alpha, seed).images[0].flatten()
    assert float(mixed.sum()) == pytest.approx(1)
    return float(mixed[0])


def test_images_and_labels_are_mixed_in_the_same_shares():
    n = 6
    mixed = mix(torch.eye(n).view(n, n, 1, 1), torch.arange(n), alpha=1.0)
    images = mixed.images.flatten(1)
    torch.testing.assert_close(F.pad(images, (0, 10 - n)), mixed.labels)
    torch.testing.assert_close(images.sum(1), torch.ones(n))
    partners = [row.topk(2).indices.tolist() for row in images]
    shares = {round(float(images[i, i]), 5) for i in range(n) if images[i, i] != 1}
    assert len(shares) == 1
    assert sorted(j for i, row in enumerate(partners) for j in row if j != i and images[i, j] > 0) == sorted(
        i for i in range(n) if images[i, i] != 1
    )


def test_shares_are_from_a_beta_distribution():
    """A permutation of two leaves half of the pairs alone; the others show lambda."""
    shares = [share_of(2.0, seed) for seed in range(600)]
    shown = [share for share in shares if share != 1]
    assert 240 < len(shown) < 360
    assert stats.kstest(shown, stats.beta(2.0, 2.0).cdf).pvalue > 0.01


def test_larger_alphas_mix_more_with_the_same_draws():
    mixing = next(seed for seed in range(20) if share_of(1.0, seed) != 1)
    distances = [abs(share_of(alpha, mixing) - 0.5) for alpha in (0.1, 0.4, 1.0, 4.0, 100.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.2


@pytest.mark.parametrize("alpha", [1e-3, 0.4, 50.0])
def test_one_image_or_none_is_left_as_it_is(alpha):
    for n in (0, 1):
        images = torch.rand(n, 1, 16, 16, generator=Streams(0).torch("images"))
        mixed = mix(images, torch.zeros(n, dtype=torch.int64), alpha)
        assert torch.equal(mixed.images, images)
        assert torch.equal(mixed.labels, F.one_hot(torch.zeros(n, dtype=torch.int64), 10).float())


def test_sigmoid_targets_are_mixed_as_they_are():
    task = Task("multilabel", 3)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    step = SmallProblem(task=task).step(Streams(0).torch("step"))
    for seed in range(6):
        mixed = mix(torch.eye(2).view(2, 2, 1, 1), labels, 1.0, seed, step)
        torch.testing.assert_close(mixed.labels, mixed.images.flatten(1) @ labels)


def test_a_simulated_client_draws_from_the_attackers_stream():
    small = SmallProblem(n=4, defense=Mixup(MixupConfig(alpha=1.0)))
    client = small.defense.for_client(small.client_context)
    simulate = small.simulator(client)

    def simulated(seed):
        stream = Streams(seed).torch("simulation")
        return simulate(small.images, small.labels, small.sent, stream).tensors["head.weight"]

    assert torch.equal(simulated(1), simulated(1))
    assert not torch.allclose(simulated(1), simulated(2))
    assert not torch.allclose(simulated(1), small.update.tensors["head.weight"])


@pytest.mark.parametrize(
    ("alpha", "batches", "applies"),
    [
        (0.4, {"batch_size": 2}, True),
        (0.4, {"batch_size": 1}, False),
        (0.0, {"batch_size": 1}, True),
        (0.4, {"clients": 2, "batch_sizes": (1, 4)}, True),
        (0.4, {"clients": 2, "batch_sizes": (1, 1)}, False),
    ],
)
def test_batches_of_one_have_nothing_to_mix(alpha, batches, applies):
    setting = small_setting(federation=FederationSpec(**batches))
    assert (MIXUP.compatible(MixupConfig(alpha=alpha), setting) is None) is applies
