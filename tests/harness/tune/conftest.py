"""Small studies of real trials, computed in this process."""

from __future__ import annotations

import importlib
import shutil
import textwrap
from collections import defaultdict
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attacks import ATTACKS
from defenses import DEFENSES
from fl.cards import AttackCard, DefenseCard
from harness.execute import score
from harness.execute.session import inline
from harness.metrics.pairs import Unavailable
from harness.results import load
from harness.tune.document import load_tuning
from harness.tune.session import TuneRequest, run_tuning

PLUGINS = Path(__file__).parent / "plugins"
HEAD = """
version: 1
name: small
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
"""
BODY = """
attacks: [{name: idlg, iterations: 1}]
attackers: [static, adaptive]
space:
  gaussian: {noise_budget: {float: [1e-4, 1], log: true}}
  pruning: {ratio: {float: [0.1, 0.9]}, variant: {choice: [standard, as_released]}}
objectives: {accuracy: maximize, leakage: minimize}
constraints: {accuracy_drop: {max: 0.2}}
sampler: {name: tpe, startup: 2}
trials: 5
parallel: 2
"""


@pytest.fixture
def write_study(tmp_path):
    """From the text of a tune file to the file; without `defaults:` of its own it gets small ones."""

    def write(text=BODY, name="study"):
        body = textwrap.dedent(text)
        path = tmp_path / f"{name}.yaml"
        path.write_text(body if "version:" in body else f"{HEAD}{body}")
        return path

    return write


class Watch:
    """Notes all that a study tells."""

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

    def resumed(self, standing):
        self.events["resumed"].append(standing)

    def optuna_trial(self, done, standing):
        self.events["optuna_trial"].append((done, standing))


@pytest.fixture
def watch():
    """A listener."""
    return Watch()


@pytest.fixture
def run(write_study, tmp_path):
    """From the text of a tune file to what the command would return."""

    def start(text=BODY, *, results="results", watch=None, **options):
        tuning = load_tuning(write_study(text))
        return run_tuning(TuneRequest(tuning, tmp_path / results, inline, **options), watch or Watch())

    return start


@pytest.fixture
def body():
    """The small study of most tests."""
    return BODY


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of that study, run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "study.yaml"
    path.write_text(f"{HEAD}{BODY}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "_perceptual", lambda: Unavailable("LPIPS is left out of these tests"))
        result, _ = run_tuning(TuneRequest(load_tuning(path), folder, inline), Watch())
    assert (result.exit_code, result.told) == (0, {"complete": 5})
    return folder / "small"


@pytest.fixture
def finished(whole, folder):
    """A copy of that folder where `run` works."""
    shutil.copytree(whole, folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Where the study is stored."""
    return tmp_path / "results" / "small"


@pytest.fixture
def rows(folder):
    """Read the stored trials."""
    return lambda: load(folder, tables=()).trials


@pytest.fixture
def journal():
    """Open a study by Optuna's own API."""

    def read(folder, name="small"):
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        return optuna.load_study(storage=storage, study_name=name)

    return read


@pytest.fixture
def plugin(register, monkeypatch):
    """Import a module of `plugins/` and register its card for the time of a test."""
    monkeypatch.syspath_prepend(str(PLUGINS))

    def add(name):
        module = importlib.import_module(name)
        register({AttackCard: ATTACKS, DefenseCard: DEFENSES}[type(module.CARD)], module.CARD)
        return module

    return add
