"""Items for the tests of the Ray executor, and a run loop without retries."""

from __future__ import annotations

import time
from pathlib import Path

from fl.cards import Resources, StageRequest
from fl.specs import FederationSpec, NoConfig, ObserveSpec, Plugin, ThreatModel, TrialSpec
from harness.execute.work import FederationItem, Receipt, StageItem

FOLDER = str(Path(__file__).parent)
"""Where lanes' processes find `ray_test_lanes`."""

NOTHING = Plugin("none", 1, NoConfig())


def spec(federation: FederationSpec | None = None) -> TrialSpec:
    return TrialSpec(
        data=NOTHING,
        model=NOTHING,
        federation=federation or FederationSpec(),
        defense=NOTHING,
        noise_budget=0.0,
        threat_model=ThreatModel(),
        attacker="static",
        attack=NOTHING,
        observe=ObserveSpec(),
        targets=1,
        seed=7,
    )


def stage(
    do: str, *, timeout_s: float | None = None, resources: Resources | None = None, **config
) -> StageItem:
    request = StageRequest(
        "s", "stage", "nowhere:nothing", 1, {"do": do, **config}, resources=resources or Resources()
    )
    return StageItem(request, spec(), timeout_s)


def federation(key: str, **fields) -> FederationItem:
    timeout_s = fields.pop("timeout_s", None)
    return FederationItem(key, spec(FederationSpec(**fields)), timeout_s=timeout_s)


def run(executor, items, *, first=None, seconds: float = 60.0) -> dict[str, Receipt]:
    """Do as the run loop does; every item, and the `first` submitted before, must be answered once."""
    waiting, receipts = list(items), {}
    items = [*items, *([first] if first else [])]
    deadline = time.monotonic() + seconds
    while waiting or executor.running():
        while ready := next((item for item in waiting if executor.can_accept(item)), None):
            waiting.remove(ready)
            executor.submit(ready)
        for receipt in executor.poll(0.25):
            assert receipt.item_id not in receipts
            receipts[receipt.item_id] = receipt
        assert time.monotonic() < deadline, f"no end: {receipts}"
    assert receipts.keys() == {item.item_id for item in items}
    return receipts


def log(store: Path) -> list[list[str]]:
    return [line.split() for line in (store / "log").read_text().splitlines()]


def wait_for(condition, executor, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        executor.poll(0.1)
        assert time.monotonic() < deadline
