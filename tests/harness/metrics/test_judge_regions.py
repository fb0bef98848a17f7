"""Sensitive regions, the prior and the clients' images in a trial's score."""

import json

import numpy as np
import pytest
import torch

from harness.metrics.pairs import Gallery
from harness.metrics.regions import Regions
from harness.testing.small_scores import (
    IDS,
    MARKED,
    PRIVATE,
    assert_well_formed,
    draw,
    noisy_targets,
    score,
    target,
)


def test_regions_the_prior_and_the_clients_images_are_measured_with_all_yardsticks():
    clients = tuple(index // 4 for index in range(40))
    gallery = Gallery(IDS, PRIVATE, clients)
    result = score(noisy_targets(), regions=MARKED, gallery=gallery)
    assert_well_formed(result)
    columns = result.columns
    for name in ("region_mse", "region_psnr_db", "region_ssim", "outside_mse", "rdlv", "iip_3"):
        values = [row[name] for row in result.reconstructions if row[name] is not None]
        assert len(values) == 6 or name == "rdlv"  # undefined where noise is unlike the mean of noise
        assert columns[name] == pytest.approx(np.mean(values))
        for yardstick in ("floor", "ceiling", "shuffled", "oracle_constant"):
            assert columns[f"{yardstick}_{name}"] is not None
    row = result.reconstructions[0]
    mask, squares = MARKED.masks[row["image_id"]], (PRIVATE[0] - noisy_targets()[0].reconstruction[0]) ** 2
    assert row["region_mse"] == pytest.approx(squares[0][mask].double().mean().item(), rel=1e-5)
    assert (columns["ceiling_region_mse"], columns["ceiling_iip_1"]) == (0, 1)
    assert columns["floor_rdlv"] >= 0  # that of the mean public image is 0
    masks = torch.stack([MARKED.masks[name] for name in IDS])
    assert (columns["region_source"], columns["region_share"]) == (
        "data_set",
        pytest.approx(masks.double().mean()),
    )


def test_the_ceiling_lies_inside_and_outside_the_region():
    masks = {name: mask.clone() for name, mask in MARKED.masks.items()}
    protected = PRIVATE[:1].lerp(1 - PRIVATE[:1], 0.5 * (~masks["p0"]).float())
    columns = score([target("a", [0], protected=protected)], regions=MARKED).columns
    assert columns["ceiling_region_psnr_db"] == 100
    expected = (PRIVATE[0] - protected[0]).double()[0][~masks["p0"]].square().mean().item()
    assert columns["ceiling_outside_mse"] == pytest.approx(expected)


def test_images_without_a_region_are_left_out_of_its_mean():
    masks = {**MARKED.masks, "p1": torch.zeros(16, 16, dtype=torch.bool)}
    result = score([target("a", [0, 1], draw(2, seed=3))], regions=Regions("grad_cam", masks))
    assert_well_formed(result)
    marked, unmarked = sorted(result.reconstructions, key=lambda row: row["image_id"])
    assert unmarked["region_mse"] is None is unmarked["outside_psnr_db"]
    assert result.columns["region_mse"] == marked["region_mse"]
    none = score([target("a", [1], draw(1, seed=3))], regions=Regions("grad_cam", masks))
    assert_well_formed(none)
    assert none.columns["region_mse"] is None
    assert "undefined for every image" in json.loads(none.columns["null_reasons"])["*region_mse*"]
