"""Participation, averaging and the server's step against small sums by hand."""

import pytest
import torch

from fl.models import architecture
from fl.seeds import Streams
from fl.server import aggregate, chunks_of, draw_participants, server_step
from fl.specs import FederationSpec
from fl.types import ModelState, Update

FEDSGD = FederationSpec(algorithm="fedsgd", lr=0.5)
FEDAVG = FederationSpec(algorithm="fedavg", lr=0.5, server_lr=2.0)


def update(value, n, kind="gradient", buffer=None):
    buffers = {} if buffer is None else {"mean": torch.tensor([buffer])}
    return Update(kind, {"w": torch.tensor([value, 1.0])}, buffers, n)


def test_participants_are_drawn_without_replacement_and_anew_each_round():
    spec = FederationSpec(clients=50, participation=0.3)
    draws = [draw_participants(spec, Streams(1), r) for r in range(40)]

    assert all(len(set(d)) == 15 and list(d) == sorted(d) for d in draws)
    assert draws == [draw_participants(spec, Streams(1), r) for r in range(40)]
    assert len(set(draws)) == 40
    assert draws[0] != draw_participants(spec, Streams(2), 0)
    assert set().union(*draws) == set(range(50))


@pytest.mark.parametrize(
    ("participation", "clients", "drawn"), [(1.0, 7, 7), (0.01, 7, 1), (0.3, 10, 3), (0.29, 100, 29)]
)
def test_the_number_of_participants(participation, clients, drawn):
    spec = FederationSpec(clients=clients, participation=participation)

    assert len(draw_participants(spec, Streams(0), 0)) == drawn


def test_chunk_borders_do_not_move_with_participants():
    chunks = chunks_of(FederationSpec(clients=40, chunk=16), [2, 15, 16, 39])

    assert [(c.index, c.clients) for c in chunks] == [(0, (2, 15)), (1, (16,)), (2, (39,))]
    assert [c.index for c in chunks_of(FederationSpec(clients=40, chunk=16), [33])] == [2]


def test_the_mean_is_weighted_by_images():
    mean = aggregate([update(1.0, 1, buffer=10.0), update(5.0, 3, buffer=2.0)], FEDSGD)

    assert mean.tensors["w"].tolist() == [4.0, 1.0]
    assert mean.buffers["mean"].tolist() == [4.0]
    assert mean.n_images == 4
    assert mean.kind == "gradient"


def test_nothing_is_averaged_from_no_images():
    assert aggregate([], FEDSGD) is None
    assert aggregate([update(1.0, 0)], FEDSGD) is None


@pytest.mark.parametrize(("spec", "expected"), [(FEDSGD, 1 - 0.5 * 4), (FEDAVG, 1 + 2 * 4)])
def test_the_step_goes_down_a_gradient_and_along_a_delta(spec, expected, model_plugin, make_info):
    tensors = {"w": torch.ones(2), "frozen": torch.ones(1), "mean": torch.zeros(1)}
    state = ModelState(architecture(model_plugin(), make_info()), tensors, ("w",), "train")
    kind = "gradient" if spec is FEDSGD else "delta"
    stepped, left = server_step(state, update(4.0, 2, kind, buffer=9.0), spec)

    assert stepped.tensors["w"][0].item() == expected
    assert stepped.tensors["frozen"].item() == 1
    assert stepped.tensors["mean"].item() == 9
    assert tensors["w"].tolist() == [1, 1]
    assert left == {}
