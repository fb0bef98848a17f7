"""The judge of model inversion: rows and columns from what an evaluator sees."""

import json
import math

import pytest
import torch

from fl.data.base import Part
from fl.errors import BenchError
from fl.seeds import Streams
from harness.metrics import METRICS
from harness.metrics.evaluator import Evaluator
from harness.metrics.evaluator_network import EvaluatorNetwork, initialise
from harness.metrics.inversion_judge import (
    NO_FLOOR,
    NO_HELD_OUT,
    InvertedTarget,
    Reference,
    score_inversion,
    score_unjudged,
)
from harness.testing.small_scores import assert_fits_the_tables

CLASSES, SIDE = 7, 8
STREAMS = Streams(5)


def draw(n, seed):
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def part(images, labels, prefix):
    ids = tuple(f"{prefix}-{index}" for index in range(len(images)))
    return Part(ids, torch.tensor(labels), None, lambda indices: images[list(indices)])


PRIVATE = part(draw(24, 1), [0, 1, 2] * 8, "private")
TEST = part(draw(30, 2), [0, 1, 2, 3, 4] * 6, "test")


@pytest.fixture(scope="module")
def evaluator():
    network = EvaluatorNetwork(1, SIDE, CLASSES)
    initialise(network, STREAMS.torch("weights"))
    return Evaluator(network.eval().requires_grad_(False), frozenset(range(CLASSES)), 0.875)


@pytest.fixture
def reference(evaluator):
    def make(held_out=TEST, labels=(0, 1)):
        positions = [p for p, label in enumerate(PRIVATE.labels.tolist()) if label in labels]
        real = evaluator.see_part(PRIVATE, positions)
        return Reference(evaluator, real, tuple(PRIVATE.ids[p] for p in positions), held_out, (1, SIDE, SIDE))

    return make


def target(label, images, recovered=None):
    return InvertedTarget(f"label{label}", images, recovered, label=label)


def two(samples=4):
    return [target(1, draw(samples, 11)), target(0, draw(samples, 10))]


def evaluated(columns, prefix=""):
    return {card.name: columns[f"{prefix}{card.column}"] for card in METRICS if card.evaluated}


def test_every_measure_and_its_ceiling(reference):
    score = score_inversion(two(), reference(), streams=STREAMS)
    assert_fits_the_tables(score)
    columns = score.columns
    assert None not in evaluated(columns).values()
    assert None not in evaluated(columns, "ceiling_").values()
    assert columns["evaluator_accuracy"] == 0.875
    assert (columns["n_targets"], columns["n_reconstructions"], columns["n_missed"]) == (2, 8, 0)
    assert columns["n_images"] is None
    hits = [row["hit"] for row in score.reconstructions]
    assert columns["attack_top1"] == sum(hits) / 8


def test_what_has_no_meaning_says_so(reference):
    columns = score_inversion(two(), reference(), streams=STREAMS).columns
    reasons = json.loads(columns["null_reasons"])
    assert "no single true image" in reasons["*"]
    assert reasons["floor_*"] == NO_FLOOR
    for name in ("psnr_db", "floor_psnr_db", "ceiling_ssim", "shuffled_mse", "lpips_ci_low", "floor"):
        assert columns[name] is None


def test_rows_name_what_the_evaluator_takes_them_for(reference, evaluator):
    given, against = two(), reference()
    rows = score_inversion(given, against, streams=STREAMS).reconstructions
    images = torch.cat([one.reconstruction for one in given])
    labels = torch.tensor([1] * 4 + [0] * 4)
    views = evaluator.see(images, labels)
    real = evaluator.see_part(PRIVATE, list(range(len(PRIVATE))))
    for position, row in enumerate(rows):
        assert row["target_id"] == f"label{labels[position]}"
        assert row["reconstruction_index"] == position % 4
        assert row["true_label"] == str(int(labels[position]))
        named = int(views.probabilities[position].argmax())
        assert row["evaluator_label"] == named
        assert row["evaluator_confidence"] == float(views.probabilities[position, named])
        assert row["hit"] == (named == labels[position])
        own = [p for p in range(len(PRIVATE)) if PRIVATE.labels[p] == labels[position]]
        distances = [(real.features[p] - views.features[position]).norm() for p in own]
        assert row["image_id"] == PRIVATE.ids[own[int(torch.stack(distances).argmin())]]
        assert row["psnr_db"] is None


def test_private_images_themselves_are_as_good_as_it_gets(reference):
    images = [target(label, PRIVATE.images()[PRIVATE.labels == label]) for label in (0, 1)]
    score = score_inversion(images, reference(), streams=STREAMS)
    assert score.columns["knn_distance"] == 0
    assert score.columns["evaluator_fid"] == pytest.approx(0, abs=1e-9)
    assert score.columns["precision"] == score.columns["recall"] == score.columns["coverage"] == 1
    expected = [PRIVATE.ids[p] for label in (0, 1) for p in range(24) if PRIVATE.labels[p] == label]
    assert [row["image_id"] for row in score.reconstructions] == expected


def test_the_ceiling_is_of_held_out_images_of_the_same_classes(reference):
    columns = score_inversion(two(), reference(), streams=STREAMS).columns
    chosen = []
    for label in (1, 0):
        candidates = torch.arange(30)[TEST.labels == label].numpy()
        stream = STREAMS.numpy("ceiling", target=f"label{label}")
        chosen.append(target(label, TEST.images(stream.permutation(candidates)[:4].tolist())))
    real = score_inversion(chosen, reference(), streams=STREAMS).columns
    assert evaluated(columns, "ceiling_") == evaluated(real)
    other = score_inversion([target(1, draw(4, 70)), target(0, draw(4, 71))], reference(), streams=STREAMS)
    assert evaluated(other.columns, "ceiling_") == evaluated(columns, "ceiling_")
    assert evaluated(other.columns) != evaluated(columns)


def test_fewer_held_out_images_than_reconstructions_all_count(reference):
    columns = score_inversion(two(samples=20), reference(), streams=STREAMS).columns
    whole = [target(label, TEST.images()[TEST.labels == label]) for label in (1, 0)]
    expected = score_inversion(whole, reference(), streams=STREAMS).columns
    assert columns["ceiling_knn_distance"] == pytest.approx(expected["knn_distance"], rel=1e-12)
    assert columns["ceiling_recall"] == expected["recall"]


def test_without_held_out_images_ceilings_say_why(reference):
    others = part(draw(6, 3), [4, 5] * 3, "test")
    columns = score_inversion(two(), reference(others), streams=STREAMS).columns
    assert set(evaluated(columns, "ceiling_").values()) == {None}
    assert None not in evaluated(columns).values()
    assert json.loads(columns["null_reasons"])["ceiling_recall"] == NO_HELD_OUT


def test_images_that_are_not_finite_are_misses(reference):
    good = score_inversion(two(), reference(), streams=STREAMS)
    broken = two()
    spoilt = broken[0].reconstruction.clone()
    spoilt[1, 0, 3, 3] = math.nan
    spoilt[2] = math.inf
    score = score_inversion([target(1, spoilt), broken[1]], reference(), streams=STREAMS)
    assert_fits_the_tables(score)
    assert score.columns["n_missed"] == 2
    assert [row["finite"] for row in score.reconstructions] == [True, False, False] + [True] * 5
    for position in (1, 2):
        row = score.reconstructions[position]
        assert (row["hit"], row["evaluator_label"], row["evaluator_confidence"]) == (False, None, None)
        assert row["image_id"] is None
    for position in (0, 3, 4, 5, 6, 7):
        assert score.reconstructions[position] == good.reconstructions[position]
    assert evaluated(score.columns, "ceiling_") == evaluated(good.columns, "ceiling_")
    again = score_inversion([target(1, spoilt), broken[1]], reference(), streams=STREAMS)
    assert again == score


def test_images_out_of_range_are_clamped(reference):
    wide = [target(one.label, 3 * one.reconstruction - 1) for one in two()]
    clamped = [target(one.label, one.reconstruction.clamp(0, 1)) for one in wide]
    assert score_inversion(wide, reference(), streams=STREAMS) == score_inversion(
        clamped, reference(), streams=STREAMS
    )


def test_one_image_of_a_class_leaves_little_to_measure(reference):
    columns = score_inversion([target(0, draw(1, 4))], reference(labels=(0,)), streams=STREAMS).columns
    null = {name for name, value in evaluated(columns).items() if value is None}
    assert null == {"evaluator_fid", "precision", "recall", "density", "coverage", "pairwise_distance"}
    assert null <= set(json.loads(columns["null_reasons"]))


def test_images_of_another_shape_are_refused(reference):
    wrong = target(0, torch.zeros(2, 1, SIDE, SIDE + 1))
    with pytest.raises(BenchError, match="expected reconstructions of shape 1 x 8 x 8, got 1 x 8 x 9"):
        score_inversion([wrong], reference(), streams=STREAMS)


def test_no_images_at_all(reference):
    score = score_inversion([target(0, torch.zeros(0, 1, SIDE, SIDE))], reference(), streams=STREAMS)
    assert_fits_the_tables(score)
    assert json.loads(score.columns["null_reasons"])["*"] == "the attack made no images"
    assert score.columns["n_reconstructions"] == 0


def test_what_cannot_be_judged_keeps_its_rows():
    images = torch.cat([draw(1, 1), torch.full((1, 1, SIDE, SIDE), math.nan)])
    score = score_unjudged([target(0, images, torch.tensor([0, 0]))], "a binary task", streams=STREAMS)
    assert_fits_the_tables(score)
    assert json.loads(score.columns["null_reasons"]) == {"*": "a binary task", "floor_*": NO_FLOOR}
    assert score.columns["n_missed"] == 1
    assert [row["finite"] for row in score.reconstructions] == [True, False]
    assert [row["hit"] for row in score.reconstructions] == [None, None]
