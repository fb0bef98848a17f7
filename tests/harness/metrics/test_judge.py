"""The judge on batches of all kinds: rows, means over them, labels, what was missed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fl.errors import BenchError
from fl.seeds import Streams
from harness.metrics import comparison
from harness.metrics.judge import Judge
from harness.testing.small_scores import (
    NO_LPIPS,
    PRIVATE,
    SHAPE,
    assert_well_formed,
    draw,
    first_pixels,
    noisy_targets,
    score,
    target,
)


def test_exact_reconstructions():
    result = score([target("a", [0, 1]), target("b", [2, 3])])
    assert_well_formed(result)
    columns = result.columns
    assert (columns["mse"], columns["psnr_db"], columns["success_rate"]) == (0, 100, 1)
    assert columns["ssim"] == pytest.approx(1)
    assert (columns["identification_top1"], columns["feature_distance"]) == (1, 0)
    assert (columns["psnr_db_ci_low"], columns["psnr_db_ci_high"]) == (100, 100)
    assert (columns["n_targets"], columns["n_images"], columns["n_missed"]) == (2, 4, 0)
    gallery = ("identification_gallery", "identification_chance", "identification_distance")
    assert [columns[name] for name in gallery] == [40, 1 / 40, "pixel_mse"]


def test_aggregates_are_those_of_the_image_rows():
    result = score(noisy_targets())
    assert_well_formed(result)
    for name in ("mse", "psnr_db", "ssim", "ncc", "feature_distance", "aligned_psnr_db"):
        values = [row[name] for row in result.reconstructions]
        assert len(values) == 6
        assert result.columns[name] == pytest.approx(np.mean(values))
        assert result.columns[f"{name}_median"] == pytest.approx(np.median(values))
        assert result.columns[f"{name}_p95"] == pytest.approx(np.percentile(values, 95))
        assert result.columns[f"{name}_max"] == max(values)
        assert result.columns[f"{name}_ci_low"] < result.columns[name] < result.columns[f"{name}_ci_high"]
    errors = [(r["mse"], r["psnr_db"]) for r in result.reconstructions]
    for error, psnr in errors:
        assert psnr == pytest.approx(-10 * math.log10(error))


def test_the_order_of_a_batch_does_not_matter():
    order = [2, 0, 3, 1]
    guess = (PRIVATE[:4] + 0.1 * draw(4, seed=5)).clamp(0, 1)
    straight = target("a", [0, 1, 2, 3], guess)
    shuffled = target("a", [0, 1, 2, 3], guess[order])
    other = target("b", [4, 5])
    one, two = score([straight, other]), score([shuffled, other])
    assert one.columns == two.columns
    matched = [row["matched_index"] for row in two.reconstructions[:4]]
    assert matched == order


def test_a_score_does_not_depend_on_what_was_scored_before():
    judge = Judge(NO_LPIPS)
    alone = score(noisy_targets())
    score([target("x", [9, 8, 7], draw(5, seed=2))], judge)
    assert score(noisy_targets(), judge) == alone


def test_reconstructions_that_are_not_finite_count_as_worst():
    guess = PRIVATE[[0, 1]].clone()
    guess[1, 0, 3, 3] = math.nan
    result = score([target("a", [0, 1], guess), target("b", [2], torch.full((1, *SHAPE), math.inf))])
    assert_well_formed(result)
    rows = {(row["target_id"], row["reconstruction_index"]): row for row in result.reconstructions}
    assert [rows[key]["finite"] for key in sorted(rows)] == [True, False, False]
    for key in (("a", 1), ("b", 0)):
        row = rows[key]
        assert row["matched_index"] == key[1]
        assert (row["mse"], row["psnr_db"], row["ssim"], row["success_rate"]) == (1, 0, -1, 0)
        assert row["identification_top1"] == 0
        assert row["feature_distance"] > 0  # that of random noise, since it has no largest value
    assert rows["a", 0]["mse"] == 0
    assert result.columns["n_missed"] == 2
    assert result.columns["success_rate"] == pytest.approx(1 / 3)
    assert result.columns["mse"] == pytest.approx(2 / 3)


def test_unbounded_distances_of_missed_images_are_those_of_noise():
    lost = target("a", [0], torch.full((1, *SHAPE), math.nan))
    noise = torch.rand(1, *SHAPE, generator=Streams(7).torch("floor", target="a"))
    expected = (first_pixels(PRIVATE[:1]) - first_pixels(noise)).norm().item()
    assert score([lost]).columns["feature_distance"] == pytest.approx(expected, rel=1e-6)


def test_fewer_reconstructions_than_images():
    result = score([target("a", [0, 1, 2], PRIVATE[[1]]), target("b", [3], PRIVATE[:0])])
    assert_well_formed(result)
    assert len(result.reconstructions) == 1
    assert result.reconstructions[0]["image_id"] == "p1"
    assert (result.columns["n_images"], result.columns["n_missed"]) == (4, 3)
    assert result.columns["success_rate"] == 0.25
    assert result.columns["psnr_db"] == 25.0


def test_more_reconstructions_than_images():
    result = score([target("a", [0], torch.cat([draw(2, seed=3), PRIVATE[:1]]))])
    assert_well_formed(result)
    assert [row["matched_index"] for row in result.reconstructions] == [None, None, 0]
    assert result.reconstructions[0]["mse"] is None
    assert result.columns["mse"] == 0


def test_an_empty_batch_adds_nothing():
    result = score([target("a", [], draw(1, seed=4)), target("b", [3], PRIVATE[[3]])])
    assert_well_formed(result)
    assert result.columns["n_images"] == 1
    assert result.columns["psnr_db"] == 100
    nothing = score([target("a", []), target("b", [])])
    assert_well_formed(nothing)
    assert nothing.columns["mse"] is None


def test_values_outside_the_range_are_clamped():
    black = target("a", [0], torch.full((1, *SHAPE), -5.0))
    truth = PRIVATE[0].double()
    assert score([black]).columns["mse"] == pytest.approx(truth.square().mean().item())


def test_reconstructions_may_come_straight_from_an_optimizer():
    guess = draw(1, seed=3).double().requires_grad_()
    assert score([target("a", [0], guess)]) == score([target("a", [0], guess.detach().float())])


def test_large_batches_are_measured_in_parts(monkeypatch):
    together = score(noisy_targets(n=4, size=3))
    monkeypatch.setattr(comparison, "VALUES_AT_ONCE", 2 * 256)
    apart = score(noisy_targets(n=4, size=3))
    assert apart.columns["floor"] == together.columns["floor"]
    for name, value in together.columns.items():
        if isinstance(value, float):
            assert apart.columns[name] == pytest.approx(value, rel=1e-12), name


def test_labels_are_rows_and_a_share():
    right = target("a", [0, 1], recovered_labels=torch.tensor([1, 0]))  # truth: 0, 1
    half = target("b", [3, 5], recovered_labels=torch.tensor([0, 1]))  # truth: 0, 2
    result = score([right, half])
    assert result.columns["label_accuracy"] == 0.75
    assert [row["label"] for row in result.reconstructions] == ["1", "0", "0", "1"]
    assert [row["true_label"] for row in result.reconstructions] == ["0", "1", "0", "2"]
    multilabel = target("c", [0], labels=((1, 0, 1),), recovered_labels=torch.tensor([[1.0, 0.0, 1.0]]))
    result = score([multilabel])
    assert result.columns["label_accuracy"] == 1
    assert result.reconstructions[0]["true_label"] == result.reconstructions[0]["label"] == "[1, 0, 1]"


def test_success_counts_images_from_20_db():
    steps = torch.tensor([0.05, 0.09, 0.11, 0.5]).view(-1, 1, 1, 1)
    truth = torch.full((4, *SHAPE), 0.25)
    one = replace(target("a", [0, 1, 2, 3]), truth=truth, reconstruction=truth + steps)
    assert score([one]).columns["success_rate"] == 0.5


def test_another_shape_is_an_error():
    with pytest.raises(
        BenchError, match="target a: expected reconstructions of shape 1 x 16 x 16, got 3 x 16 x 16"
    ):
        target("a", [0], draw(1, seed=1, shape=(3, 16, 16)))
