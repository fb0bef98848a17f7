"""Evaluators: trained on few images, the same every time, blind to what else they look at."""

from dataclasses import replace

import pytest
import torch

import fl.data
from fl.data.base import Part
from fl.errors import BenchError, DataUnavailableError
from fl.seeds import Streams
from fl.specs import Plugin
from fl.stage_context import StageContext
from harness.metrics import evaluator as module
from harness.metrics.evaluator import load, train
from harness.metrics.evaluator_costs import network_mflop, steps_for
from harness.metrics.evaluator_network import FEATURES, EvaluatorNetwork
from harness.metrics.evaluator_training import warp

CPU = torch.device("cpu")


class StoppedError(Exception):
    """A training that is interrupted."""


def context(parts, **changes):
    def build(state):
        raise AssertionError("an evaluator builds no attacked model")

    return StageContext(Streams(0), CPU, None, build, lambda share, words: None, part=parts, **changes)


def few(part, number):
    """The first images of a part."""
    ids, labels = part.ids[:number], part.labels[:number]
    return Part(ids, labels, None, part.images)


@pytest.fixture(scope="module")
def digits():
    card = fl.data.DATASETS.get("digits")
    return fl.data.load(Plugin("digits", card.version, card.config(size=8)))


@pytest.fixture(scope="module")
def artifact(digits):
    return train({"classes": 10}, {}, context(digits.part))


@pytest.fixture(scope="module")
def evaluator(artifact):
    return load(artifact)


def test_digits_are_told_apart(artifact, evaluator, digits):
    test = digits.part("test")
    named = evaluator.see_part(test, list(range(len(test)))).named
    accuracy = (named == test.labels).double().mean().item()
    assert accuracy >= 0.97
    assert artifact.data["accuracy"] == evaluator.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert artifact.data["images"] == len(digits.part("evaluation"))
    assert evaluator.labels == set(range(10))


@pytest.fixture
def short(monkeypatch):
    """A training of six steps that keeps its state every two."""
    monkeypatch.setattr(module, "steps_for", lambda images: 6)
    monkeypatch.setattr("fl.generators.resumable.KEEP_EVERY", 2)


def weights_of(parts, **changes):
    return train({"classes": 10}, {}, context(parts, **changes)).tensors


def test_training_again_gives_the_same_weights(digits, short):
    one, other = weights_of(digits.part), weights_of(digits.part)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_interrupted_training_goes_on_to_the_same_weights(digits, short):
    kept = []

    def stop(share, words):
        if share >= 5 / 6:
            raise StoppedError

    interrupted = replace(context(digits.part, keep=kept.append), progress=stop)
    with pytest.raises(StoppedError):
        train({"classes": 10}, {}, interrupted)
    assert [artifact.data["done"] for artifact in kept] == [2, 4]
    resumed, whole = weights_of(digits.part, kept=lambda: kept[-1]), weights_of(digits.part)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_one_that_diverges_ends_in_its_own_stage(digits, short):
    def lost(name):
        part = digits.part(name)
        return Part(part.ids, part.labels, None, lambda indices: part.images(indices) * torch.nan)

    with pytest.raises(BenchError, match=r"after 2 steps of evaluator training, .*evaluation images"):
        train({"classes": 10}, {}, context(lost))


def test_faces_of_many_people_are_a_task_like_any_other(short):
    """RGB images of 64 pixels, two of each of 60 people."""
    images = torch.rand(120, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    ids = tuple(f"face-{index}" for index in range(120))
    part = Part(ids, torch.arange(120) % 60, None, lambda indices: images[list(indices)])
    artifact = train({"classes": 61}, {}, context(lambda name: part))
    assert artifact.data["labels"] == list(range(60))
    views = load(artifact).see_part(part, [5, 70])
    assert views.features.shape == (2, FEATURES)
    assert views.probabilities.shape == (2, 61)
    assert views.labels.tolist() == [5, 10]


def test_two_classes_are_needed(digits):
    part = digits.part("evaluation")
    zeros = [p for p, label in enumerate(part.labels.tolist()) if label == 0]
    only = Part(
        tuple(part.ids[p] for p in zeros),
        part.labels[zeros],
        None,
        lambda i: part.images([zeros[k] for k in i]),
    )
    with pytest.raises(DataUnavailableError, match="at least 2, got 1"):
        train({"classes": 10}, {}, context(lambda name: only))


def test_without_test_images_the_accuracy_is_not_known(digits, short):
    parts = {"evaluation": digits.part("evaluation"), "test": few(digits.part("test"), 0)}
    artifact = train({"classes": 10}, {}, context(parts.__getitem__))
    assert artifact.data["accuracy"] is None
    assert load(artifact).accuracy is None


def test_what_it_sees_of_an_image_does_not_depend_on_the_others(artifact, digits):
    part = digits.part("test")
    images, labels = part.images(range(70)), part.labels[:70]
    together = load(artifact).see(images, labels)
    alone = load(artifact).see(images[66:67], labels[66:67])
    assert torch.equal(together.features[66], alone.features[0])
    assert torch.equal(together.probabilities[66], alone.probabilities[0])
    assert together.features.shape == (70, FEATURES)
    assert torch.allclose(together.probabilities.sum(1), torch.ones(70).double())


def test_features_enter_the_last_layer(evaluator, digits):
    images, labels = digits.part("test").images(range(5)), digits.part("test").labels[:5]
    views, head = evaluator.see(images, labels), evaluator.network.head
    logits = views.features.float() @ head.weight.T + head.bias
    assert torch.allclose(logits.softmax(1).double(), views.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, 8, 2), (1, 28, 10), (3, 33, 7), (3, 64, 1000), (1, 5, 3)]
)
def test_networks_for_all_sizes(channels, size, classes, counted_mflop):
    network = EvaluatorNetwork(channels, size, classes).eval()
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    assert network.features(images).shape == (2, FEATURES)
    assert network(images).shape == (2, classes)
    assert network_mflop(channels, size, classes) == pytest.approx(counted_mflop(lambda: network(images)) / 2)


def test_steps_grow_with_the_images_within_bounds():
    assert (steps_for(10), steps_for(750), steps_for(10**6)) == (300, 938, 4000)


def test_warping_a_flat_image_leaves_it_flat():
    images = torch.full((20, 3, 12, 12), 0.3)
    assert torch.allclose(warp(images, torch.Generator().manual_seed(0)), images, atol=1e-6)


def test_warped_images_all_differ_and_none_is_mirrored():
    image = torch.zeros(32, 32)
    image[:, 16:] = 1.0
    warped = warp(image.expand(200, 1, 32, 32), torch.Generator().manual_seed(1))[:, 0]
    assert 0 <= warped.min() < warped.max() <= 1
    assert len({one.numpy().tobytes() for one in warped}) == 200
    assert (warped[:, :, :6].mean((1, 2)) < warped[:, :, -6:].mean((1, 2)) - 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "least"), [("digits", 16, 0.98), ("mnist5k", 32, 0.975)])
def test_digits_at_the_sizes_of_the_studies(name, size, least):
    card = fl.data.DATASETS.get(name)
    try:
        dataset = fl.data.load(Plugin(name, card.version, card.config(size=size)))
    except DataUnavailableError as error:
        pytest.skip(str(error))
    assert train({"classes": 10}, {}, context(dataset.part)).data["accuracy"] >= least
