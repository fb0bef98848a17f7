"""What is told of batches before the draw, against the batches that clients draw."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.batch_bounds import smallest_batch
from fl.cards import DataInfo
from fl.client import local_training
from fl.data.partition import assign
from fl.data.partition_bounds import client_sizes
from fl.hooks import ClientDefense
from fl.seeds import Streams
from fl.specs import ByPatient, Dirichlet, FederationSpec, Iid, Shards, Sizes, Task

PATIENTS = 3


def info(images):
    parts = {"private": images}
    return DataInfo(Task("multiclass", 2), 1, 8, images=parts, public=True, fingerprint="x", groups=PATIENTS)


def dealt(partition, images, clients, seed=0):
    labels, groups = np.arange(images) % 2, [str(i % PATIENTS) for i in range(images)]
    stream = Streams(seed).numpy("partition")
    return [len(hand) for hand in assign(partition, labels, clients=clients, stream=stream, groups=groups)]


@pytest.mark.parametrize(
    "partition",
    [
        Iid(),
        Dirichlet(alpha=0.1),
        Shards(shards=2),
        Sizes(sizes=(3, 1, 4, 1)),
        ByPatient(allow_overlap=True),
    ],
)
@pytest.mark.parametrize("images", [16, 23])
def test_sizes_are_those_of_every_draw(partition, images):
    told = client_sizes(partition, images, 4, PATIENTS)
    drawn = {tuple(dealt(partition, images, 4, seed)) for seed in range(5)}

    assert drawn == {told} if told else len(drawn) > 1


def test_sizes_of_patients_are_not_known():
    assert client_sizes(ByPatient(), 24, 3, PATIENTS) is None


@given(
    images=st.integers(4, 40),
    trained=st.integers(1, 4),
    batch_size=st.integers(1, 9),
    sends=st.sampled_from(
        [
            {"algorithm": "fedsgd"},
            {"algorithm": "fedavg", "local_epochs": 2},
            {"algorithm": "fedavg", "local_steps": 3},
        ]
    ),
)
def test_the_smallest_batch_is_that_of_the_luckiest_draw_of_clients(images, trained, batch_size, sends):
    spec = FederationSpec(clients=4, batch_size=batch_size, **sends)
    smallest = []
    for client, n in enumerate(dealt(Iid(), images, 4)):
        local = local_training(spec, client, n)
        drawn = ClientDefense().sampler(n, batch_size, local.epochs, Streams(0).torch("batches"))
        smallest.append(min(len(batch) for batch in itertools.islice(drawn, local.steps)))
    luckiest = max(min(group) for group in itertools.combinations(smallest, trained))

    assert smallest_batch(spec, info(images), trained=trained) == luckiest
    assert smallest_batch(spec, info(images), trained=0) is None
