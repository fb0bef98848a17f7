"""Cards of the pixel metrics inside and outside an image's sensitive region; read without torch or numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fl.cards import MetricCard
from fl.specs import NoConfig
from harness.metrics.declare import PSNR_CAP_DB, metric_card

REGION_SHARE = 0.3
"""Share of an image's pixels that Grad-CAM's region has at most: those where the map is largest."""

RegionSource = Literal["data_set", "grad_cam"]
"""Who says where the region is: the data set (lesions), or Grad-CAM of the true class by the model sent."""


def _cards(prefix: str, where: str) -> Iterator[MetricCard[NoConfig]]:
    yield metric_card(
        f"{prefix}_mse",
        f"Mean squared error of the pixels {where} the image's sensitive region.",
        f"regions:{prefix}_mse",
        leaks_more="lower",
        bounds=(0.0, 1.0),
    )
    yield metric_card(
        f"{prefix}_psnr_db",
        f"PSNR of the pixels {where} the image's sensitive region, data range 1; {PSNR_CAP_DB:g} dB at most.",
        f"regions:{prefix}_psnr_db",
        leaks_more="higher",
        bounds=(0.0, PSNR_CAP_DB),
        unit="dB",
    )
    yield metric_card(
        f"{prefix}_ssim",
        f"Structural similarity, mean over the windows centred {where} the image's sensitive region.",
        f"regions:{prefix}_ssim",
        leaks_more="higher",
        bounds=(-1.0, 1.0),
    )


REGION_CARDS: tuple[MetricCard[NoConfig], ...] = (*_cards("region", "inside"), *_cards("outside", "outside"))
