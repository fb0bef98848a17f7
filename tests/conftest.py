"""Settings of all tests: what passes once passes again.

One torch thread: more change bits and, on small tensors, cost ten times the time. Hypothesis draws the same
examples every time. Run by several processes (`make test`), a file's tests stay together, and so do all that
start Ray, of which a machine should have one at a time.
"""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
