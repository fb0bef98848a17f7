"""Regions, the prior and whose images they are, from data and model to the columns of a row."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from fl.data import DATASETS, Dataset
from fl.data.digits import load as load_digits

STUDY = """
defaults:
  data: {name: %s, size: 12}
  model: {name: convnet, width: 4}
  federation: {clients: 4, rounds: 0, batch_size: 2}
  targets: 6
matrix:
  attack: [mean_image]
  defense: [none, {name: input_noise, sigma: 0.2}]
"""
METRICS = (
    "region_mse",
    "region_psnr_db",
    "region_ssim",
    "outside_mse",
    "outside_ssim",
    "rdlv",
    "iip_1",
    "iip_5",
)


def load_marked(config):
    """Digits whose upper half is sensitive."""
    data = load_digits(config)
    private = data.part("private")

    def regions(indices):
        marks = torch.zeros(len(indices), 1, config.size, config.size, dtype=torch.bool)
        marks[:, :, : config.size // 2] = True
        return marks

    return Dataset(
        replace(data.info, regions=True), {**data.parts, "private": replace(private, read_regions=regions)}
    )


@pytest.fixture
def marked(register):
    digits = DATASETS.get("digits")
    card = replace(
        digits,
        name="marked",
        implementation=f"{__name__}:load_marked",
        describe=lambda config: replace(digits.describe(config), regions=True),
    )
    register(DATASETS, card)


def test_where_nothing_is_marked_the_model_says_what_matters(rows_of, folder):
    rows = rows_of(STUDY % "digits").set_index("defense")
    assert set(rows["region_source"]) == {"grad_cam"}
    assert rows["region_share"].between(0.01, 0.3).all()
    for name in METRICS:
        for column in (name, f"{name}_ci_low", f"floor_{name}", f"ceiling_{name}", f"shuffled_{name}"):
            assert rows[column].notna().all(), column
    assert rows["rdlv"].tolist() == pytest.approx([0, 0], abs=1e-6)  # the mean image is the prior
    assert rows.loc["none", "ceiling_region_psnr_db"] == 100
    assert rows.loc["none", "ceiling_iip_1"] == 1
    assert 10 < rows.loc["input_noise", "ceiling_region_psnr_db"] < 20
    images = pd.read_parquet(folder / "reconstructions")
    defined = images["region_mse"].notna()
    assert defined.any()  # an image at which nothing speaks for its class has no region
    assert (images["outside_mse"].notna() == defined).all()
    assert images[["iip_1", "iip_5"]].notna().all().all()


def test_marks_of_the_data_set_come_first(rows_of, marked, folder):
    rows = rows_of(STUDY % "marked")
    assert set(rows["region_source"]) == {"data_set"}
    assert set(rows["region_share"]) == {0.5}
    images = pd.read_parquet(folder / "reconstructions")
    both = (images["region_mse"] + images["outside_mse"]) / 2
    assert both.tolist() == pytest.approx(images["mse"].tolist())


def test_every_image_has_its_holder(workshop, trials_of):
    spec = trials_of(STUDY % "digits")[0].spec
    federation = workshop().materials.federation(spec)
    ids = federation.data.part("private").ids
    for client in range(4):
        held = {ids[p] for p, holder in federation.holders.items() if holder == client}
        assert held == set(federation.client(client).data.image_ids)
