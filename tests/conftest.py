"""Settings of all tests: what passes once passes again.

One torch thread: more change bits and, on small tensors, cost ten times the time. Hypothesis draws the same
examples every time, however long they take. Run by several processes (`make test`), a file's tests stay
together, and so do all that start Ray, of which a machine should have one at a time.
"""

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

torch.set_num_threads(1)
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


class _Operations(TorchDispatchMode):
    """Adds up what torch says that its operations cost; its own counter cannot follow second derivatives."""

    total = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if (cost := flop_registry.get(func._overloadpacket)) is not None:
            self.total += cost(*args, **(kwargs or {}), out_val=found) / 1e6
        return found


@pytest.fixture
def counted_mflop():
    """From a computation to its multiply-adds, in millions times two, as torch counts them."""

    def count(compute):
        with _Operations() as operations:
            compute()
        return operations.total

    return count


@pytest.fixture
def register():
    """Add cards to registries for the time of a test."""
    added = []

    def add(registry, card):
        registry.register(card)
        added.append((registry, card.name))

    yield add
    for registry, name in added:
        registry.unregister(name)
