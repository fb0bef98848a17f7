"""Small matrices of real trials, and where they are computed in this process."""

from __future__ import annotations

import importlib
import textwrap
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
import torch

import fl.data
from attacks import ATTACKS
from defenses import DEFENSES
from fl.cards import AttackCard, DataCard, DefenseCard, ManipulationCard
from fl.manipulations import MANIPULATIONS
from harness.cli.main import run as bench
from harness.config.matrix import load_matrix
from harness.execute.lane import Meter
from harness.execute.materials import Materials
from harness.execute.schedule import Limits
from harness.execute.score import Scorer
from harness.execute.session import RunRequest, inline, run_matrix
from harness.execute.work import Trial
from harness.metrics import evaluator_costs
from harness.plan.planner import make_plan
from harness.store.artifacts import ArtifactStore

PLUGINS = [Path(__file__).parent / folder for folder in ("plugins", "later_kinds")]
REGISTRIES = {
    DataCard: fl.data.DATASETS,
    AttackCard: ATTACKS,
    DefenseCard: DEFENSES,
    ManipulationCard: MANIPULATIONS,
}
DEFAULTS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 2, batch_size: 1}
  targets: 2
"""


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
def plugin(register, monkeypatch):
    """Import a module of `plugins/` or `later_kinds/` and register its cards."""
    for folder in PLUGINS:
        monkeypatch.syspath_prepend(folder)

    def add(name):
        module = importlib.import_module(name)
        for card in vars(module).values():
            if type(card) in REGISTRIES and card.origin == name:
                register(REGISTRIES[type(card)], card)
        return module

    return add


@pytest.fixture
def moody(plugin):
    """The moody attack, which has solved nothing so far."""
    module = plugin("moody")
    module.SOLVED.clear()
    return module


@pytest.fixture
def folder(tmp_path):
    """Where `run` and `rows_of` put the experiment."""
    return tmp_path / "results" / "small"


@pytest.fixture
def run(write_matrix, listener, folder):
    """Run the text of a matrix as the experiment `small` and return how it ended."""

    def start(text, *, watch=listener, **options):
        matrix = load_matrix(write_matrix(text))
        return run_matrix(RunRequest(matrix, folder.parent, inline, **options), watch)

    return start


@pytest.fixture
def trials(folder):
    """Read the rows of `trials/`; no trial may have two."""

    def read():
        rows = pd.read_parquet(folder / "trials")
        assert not rows["trial_id"].duplicated().any()
        return rows

    return read


@pytest.fixture
def rows_of(write_matrix, folder, trials):
    """Run the text of a matrix with `bench run`; return its rows of `trials/`, which are all complete."""

    def start(text):
        options = ["--results", str(folder.parent), "--executor", "inline", "--progress", "none"]
        assert bench(["run", str(write_matrix(text)), *options]) == 0
        rows = trials()
        assert set(rows["status"]) == {"complete"}
        return rows

    return start


@pytest.fixture
def hasty_judge(monkeypatch):
    """An evaluator that trains for ten steps: how well it judges does not matter here."""
    monkeypatch.setattr(evaluator_costs, "LEAST_STEPS", 10)
    monkeypatch.setattr(evaluator_costs, "MOST_STEPS", 10)
