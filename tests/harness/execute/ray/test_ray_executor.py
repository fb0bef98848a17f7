"""The Ray executor on a private Ray of two cores and one pretended GPU, with lanes that do arithmetic."""

from __future__ import annotations

import pytest
from ray_test_items import federation, log, run, spec, stage, wait_for

from fl.cards import Resources
from fl.errors import UsageError
from harness.execute.work import BundleItem, Failure, Trial

pytestmark = pytest.mark.ray


def test_items_run_on_as_many_processes_as_there_are_lanes(start, store):
    executor = start()
    assert executor.lanes() == 3
    assert executor.describe() == "3 lanes on 1 node (2 CPU, 1 GPU)"
    items = [stage("square", value=n) for n in range(20)]
    receipts = run(executor, items)
    assert all(receipt.failure is None for receipt in receipts.values())
    assert [(store / f"square-{n}").read_text() for n in range(20)] == [str(n * n) for n in range(20)]
    assert len({pid for pid, *_ in log(store)}) == 2


def test_an_item_is_accepted_only_while_a_lane_is_free(start, store):
    executor = start()
    items = [stage("wait", n=n) for n in range(3)]
    for item in items[:2]:
        assert executor.can_accept(item)
        executor.submit(item)
    assert not executor.can_accept(items[2])
    assert executor.poll(0.0) == []
    assert executor.running() == 2
    (store / "go").touch()
    done = []
    while executor.running():
        done += executor.poll(0.25)
    assert {receipt.item_id for receipt in done} == {item.item_id for item in items[:2]}
    assert executor.can_accept(items[2])


def test_what_befalls_an_item_is_its_receipt_and_the_lanes_go_on(start, store):
    executor = start()
    hung = stage("sleep", seconds=600, timeout_s=0.5)
    items = {"die": stage("die"), "fail": stage("fail"), "escape": stage("escape"), "full": stage("full")}
    others = [stage("square", value=n) for n in range(6)]
    receipts = run(executor, [hung, *items.values(), *others])
    failures = {name: receipts[item.item_id].failure for name, item in items.items()}
    assert {name: failure.kind for name, failure in failures.items()} == {
        "die": "killed",
        "fail": "exception",
        "escape": "exception",
        "full": "out_of_memory",
    }
    assert failures["escape"].error == "RuntimeError: a lane that breaks its promise"
    assert "ray_test_lanes.py" in failures["escape"].traceback
    assert "\n" not in failures["die"].error
    assert receipts[hung.item_id].failure == Failure("timeout", "no result within 0.5 s")
    assert [receipts[item.item_id].failure for item in others] == [None] * 6
    assert executor.running() == 0


def test_a_lane_that_gave_out_of_memory_is_replaced(start, store):
    executor = start()
    run(executor, [stage("full"), stage("square", value=1)])
    run(executor, [stage("square", value=n) for n in range(2, 8)])
    lines = log(store)
    full = next(pid for pid, *words in lines if words == ["stage"])
    assert [pid for pid, *_ in lines].count(full) == 1


def test_a_bundles_limit_is_its_trials_times_one_trials_limit():
    from harness.execute.ray_dispatch import GRACE_S, time_limit

    trials = tuple(Trial(f"t{n}", spec()) for n in range(3))
    assert time_limit(BundleItem(trials, timeout_s=10.0)) == 30.0 + GRACE_S
    assert time_limit(federation("f", timeout_s=10.0)) == 10.0 + GRACE_S
    assert time_limit(stage("square")) is None


def test_an_item_bigger_than_every_node_is_refused_and_one_with_too_much_memory_runs_alone(start):
    executor = start()
    big = stage("square", value=2, resources=Resources(cpus=64))
    hungry = [stage("square", value=n, resources=Resources(memory_mib=10**9)) for n in (3, 4)]
    assert executor.can_accept(hungry[0])
    executor.submit(hungry[0])
    assert not executor.can_accept(hungry[1])
    receipts = run(executor, [big, hungry[1]], first=hungry[0])
    assert receipts[big.item_id].failure.error == "expected a node with 64 CPUs (`resources:`), got 2 at most"
    assert all(receipts[item.item_id].failure is None for item in hungry)


def test_lanes_of_another_size_make_room_for_each_other(start, store):
    executor = start()
    small = [stage("square", value=n) for n in range(4)]
    wide = [stage("square", value=n, resources=Resources(cpus=2)) for n in range(10, 13)]
    run(executor, small)
    run(executor, wide)
    run(executor, [stage("square", value=20)])
    pids = {words[-1]: pid for pid, *words in log(store)}
    assert len({pids[str(n)] for n in (10, 11, 12)}) == 1
    assert pids["20"] not in {pids[str(n)] for n in (10, 11, 12)}


def test_cancelling_stops_at_once_and_gives_no_receipts(start):
    executor = start()
    executor.submit(stage("sleep", seconds=600))
    executor.submit(federation("f", clients=40, rounds=100))
    executor.poll(2.0)
    executor.cancel_all()
    assert executor.running() == 0
    assert executor.poll(0.0) == []
    assert run(executor, [stage("square", value=1)])


def test_a_gpu_item_is_given_a_gpu_and_does_not_fall_back_to_the_cpu(start, store):
    import ray
    import torch

    executor = start("ray_test_lanes:GrantedLane")
    able = stage("wait", resources=Resources(gpus=0.5))
    executor.submit(able)
    wait_for(lambda: ray.available_resources().get("GPU") == 0.5, executor)
    (store / "go").touch()
    receipt = run(executor, [], first=able)[able.item_id]
    granted = [words[1:] for _, *words in log(store) if words[0] == "granted"]
    assert granted == [["1.0", "0", "0"], ["0", "0.5", "1"]]
    if not torch.cuda.is_available():
        assert receipt.failure.kind == "device"
        assert receipt.failure.error.startswith("expected a working CUDA device, got: ")
        assert ["stage"] not in [words for _, *words in log(store)]


def test_on_the_cpu_a_gpu_item_takes_a_cpu_lane(start, store):
    executor = start(device="cpu")
    assert executor.describe() == "2 lanes on 1 node (2 CPU)"
    run(executor, [stage("square", value=3, resources=Resources(gpus=1))])
    assert (store / "square-3").read_text() == "9"


@pytest.mark.parametrize("uri", ["artifacts", "private"])
def test_a_store_that_lanes_cannot_write_is_refused_at_the_start(start, store, uri):
    (store.parent / uri).rmdir() if uri == "artifacts" else None
    (store.parent / uri).write_text("not a folder")
    with pytest.raises(UsageError, match=uri):
        start()


def test_a_node_whose_lane_cannot_even_start_is_named(start):
    with pytest.raises(UsageError, match=r"node .*: .*no_such_module"):
        start("no_such_module:Lane")
