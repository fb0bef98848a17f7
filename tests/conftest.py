"""Settings of all tests: what passes once passes again.

One torch thread: more change bits and, on small tensors, cost ten times the time. Hypothesis draws the same
examples every time.
"""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
