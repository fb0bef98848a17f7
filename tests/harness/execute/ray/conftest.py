"""A private Ray for the tests of the executor; their items and lanes are modules in this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.execute.executor import LaneSettings

sys.path.append(str(Path(__file__).parent))

from ray_test_items import FOLDER


@pytest.fixture(scope="module")
def private_ray():
    """Be connected to a private Ray, whose workers find this folder's modules.

    It ends with the module: it pretends to have a GPU, and a run that found it would believe that.
    """
    from harness.execute.ray_cluster import RayOptions, connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", FOLDER)
        connection = connect(RayOptions("local", workers=2, gpus=1, object_store_mib=128))
        yield
        connection.close()


@pytest.fixture
def no_ray():
    """Not be connected to Ray; the next module that needs a private one starts another."""
    from harness.execute.ray_cluster import ray

    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path):
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "artifacts"


@pytest.fixture
def start(private_ray, store):
    """Return a function that gives a started executor."""
    from harness.execute.ray_executor import RayExecutor

    started = []

    def make(lane_class="ray_test_lanes:ArithmeticLane", device="auto", specs=()):
        settings = LaneSettings(str(store), str(store.parent / "private"), device)
        executor = RayExecutor(settings, lane_class=lane_class)
        started.append(executor)
        executor.start(specs)
        return executor

    yield make
    for executor in started:
        executor.close()
