"""What the judge measures reconstructions against: floors, ceiling, controls."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.metrics.judge import Judge
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.targets import BlindTarget
from harness.testing.small_scores import (
    IDS,
    MARKED,
    NO_LPIPS,
    PRIVATE,
    SHAPE,
    assert_well_formed,
    context,
    draw,
    noisy_targets,
    score,
    target,
    unexplained,
)


def test_floors_name_the_best_guess_without_an_observation():
    public = context().public
    targets = [target("a", [0, 1]), target("b", [2])]
    columns = score(targets).columns
    truth = PRIVATE[:3].double()
    expected = (truth - public.mean_image.double()).square().mean((1, 2, 3)).mean().item()
    assert columns["floor_mse"] == pytest.approx(expected)
    named = json.loads(columns["floor"])
    assert named["mse"] == named["psnr_db"] == "mean_image"
    without = score(targets, public=None).columns
    assert set(json.loads(without["floor"]).values()) == {"random_guess"}
    assert without["floor_mse"] > columns["floor_mse"]
    assert unexplained(without) == []


def test_floors_do_not_depend_on_the_reconstruction():
    def floors(reconstruction):
        columns = score([target("a", [0, 1], reconstruction)]).columns
        return {name: value for name, value in columns.items() if name.startswith("floor")}

    assert floors(PRIVATE[:2]) == floors(draw(2, seed=6))


def test_the_ceiling_is_what_the_client_trained_on():
    protected = (PRIVATE[:2] + 0.1).clamp(0, 1)
    changed = score([target("a", [0, 1], protected=protected)]).columns
    expected = (PRIVATE[:2] - protected).double().square().mean().item()
    assert changed["ceiling_mse"] == pytest.approx(expected)
    unchanged = score([target("a", [0, 1], draw(2, seed=7))]).columns
    assert (unchanged["ceiling_mse"], unchanged["ceiling_psnr_db"]) == (0, 100)
    assert unchanged["ceiling_identification_top1"] == 1


def test_the_oracle_constant_is_the_images_own_mean():
    columns = score([target("a", [0, 1])]).columns
    expected = PRIVATE[:2].double().flatten(1).var(1, correction=0).mean().item()
    assert columns["oracle_constant_mse"] == pytest.approx(expected, rel=1e-6)


def test_the_shuffled_control_scores_against_another_target():
    a, b = target("a", [0]), target("b", [1])
    a, b = (replace(t, recovered_labels=torch.tensor(t.labels)) for t in (a, b))
    columns = score([a, b]).columns
    expected = (PRIVATE[0] - PRIVATE[1]).double().square().mean().item()
    assert columns["shuffled_mse"] == pytest.approx(expected)
    assert columns["shuffled_identification_top1"] == 0
    assert (columns["label_accuracy"], columns["shuffled_label_accuracy"]) == (1, 0)


def test_the_shuffled_control_leaves_out_shared_images():
    a, b = target("a", [0, 1]), target("b", [1, 2])
    columns = score([a, b]).columns
    pairs = [(PRIVATE[[0, 1]], PRIVATE[2]), (PRIVATE[[1, 2]], PRIVATE[0])]
    nearest = [(guess - other).double().square().mean((1, 2, 3)).min().item() for guess, other in pairs]
    assert columns["shuffled_mse"] == pytest.approx(np.mean(nearest))
    same = score([target("a", [0]), target("b", [0])])
    assert_well_formed(same)
    assert same.columns["shuffled_mse"] is None


def test_one_target_has_neither_control_nor_interval():
    result = score([target("a", [0, 1])])
    assert_well_formed(result)
    assert result.columns["shuffled_mse"] is None
    assert result.columns["mse_ci_low"] is None
    reasons = json.loads(result.columns["null_reasons"])
    assert "two targets" in reasons["shuffled_*"]
    assert "two targets" in reasons["*_ci_*"]


def test_known_yardsticks_change_no_bit(perceptual):
    changes = {"regions": MARKED, "gallery": Gallery(IDS, PRIVATE, tuple(index // 4 for index in range(40)))}
    judge, where = Judge(perceptual), context(**changes)
    exact = [replace(one, reconstruction=one.truth) for one in noisy_targets()]
    lost = [replace(one, reconstruction=torch.full_like(one.truth, math.nan)) for one in noisy_targets()]
    yardsticks = judge.yardsticks(exact, context=where)
    for targets in (lost, noisy_targets(), exact, noisy_targets()):
        known = judge.score(targets, context=where, yardsticks=yardsticks)
        assert known == score(targets, Judge(perceptual), **changes)


def test_blind_targets_keep_their_rows_and_get_floors():
    targets = [
        BlindTarget(
            "a", torch.cat([draw(1, seed=5), torch.full((1, *SHAPE), math.nan)]), torch.tensor([4, 2])
        )
    ]
    judge = Judge(NO_LPIPS)
    result = judge.score_blind(
        targets, context=context(gallery=Unavailable("none")), reason="no secret in the file"
    )
    assert_well_formed(result)
    assert result.columns["mse"] is None
    assert result.columns["n_targets"] == 1
    assert json.loads(result.columns["null_reasons"])["*"] == "no secret in the file"
    assert (
        1 / 15 < result.columns["floor_mse"] < 1 / 6
    )  # uniform images: 1/12 from their mean, 1/6 from noise
    assert [row["finite"] for row in result.reconstructions] == [True, False]
    assert [row["label"] for row in result.reconstructions] == ["4", "2"]
    bare = judge.score_blind(targets, context=context(public=None), reason="no evaluator")
    assert_well_formed(bare)
    assert bare.columns["floor_mse"] is None
