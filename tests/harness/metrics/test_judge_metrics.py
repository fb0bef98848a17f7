"""Metrics in a trial's score: what they need, those measured on request, those from elsewhere."""

import json
import math
from dataclasses import replace

import pytest
import torch

from fl.cards import MetricCard
from fl.specs import NoConfig
from harness.metrics import METRICS
from harness.metrics.judge import Judge
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.targets import ScoredTarget
from harness.testing.small_scores import (
    NO_LPIPS,
    PRIVATE,
    SHAPE,
    assert_well_formed,
    draw,
    first_pixels,
    noisy_targets,
    public_data,
    score,
    target,
)


def test_what_cannot_be_had_is_null_with_its_reason():
    result = score(
        [target("a", [0])],
        gallery=Unavailable("no gallery here"),
        features=Unavailable("no features here"),
        regions=Unavailable("no regions here"),
        public=None,
    )
    assert_well_formed(result)
    columns = result.columns
    reasons = json.loads(columns["null_reasons"])
    for name, words in [
        ("lpips", "no weights here"),
        ("feature_distance", "no features here"),
        ("identification_top1", "no gallery here"),
        ("region_mse", "no regions here"),
        ("outside_ssim", "no regions here"),
        ("rdlv", "there are no public images"),
        ("iip_3", "no gallery here"),
    ]:
        assert columns[name] is None
        assert columns[f"floor_{name}"] is None
        assert reasons[f"*{name}*"] == words
    assert columns["label_accuracy"] is None
    assert "recovers no labels" in reasons["*label_accuracy*"]


def test_small_images_say_what_they_were_upsampled_to():
    small = draw(4, seed=8, shape=(1, 8, 8))
    gallery = Gallery(("a", "b", "c", "d"), small)
    one = ScoredTarget("t", small[:1], ("a",), (0,), reconstruction=small[:1])
    columns = score([one], gallery=gallery, public=public_data(small[2:])).columns
    assert (columns["ssim_upsampled_to"], columns["lpips_upsampled_to"]) == (16, 64)
    assert columns["ssim"] == pytest.approx(1)
    large = draw(2, seed=9, shape=(3, 32, 32))
    one = ScoredTarget("t", large[:1], ("a",), (0,), reconstruction=large[:1])
    columns = score([one], gallery=Gallery(("a", "b"), large), public=None).columns
    assert (columns["ssim_upsampled_to"], columns["lpips_upsampled_to"]) == (None, None)


def test_lpips_is_filled_with_weights(perceptual):
    result = score(noisy_targets(), Judge(perceptual))
    assert_well_formed(result)
    columns = result.columns
    assert 0 < columns["lpips"] < columns["floor_lpips"]
    assert columns["ceiling_lpips"] == 0
    assert columns["lpips_upsampled_to"] == 64
    two_channels = draw(3, seed=3, shape=(2, 16, 16))
    one = ScoredTarget("t", two_channels[:1], ("a",), (0,), reconstruction=two_channels[:1])
    columns = score(
        [one], Judge(perceptual), gallery=Unavailable("none"), public=public_data(two_channels)
    ).columns
    assert columns["lpips"] is None
    assert "not 2" in json.loads(columns["null_reasons"])["*lpips*"]


def test_a_metric_on_request_is_null_until_somebody_asks(perceptual, perceptual_vgg):
    columns = score(noisy_targets(), Judge(perceptual, vgg=perceptual_vgg)).columns
    assert columns["lpips_vgg"] is None
    assert columns["floor_lpips_vgg"] is None
    why = "lpips_vgg is measured on request: `metrics: [lpips_vgg]` in the matrix"
    assert json.loads(columns["null_reasons"])["*lpips_vgg*"] == why
    asked = score(noisy_targets(), Judge(perceptual, vgg=perceptual_vgg), asked=frozenset({"lpips_vgg"}))
    assert_well_formed(asked)
    assert "*lpips_vgg*" not in json.loads(asked.columns["null_reasons"])
    assert asked.columns["ceiling_lpips_vgg"] == 0 < asked.columns["lpips_vgg"]
    assert asked.columns["lpips_vgg"] < asked.columns["floor_lpips_vgg"]
    same = [name for name in columns if "lpips_vgg" not in name and name not in ("floor", "null_reasons")]
    assert [asked.columns[name] for name in same] == [columns[name] for name in same]


def test_a_metric_that_was_asked_for_and_cannot_be_had_says_why():
    judge = Judge(NO_LPIPS, vgg=Unavailable("no VGG here"))
    columns = score(noisy_targets(), judge, asked=frozenset({"lpips_vgg"})).columns
    assert json.loads(columns["null_reasons"])["*lpips_vgg*"] == "no VGG here"


def test_columns_of_published_tables_by_hand(perceptual):
    result = score(noisy_targets(), Judge(perceptual))
    columns, images = result.columns, result.reconstructions
    assert columns["mse_i"] == pytest.approx(4 * columns["mse"], rel=1e-12)
    assert columns["psnr_ref_db"] == pytest.approx(columns["psnr_db"] - 20 * math.log10(2), abs=1e-12)
    assert columns["lpips_alex"] == columns["lpips"]
    dimensions = first_pixels(PRIVATE).shape[1]
    expected = [row["feature_distance"] ** 2 / dimensions for row in images]
    assert [row["mse_r"] for row in images] == pytest.approx(expected, rel=1e-9)


THIRD_PARTY = """
import math
import torch

def gap(pairs):
    values = (pairs.truth.amin((1, 2, 3)) - pairs.guess.amin((1, 2, 3))).abs().double()
    return torch.where(pairs.truth.mean((1, 2, 3)) > 0.5, math.nan, values)
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch, register):
    """A metric from elsewhere: difference of the darkest pixels, undefined for bright images."""
    (tmp_path / "darkest_metric.py").write_text(THIRD_PARTY)
    monkeypatch.syspath_prepend(tmp_path)
    card = MetricCard(
        name="darkest",
        version=1,
        summary="Difference of the darkest pixels.",
        config=NoConfig,
        implementation="darkest_metric:gap",
        kind="pair",
        column="darkest_gap",
        unit="",
        leaks_more="lower",
        lower=0.0,
        upper=1.0,
    )
    register(METRICS, card)
    return card


def test_a_third_partys_metric_gets_all_its_columns(third_party):
    dark, bright = torch.full((1, *SHAPE), 0.2), torch.full((1, *SHAPE), 0.8)
    one = replace(target("a", [0]), truth=dark, reconstruction=dark + 0.1)
    two = replace(target("b", [1]), truth=bright, reconstruction=bright)
    result = score([one, two])
    assert_well_formed(result)
    assert result.columns["darkest_gap"] == pytest.approx(0.1)
    assert [row["darkest_gap"] for row in result.reconstructions] == [pytest.approx(0.1), None]
    assert result.columns["darkest_gap_ci_low"] is None
    only_bright = score([two])
    assert_well_formed(only_bright)
    assert only_bright.columns["darkest_gap"] is None
