"""One torch thread for every test: more change bits and, on small tensors, cost ten times the time."""

import torch

torch.set_num_threads(1)
