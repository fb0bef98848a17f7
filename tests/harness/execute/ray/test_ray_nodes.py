from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fl.cards import Resources
from harness.execute.ray_nodes import LaneShape, Node, alive_nodes, lane_shape, room

CPU = LaneShape()


def gpu(share: float) -> LaneShape:
    return LaneShape(cpus=0.0, gpus=share)


def test_nodes_are_read_from_rays_listing_without_the_dead_and_those_without_a_core():
    listing = [
        {
            "NodeID": "a",
            "NodeManagerHostname": "one",
            "Alive": True,
            "Resources": {"CPU": 4.0, "memory": 2.0**31},
        },
        {"NodeID": "b", "NodeManagerHostname": "two", "Alive": False, "Resources": {}},
        {"NodeID": "c", "NodeManagerHostname": "head", "Alive": True, "Resources": {"GPU": 1.0}},
        {"NodeID": "d", "NodeManagerHostname": "gpu", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
    ]
    nodes = alive_nodes(listing)
    assert nodes == {"a": Node("a", "one", 4.0, 0.0, 2048.0), "d": Node("d", "gpu", 8.0, 2.0, math.inf)}


def test_work_that_can_use_a_gpu_asks_for_its_share_and_no_core_only_where_there_is_one():
    able = Resources(cpus=2, gpus=0.25)
    assert lane_shape(able, gpu=True) == LaneShape(cpus=0.0, gpus=0.25)
    assert lane_shape(able, gpu=False) == LaneShape(cpus=2.0)
    assert lane_shape(Resources(), gpu=True) == CPU
    assert lane_shape(Resources(gpus=4), gpu=True) == gpu(1.0)


def test_room_for_cpu_lanes_is_the_floor_of_what_is_left():
    node = Node("a", "a", cpus=7.5)
    assert room(node, [], CPU) == 7
    assert room(node, [LaneShape(3.0), CPU], LaneShape(2.0)) == 1
    assert room(node, [LaneShape(7.0)], CPU) == 0
    assert room(node, [gpu(1.0)], CPU) == 7
    assert room(Node("a", "a", cpus=1), [LaneShape(0.1)] * 9, LaneShape(0.1)) == 1


def test_gpu_lanes_never_span_devices():
    node = Node("a", "a", cpus=1, gpus=2)
    assert room(node, [], gpu(0.6)) == 2
    assert room(node, [], gpu(0.25)) == 8
    assert room(node, [gpu(0.25)], gpu(0.25)) == 7
    assert room(node, [gpu(0.25)] * 5, gpu(1.0)) == 0
    assert room(node, [gpu(0.25)] * 4, gpu(0.5)) == 2
    assert room(Node("a", "a", cpus=9), [], gpu(0.5)) == 0


@given(
    cpus=st.integers(1, 64),
    gpus=st.integers(0, 8),
    shares=st.lists(st.sampled_from([1.0, 0.5, 0.25, 0.2, 0.1]), max_size=30),
)
def test_lanes_that_were_given_room_one_by_one_fit_on_real_devices(cpus, gpus, shares):
    node, held = Node("a", "a", cpus, gpus), []
    for share in shares:
        if room(node, held, gpu(share)):
            held.append(gpu(share))
    devices: list[list[float]] = [[] for _ in range(gpus)]
    for lane in sorted(held, key=lambda lane: lane.gpus):
        home = next((d for d in devices if lane.gpus in d and sum(d) + lane.gpus < 1 + 1e-9), None)
        home = home if home is not None else next(d for d in devices if not d)
        home.append(lane.gpus)
    assert sum(map(len, devices)) == len(held)
