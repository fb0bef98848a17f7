"""What work items are called where people read of them."""

from __future__ import annotations

from harness.execute.work import BundleItem, FederationItem, WorkItem


def difference(again: WorkItem, before: WorkItem) -> str:
    """Return how another try differs from the last one in the solver's lanes, if it does."""
    if not isinstance(again, BundleItem) or not isinstance(before, BundleItem):
        return ""
    if again.lane_limit == before.lane_limit:
        return ""
    return f" with at most {again.lane_limit} side by side" if again.lane_limit else " one after the other"


def named(item: WorkItem) -> str:
    """Return an item's name for people."""
    match item:
        case BundleItem():
            spec = item.trials[0].spec
            return f"{spec.attack.name} on {spec.defense.name} ({len(item.trials)} trials)"
        case FederationItem():
            return f"federation under {item.spec.defense.name}, seed {item.spec.seed}"
        case _:
            return f"{item.request.kind} {item.request.name}"
