"""Starting and reaching Ray, or saying clearly why not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray_test_items import FOLDER

from fl.errors import UsageError

pytestmark = pytest.mark.ray


@pytest.fixture
def connect(no_ray):
    from harness.execute import ray_cluster

    return lambda address, **options: ray_cluster.connect(ray_cluster.RayOptions(address, **options))


@pytest.fixture
def listener():
    """The address of something that accepts connections, is not Ray and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "cannot reach a Ray cluster at 127.0.0.1:1: .*refused.*ray start --head"),
        ("nowhere.invalid:6379", "cannot reach a Ray cluster at nowhere.invalid:6379"),
        ("somewhere", "cannot reach a Ray cluster at somewhere: expected host:port"),
        ("host:99999999", "cannot reach a Ray cluster at host:99999999"),
        ("http://127.0.0.1:8265", "expected `local`, `auto` or `host:port` .*got 'http://127.0.0.1:8265'"),
        ("ray://127.0.0.1:10001", "expected `local`, `auto` or `host:port`"),
    ],
)
def test_an_address_without_a_cluster_is_refused(connect, address, message):
    with pytest.raises(UsageError, match=message):
        connect(address)


def test_something_that_is_not_ray_is_given_up_in_time(connect, listener, monkeypatch):
    from harness.execute import ray_cluster

    monkeypatch.setattr(ray_cluster, "JOIN_TIMEOUT_S", 1.0)
    with pytest.raises(UsageError, match="no answer from Ray within 1 s"):
        connect(listener)


def test_the_environment_names_the_cluster_where_nothing_else_does(connect, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UsageError, match=r"cannot reach a Ray cluster at 127\.0\.0\.1:1"):
        connect(None)


def test_a_number_of_workers_for_a_cluster_is_refused(connect):
    with pytest.raises(UsageError, match="expected no number of workers for the cluster"):
        connect("127.0.0.1:1", workers=2)


def test_a_ray_that_cannot_be_started_is_a_clear_error(connect, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"cannot start Ray on this machine: .*missing.*--executor inline"):
        connect("local")


DRIVER = """
import json
from harness.execute.executor import LaneSettings
from harness.execute.ray_executor import RayExecutor
from ray_test_items import federation, run, stage
settings = LaneSettings("artifacts", "private")
executor = RayExecutor(settings, workers=2, lane_class="ray_test_lanes:ArithmeticLane")
executor.start()
items = [stage("square", value=3), stage("die")]
receipts = run(executor, items)
executor.close()
print(json.dumps([receipts[i.item_id].failure and receipts[i.item_id].failure.kind for i in items]))
"""


def test_a_private_ray_is_silent_and_leaves_nothing_behind(tmp_path):
    """Also with a home folder that cannot be written, and where a worker dies."""
    (tmp_path / "artifacts").mkdir()
    sockets = Path(tempfile.mkdtemp(dir="/tmp"))  # their paths must be short
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": FOLDER, "HOME": "/dev/null", "RAY_TMPDIR": str(sockets)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [None, "killed"]
    assert done.stderr == ""
    assert (tmp_path / "artifacts" / "square-3").read_text() == "9"
    sockets.rmdir()  # is empty
