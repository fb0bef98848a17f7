"""Nodes and lanes of a real (if small) cluster come and go; every item is answered once and computed."""

from __future__ import annotations

import shutil
import tempfile
import time

import pytest
from ray_test_items import FOLDER, federation, log, stage, wait_for
from ray_test_lanes import ArithmeticLane

from fl.errors import UsageError
from harness.execute.executor import LaneSettings

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

ITEMS = 60
LANES = "ray_test_lanes:ArithmeticLane"


@pytest.fixture
def cluster(no_ray, monkeypatch):
    """A head that computes nothing, where the driver is, and two nodes of one core."""
    import ray.cluster_utils

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("PYTHONPATH", FOLDER)
    made = ray.cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 2**27},
    )
    yield made
    ray.shutdown()
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=2**27)


@pytest.fixture
def executor(cluster, store):
    from harness.execute.ray_executor import RayExecutor

    executor = RayExecutor(
        LaneSettings(str(store), str(store.parent / "private")), address=cluster.address, lane_class=LANES
    )
    yield executor
    executor.close()


def test_nodes_and_lanes_die_and_join_and_every_item_is_answered_once(cluster, executor, store, tmp_path):
    doomed, _ = add_node(cluster), add_node(cluster)
    executor.start()
    assert executor.describe() == "2 lanes on 2 nodes (2 CPU)"
    (store / "fault-stage-50").touch()
    training = federation("fed", clients=100, rounds=6)
    waiting = [training, *(stage("square", value=n) for n in range(ITEMS))]
    submitted, done, lost = {}, set(), []
    events = {10: lambda: cluster.remove_node(doomed, allow_graceful=False), 30: lambda: add_node(cluster)}
    deadline = time.monotonic() + 120
    while waiting or executor.running():
        while ready := next((item for item in waiting if executor.can_accept(item)), None):
            waiting.remove(ready)
            submitted[ready.item_id] = ready
            executor.submit(ready)
        for receipt in executor.poll(0.25):
            item = submitted.pop(receipt.item_id)
            if receipt.failure is None:
                done.add(receipt.item_id)
            else:
                assert receipt.failure.kind == "killed"
                lost.append(receipt)
                waiting.append(item)
            if event := events.pop(len(done), None):
                event()
        assert time.monotonic() < deadline, f"{len(done)} done, {lost}"
    assert len(done) == ITEMS + 1
    assert not events
    assert 1 <= len(lost) <= 3
    wait_for(lambda: executor.lanes() == 2, executor)
    assert [(store / f"square-{n}").read_text() for n in range(ITEMS)] == [str(n * n) for n in range(ITEMS)]
    inline = tmp_path / "inline"
    inline.mkdir()
    ArithmeticLane(LaneSettings(str(inline), str(inline)), "here", gpu=False).run(training)
    assert (store / "fed-6.npy").read_bytes() == (inline / "fed-6.npy").read_bytes()
    assert [words[1] for _, *words in log(store) if words[0] == "finish"] == list("012345")


def test_a_cluster_that_has_no_core_to_give_is_refused(cluster, executor, monkeypatch):
    from harness.execute import ray_executor

    monkeypatch.setattr(ray_executor, "START_TIMEOUT_S", 2.0)
    with pytest.raises(
        UsageError, match="expected a node of the Ray cluster to give one CPU within 2 s, got none"
    ):
        executor.start()
