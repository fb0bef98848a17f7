"""Which trials have an evaluator, and what its key holds."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import fl.data
from fl.cards import DataInfo
from fl.seeds import Streams
from fl.specs import Plugin, Task
from harness.config.matrix import load_matrix
from harness.metrics.evaluator_costs import steps_for
from harness.metrics.evaluator_network import EvaluatorNetwork
from harness.metrics.evaluator_stage import evaluator_stages, unjudged
from harness.metrics.evaluator_training import Training
from harness.plan.planner import make_plan

MATRIX = """
version: 1
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 2, batch_size: 16, algorithm: fedavg, lr: 0.1}
  observe: {kind: global_model}
  threat_model: {position: participant}
  targets: 2
matrix:
  attack: [random_guess]
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "m.yaml"
    path.write_text(MATRIX)
    (planned,) = make_plan(load_matrix(path), {}).todo
    return planned.spec


def with_data(spec, name="digits", **config):
    card = fl.data.DATASETS.get(name)
    return replace(spec, data=Plugin(name, card.version, card.config(**{"size": 8} | config)))


def key(spec):
    (request,) = evaluator_stages(spec)
    return request.key


def test_the_judge_alone_gets_it(spec):
    (request,) = evaluator_stages(spec)
    assert (request.kind, request.name, request.judge, request.kept_private) == (
        "evaluator",
        "evaluator",
        True,
        True,
    )


def test_its_work_is_about_what_torch_counts(spec, counted_mflop):
    (request,) = evaluator_stages(spec)
    part = fl.data.load(spec.data).part("evaluation")
    network, average = EvaluatorNetwork(1, 8, 10), EvaluatorNetwork(1, 8, 10)
    training = Training(network, average, 300, Streams(0), torch.device("cpu"))
    chosen = training.draw(len(part))
    step = counted_mflop(lambda: training.step(part.images(chosen), part.labels[chosen]))
    assert request.work.evaluations == steps_for(len(part))
    assert request.work.mflop == pytest.approx(step * steps_for(len(part)), rel=0.2)


@pytest.mark.parametrize("kind", ["update", "aggregate"])
def test_who_sees_updates_needs_none(spec, kind):
    assert evaluator_stages(replace(spec, observe=spec.observe.model_copy(update={"kind": kind}))) == []


def test_a_recorded_observation_has_none(spec):
    assert evaluator_stages(replace(spec, data=None, model=None, federation=None)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"targets": 5},
        {"attacker": "adaptive"},
        {"model": Plugin("mlp", 1, fl.data.DATASETS.get("digits").config(size=8))},
        {"attack": Plugin("mean_image", 1, fl.data.DATASETS.get("digits").config(size=8))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_its_key_holds_the_data_alone(spec, change):
    assert key(replace(spec, **change)) == key(spec)


@pytest.mark.parametrize(
    "config", [{"private_labels": (0, 1)}, {"public_labels": (5, 6)}, {"normalise": "dataset"}]
)
def test_what_moves_no_evaluation_image_shares_it(spec, config):
    assert key(with_data(spec, **config)) == key(spec)


@pytest.mark.parametrize(
    "config",
    [{"evaluation_labels": (0, 1, 2)}, {"test_labels": (0, 1)}, {"size": 16}, {"task_classes": 12}],
)
def test_what_it_is_trained_or_tested_on_is_in_its_key(spec, config):
    assert key(with_data(spec, **config)) != key(spec)


def info(task, evaluation):
    images = {"private": 100, "public": 10, "evaluation": evaluation, "test": 10}
    return DataInfo(task, 1, 8, images, public=True, fingerprint="f")


def test_why_there_is_none():
    assert "binary task" in unjudged(info(Task("binary", 2), 100))
    assert "multilabel task" in unjudged(info(Task("multilabel", 5), 100))
    assert "got 9 images" in unjudged(info(Task("multiclass", 10), 9))
    assert unjudged(info(Task("multiclass", 10), 10)) is None


def test_it_is_read_without_torch_or_numpy():
    code = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
import harness.metrics.evaluator_stage
"""
    subprocess.run([sys.executable, "-c", code], check=True)
