"""Small matrices of real trials, and where they are computed in this process."""

from __future__ import annotations

import textwrap
from collections import defaultdict

import pytest
import torch

from harness.config.matrix import load_matrix
from harness.execute import score
from harness.execute.lane import Meter
from harness.execute.materials import Materials
from harness.execute.schedule import Limits
from harness.execute.score import Scorer
from harness.execute.work import Trial
from harness.metrics.pairs import Unavailable
from harness.plan.planner import make_plan
from harness.store.artifacts import ArtifactStore

DEFAULTS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 2, batch_size: 1}
  targets: 2
"""


@pytest.fixture(autouse=True)
def _no_lpips(monkeypatch):
    """LPIPS has tests of its own; here it would only be downloaded and take time."""
    monkeypatch.setattr(score, "_perceptual", lambda: Unavailable("LPIPS is left out of these tests"))


@pytest.fixture
def write_matrix(tmp_path):
    """From the text of a matrix to its file; without `defaults:` of its own it gets small ones."""

    def write(text, name="small"):
        body = textwrap.dedent(text)
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"version: 1\n{'' if 'defaults:' in body else DEFAULTS}{body}")
        return path

    return write


@pytest.fixture
def trials_of(write_matrix):
    """From the text of a matrix to its trials."""

    def read(text):
        plan = make_plan(load_matrix(write_matrix(text)), {})
        return [Trial(planned.trial_id, planned.spec) for planned in plan.todo]

    return read


class Workshop:
    """What a lane computes with, over stores in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.store = ArtifactStore(folder / "artifacts")
        self.private = ArtifactStore(folder / "private")
        self.materials = Materials(self.store, self.private, torch.device("cpu"))
        self.scorer = Scorer(self.materials, str(folder / "private"))

    @property
    def meter(self):
        return Meter(torch.device("cpu"))


@pytest.fixture
def workshop(tmp_path):
    """Make what a lane computes with; another name is another machine's."""
    return lambda name="here": Workshop(tmp_path / name)


@pytest.fixture
def declared_limits():
    """Every plug-in gets what its card declares."""
    return lambda kind, name, declared: Limits(declared)


class Listener:
    """Notes all that a run tells (`harness.execute.events.RunListener`)."""

    def __init__(self):
        self.events = defaultdict(list)

    def started(self, total, lanes, description):
        self.events["started"].append((total, lanes, description))

    def progress(self, progress):
        self.events["progress"].append(progress)

    def trial(self, done):
        self.events["trial"].append(done)

    def message(self, text):
        self.events["message"].append(text)

    def finished(self, result):
        self.events["finished"].append(result)


@pytest.fixture
def listener():
    """One run's listener."""
    return Listener()


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
