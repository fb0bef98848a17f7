import subprocess
import sys

import pytest

from harness.metrics import METRICS
from harness.metrics.catalog import reconstruction_columns, trial_columns, worst

NAMED_BY_DESIGN = ["mse", "psnr_db", "ssim", "lpips", "success_rate", "identification_top1", "label_accuracy"]

DISTANCES = ("lpips", "lpips_alex", "lpips_vgg", "feature_distance", "mse_r")
EVALUATED_DISTANCES = ("knn_distance", "centre_distance", "evaluator_fid")


def test_cards_and_columns_are_read_without_torch_or_numpy():
    code = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from harness.metrics import METRICS
from harness.metrics.catalog import reconstruction_columns, trial_columns
assert METRICS.names() and list(trial_columns()) and list(reconstruction_columns())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns_that_scripts_rely_on():
    names = [column.name for column in trial_columns()]
    assert len(names) == len(set(names))
    for metric in NAMED_BY_DESIGN:
        suffixes = ("", "_ci_low", "_ci_high", "_median", "_p95", "_max")
        assert {f"{metric}{suffix}" for suffix in suffixes} <= set(names)
    image = [column.name for column in reconstruction_columns()]
    assert len(image) == len(set(image))
    assert {"target_id", "matched_index", "mse", "psnr_db", "ssim", "lpips"} <= set(image)


def test_columns_of_published_tables():
    names = {column.name for column in trial_columns()} & {column.name for column in reconstruction_columns()}
    assert {"mse_i", "psnr_ref_db", "mse_r", "lpips_alex", "lpips_vgg"} <= names
    assert [card.name for card in METRICS if card.on_request] == ["lpips_vgg"]


def test_what_an_evaluator_measures_has_a_ceiling_and_no_interval():
    names = {column.name for column in trial_columns()}
    evaluated = [card.column for card in METRICS if card.evaluated]
    assert {
        "attack_top1",
        "attack_top5",
        "knn_distance",
        "centre_distance",
        "evaluator_fid",
        "precision",
        "recall",
        "density",
        "coverage",
        "pairwise_distance",
    } == set(evaluated)
    for column in evaluated:
        assert [name for name in names if name.endswith(column) and name != column] == [f"ceiling_{column}"]
        assert not [name for name in names if name.startswith(f"{column}_")]
    assert {"evaluator_accuracy", "n_reconstructions"} <= names
    image = {column.name: column.type for column in reconstruction_columns()}
    assert image["evaluator_label"] == "int"
    assert image["evaluator_confidence"] == "float"
    assert image["hit"] == "bool"


@pytest.mark.parametrize("name", METRICS.names())
def test_every_implementation_exists_and_bounds_are_ordered(name):
    card = METRICS.get(name)
    assert callable(METRICS.implementation(name))
    assert None in (card.lower, card.upper) or card.lower < card.upper
    # only what is measured relative to the prior has no end on the side that leaks least, nor has a distance
    assert (worst(card) is None) == (name in ("rdlv", *DISTANCES, *EVALUATED_DISTANCES))


def test_worst_is_the_end_that_leaks_least():
    assert worst(METRICS.get("psnr_db")) == 0
    assert worst(METRICS.get("mse")) == 1
    assert worst(METRICS.get("ssim")) == -1
    assert worst(METRICS.get("lpips")) is None
