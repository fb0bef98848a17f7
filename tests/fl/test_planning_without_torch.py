"""What the planner reads of `fl` imports neither torch nor numpy."""

import subprocess
import sys

CODE = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from fl.candidate_bounds import most_candidates
from fl.cards import DataInfo
from fl.manipulations import MANIPULATIONS
from fl.models import MODELS
from fl.specs import FederationSpec, ObserveSpec, Task
info = DataInfo(Task("multiclass", 10), 1, 28, {}, True, "x")
for card in MODELS:
    assert card.traits(card.config(), info).mflop_per_image > 0
spec = FederationSpec(clients=10, batch_size=4)
bound = most_candidates(spec, ObserveSpec(), images_private=95, labels=10)
print(bound, len(MANIPULATIONS.names()))
"""


def test_cards_and_bounds_are_read_without_torch():
    answer = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)

    assert answer.stdout == "31 0\n"
