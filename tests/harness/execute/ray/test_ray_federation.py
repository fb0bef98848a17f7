"""Federations under the Ray executor: a server actor, client actors, and what happens when they die."""

from __future__ import annotations

from itertools import pairwise

import pytest
from ray_test_items import federation, log, run, stage
from ray_test_lanes import ArithmeticLane

from harness.execute.executor import LaneSettings

pytestmark = pytest.mark.ray

ROUNDS = 4


@pytest.fixture
def expected(tmp_path):
    """From a federation to its final model, trained in this process."""

    def train(item):
        folder = tmp_path / "inline"
        folder.mkdir(exist_ok=True)
        ArithmeticLane(LaneSettings(str(folder), str(folder)), "here", gpu=False).run(item)
        return (folder / f"{item.key}-{ROUNDS}.npy").read_bytes()

    return train


def model(store, item):
    return (store / f"{item.key}-{ROUNDS}.npy").read_bytes()


def pids(store, word):
    return [pid for pid, *words in log(store) if words[0] == word]


def test_a_hundred_clients_on_two_lanes_and_a_server_of_their_own(start, store, expected):
    item = federation("fed", clients=100, rounds=ROUNDS)
    receipt = run(start(device="cpu"), [item])[item.item_id]
    assert receipt.failure is None
    assert receipt.usage.cpu_s > 0
    assert receipt.usage.peak_mem_mib > 0
    assert model(store, item) == expected(item)
    servers, clients = set(pids(store, "finish")), set(pids(store, "chunk"))
    assert (len(servers), len(clients)) == (1, 2)
    assert not servers & clients
    chunks = [tuple(words[1:]) for _, *words in log(store) if words[0] == "chunk"]
    assert sorted(chunks) == sorted((str(r), str(c)) for r in range(ROUNDS) for c in range(7))


def test_the_sums_depend_on_their_order_so_that_equal_bits_mean_something(store):
    item = federation("fed", clients=100, rounds=1)
    lane = ArithmeticLane(LaneSettings(str(store), str(store)), "here", gpu=False)
    sums = [lane.train_chunk(item, 0, chunk).values for chunk in range(7)]
    assert (sum(sums[1:], sums[0]) != sum(sums[-2::-1], sums[-1])).any()


def test_as_many_federations_as_lanes_stay_whole_in_a_lane_each_with_the_same_bits(start, store, expected):
    items = [federation(f"fed{n}", clients=100, rounds=ROUNDS) for n in range(3)]
    run(start(device="cpu"), items)
    assert [model(store, item) == expected(item) for item in items] == [True] * 3
    assert len(pids(store, "whole")) == 2 or len(pids(store, "whole")) == 3


def test_a_federation_of_one_chunk_needs_no_server(start, store, expected):
    item = federation("fed", clients=16, rounds=ROUNDS)
    run(start(device="cpu"), [item])
    assert len(pids(store, "whole")) == 1
    assert model(store, item) == expected(item)


@pytest.mark.parametrize(
    "places", [["chunk-1-3"], ["begin"], ["finish-2"], ["chunk-0-0", "finish-0", "chunk-3-6"]]
)
def test_what_dies_is_replaced_and_only_lost_work_is_done_again(start, store, expected, places):
    for place in places:
        (store / f"fault-{place}").touch()
    item = federation("fed", clients=100, rounds=ROUNDS)
    receipt = run(start(device="cpu"), [item])[item.item_id]
    assert receipt.failure is None
    assert not list(store.glob("fault-*"))
    assert model(store, item) == expected(item)
    finished = [int(words[1]) for _, *words in log(store) if words[0] == "finish"]
    assert finished == list(range(ROUNDS))
    rounds = [int(words[1]) for _, *words in log(store) if words[0] == "chunk"]
    assert all(a <= b for a, b in pairwise(rounds))
    redone = len(rounds) - 7 * ROUNDS
    lost_chunks = sum(place.startswith("chunk") for place in places)
    lost_rounds = sum(place.startswith("finish") for place in places)
    assert lost_chunks <= redone <= lost_chunks + 7 * lost_rounds


def test_a_chunk_that_kills_every_lane_fails_the_federation_and_others_go_on(start, store):
    executor = start("ray_test_lanes:DeadlyChunkLane", device="cpu")
    item, other = federation("fed", clients=64, rounds=2), stage("square", value=4)
    receipts = run(executor, [item, other])
    assert receipts[item.item_id].failure.kind == "killed"
    assert receipts[other.item_id].failure is None
    assert len([words for _, *words in log(store) if words == ["chunk", "0", "1"]]) == 3


def test_an_exception_in_a_chunk_is_the_federations(start):
    item = federation("fed", clients=64, rounds=2)
    failure = run(start("ray_test_lanes:BrokenChunkLane", device="cpu"), [item])[item.item_id].failure
    assert failure.kind == "exception"
    assert failure.error == "ValueError: no such chunk"
    assert "train_chunk" in failure.traceback


def test_a_federations_time_limit_ends_its_lanes_and_its_server(start, store):
    executor = start("ray_test_lanes:SlowChunkLane", device="cpu")
    item = federation("fed", clients=64, rounds=2, timeout_s=0.5)
    assert run(executor, [item])[item.item_id].failure.kind == "timeout"
    after = stage("square", value=1)
    assert run(executor, [after])[after.item_id].failure is None
