"""The built-in measures of leakage: what they are, which way leaks more, and the columns they fill.

Read without torch or numpy. Columns hold the plain value of a metric, whichever way leaks more: `mse_max` is
the largest error, so the image that leaked least, and `psnr_db_max` is that of the image that leaked most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from fl.cards import MetricCard
from harness.metrics import METRICS
from harness.metrics.cards_identity import IDENTITY_CARDS
from harness.metrics.cards_inversion import INVERSION_CARDS
from harness.metrics.cards_published import PUBLISHED_CARDS
from harness.metrics.cards_region import REGION_CARDS, RegionSource
from harness.metrics.declare import PSNR_CAP_DB, metric_card

__all__ = [
    "CARDS",
    "IDENTIFICATION_DISTANCE",
    "LPIPS_MIN_SIZE",
    "LPIPS_UPSAMPLED_SIZE",
    "PSNR_CAP_DB",
    "SPREADS",
    "SSIM_MIN_SIZE",
    "SUCCESS_DB",
    "YARDSTICKS",
    "Column",
    "RegionSource",
    "Yardstick",
    "reconstruction_columns",
    "trial_columns",
    "worst",
    "yardsticks_of",
]

SUCCESS_DB = 20.0
"""PSNR from which an image counts as reconstructed in `success_rate`."""

IDENTIFICATION_DISTANCE = "pixel_mse"
"""The distance by which a reconstruction looks up the gallery."""

SSIM_MIN_SIZE = 16
"""Images with a shorter side are upsampled (bilinear) until it has this many pixels before SSIM."""

LPIPS_MIN_SIZE = 31
"""Smallest side that AlexNet's feature layers can take."""

LPIPS_UPSAMPLED_SIZE = 64
"""Shorter side to which images below `LPIPS_MIN_SIZE` are upsampled (bilinear): LPIPS was calibrated on
64-pixel patches (Zhang et al. 2018, section 2)."""

Yardstick = Literal["floor", "ceiling", "shuffled", "oracle_constant"]
YARDSTICKS: tuple[Yardstick, ...] = ("floor", "ceiling", "shuffled", "oracle_constant")
"""What a metric is compared with; `floor_mse` and so on hold its mean there, on the same targets."""

SPREADS = ("ci_low", "ci_high", "median", "p95", "max")
"""What `<metric>_<spread>` columns hold besides the mean in `<metric>`."""


class Column(NamedTuple):
    """A column of a results table; every one may be null.

    Attributes:
        name: Its name.
        type: What it holds.
        description: What that means, for people.
    """

    name: str
    type: Literal["float", "int", "str", "bool"]
    description: str


CARDS = (
    metric_card(
        "mse",
        "Mean squared error of pixels in [0, 1].",
        "image:mse",
        leaks_more="lower",
        bounds=(0.0, 1.0),
    ),
    metric_card(
        "psnr_db",
        f"Peak signal-to-noise ratio, data range 1; {PSNR_CAP_DB:g} dB at most.",
        "image:psnr_db",
        leaks_more="higher",
        bounds=(0.0, PSNR_CAP_DB),
        unit="dB",
    ),
    metric_card(
        "ssim",
        "Structural similarity, Gaussian 11 x 11, sigma 1.5, data range 1, mean over channels.",
        "image:ssim",
        leaks_more="higher",
        bounds=(-1.0, 1.0),
        reference="Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural "
        "Similarity, IEEE Transactions on Image Processing 13(4)",
    ),
    metric_card(
        "lpips",
        "Learned perceptual distance on AlexNet's features (version 0.1).",
        "perceptual:lpips",
        leaks_more="lower",
        bounds=(0.0, None),
        reference="Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual "
        "Metric, arXiv 1801.03924",
    ),
    metric_card(
        "feature_distance",
        "Euclidean distance of the observed model's penultimate features.",
        "features:feature_distance",
        leaks_more="lower",
        bounds=(0.0, None),
    ),
    metric_card(
        "ncc",
        "Normalised cross-correlation: blind to brightness and contrast.",
        "image:ncc",
        leaks_more="higher",
        bounds=(-1.0, 1.0),
    ),
    metric_card(
        "success_rate",
        f"Share of images reconstructed at {SUCCESS_DB:g} dB or more.",
        "image:success",
        leaks_more="higher",
        bounds=(0.0, 1.0),
    ),
    metric_card(
        "identification_top1",
        "Share of images whose reconstruction is nearest to them in a gallery of private images.",
        "identification:identification_top1",
        leaks_more="higher",
        bounds=(0.0, 1.0),
    ),
    metric_card(
        "aligned_psnr_db",
        "PSNR after the best circular shift and left-right mirroring of the reconstruction.",
        "alignment:aligned_psnr_db",
        leaks_more="higher",
        bounds=(0.0, PSNR_CAP_DB),
        unit="dB",
    ),
    metric_card(
        "aligned_ssim",
        "SSIM at the alignment of `aligned_psnr_db`.",
        "alignment:aligned_ssim",
        leaks_more="higher",
        bounds=(-1.0, 1.0),
    ),
    metric_card(
        "aligned_ncc",
        "Normalised cross-correlation at the alignment of `aligned_psnr_db`.",
        "alignment:aligned_ncc",
        leaks_more="higher",
        bounds=(-1.0, 1.0),
    ),
    metric_card(
        "label_accuracy",
        "Share of a target's private labels recovered, in any order.",
        "labels:label_accuracy",
        leaks_more="higher",
        bounds=(0.0, 1.0),
        kind="set",
    ),
    *REGION_CARDS,
    *IDENTITY_CARDS,
    *PUBLISHED_CARDS,
    *INVERSION_CARDS,
)


def yardsticks_of(card: MetricCard[Any]) -> tuple[Yardstick, ...]:
    """Return what a metric is compared with.

    Labels have no floor, ceiling or constant image. Model inversion has real images for a ceiling, and for a
    floor an attack of its own.
    """
    if card.evaluated:
        return ("ceiling",)
    return YARDSTICKS if card.kind == "pair" else ("shuffled",)


def worst(card: MetricCard[Any]) -> float | None:
    """Return the value that leaks least, or None where the metric has no bound on that side."""
    return card.lower if card.leaks_more == "higher" else card.upper


def trial_columns() -> Iterator[Column]:
    """Yield every column that `judge.TrialScore.columns` fills, in order."""
    for card in METRICS:
        yield from _metric_columns(card)
    yield Column("floor", "str", "JSON: by metric, the floor that leaks most and fills `floor_<metric>`")
    yield Column("identification_gallery", "int", "images in the gallery")
    yield Column("identification_chance", "float", "identification_top1 of a guess: 1 / gallery")
    yield Column("identification_distance", "str", "distance by which the gallery is searched")
    yield Column("region_source", "str", "where the sensitive regions come from: `data_set` or `grad_cam`")
    yield Column("region_share", "float", "mean share of an image's pixels that lie in its region")
    yield Column("ssim_upsampled_to", "int", "shorter side that images were upsampled to for SSIM")
    yield Column("lpips_upsampled_to", "int", "shorter side that images were upsampled to for LPIPS")
    yield Column("evaluator_accuracy", "float", "share of test images that the evaluator names right")
    yield Column("n_reconstructions", "int", "images made by model inversion")
    yield Column("n_targets", "int", "targets that were attacked")
    yield Column("n_images", "int", "private images behind them")
    yield Column(
        "n_missed",
        "int",
        "private images without a finite reconstruction, which count as worst; model inversion: "
        "reconstructions that are not finite, which count as misses",
    )
    yield Column("null_reasons", "str", "JSON: why columns are null, by column name or pattern (`ssim_ci_*`)")


def _metric_columns(card: MetricCard[Any]) -> Iterator[Column]:
    if card.evaluated:
        yield Column(card.column, "float", card.summary)
        yield Column(
            f"ceiling_{card.column}", "float", f"{card.column} of real held-out images in their place"
        )
        return
    each = "images" if card.kind == "pair" else "targets"
    yield Column(card.column, "float", f"mean over {each}: {card.summary}")
    for spread in SPREADS:
        of = "95 % bootstrap interval over targets" if spread.startswith("ci") else f"over {each}"
        yield Column(f"{card.column}_{spread}", "float", f"{spread} of {card.column}, {of}")
    for yardstick in yardsticks_of(card):
        yield Column(f"{yardstick}_{card.column}", "float", f"mean of {card.column} at the {yardstick}")


def reconstruction_columns() -> Iterator[Column]:
    """Yield every column of `judge.ImageRow` in `reconstructions/`, in order."""
    yield Column("target_id", "str", "the target it was made for")
    yield Column("reconstruction_index", "int", "its position among the target's reconstructions")
    yield Column("matched_index", "int", "position of the private image it was matched with")
    yield Column(
        "image_id",
        "str",
        "id of that private image; model inversion: of the one of the target class that is nearest to it by "
        "the evaluator's features",
    )
    yield Column("finite", "bool", "whether every pixel is a finite number")
    yield Column("label", "str", "label that the attack recovered with it (JSON)")
    yield Column("true_label", "str", "label of the matched private image, or the target class (JSON)")
    yield Column("evaluator_label", "int", "class that the evaluator takes it for")
    yield Column("evaluator_confidence", "float", "probability that the evaluator gives that class")
    yield Column("hit", "bool", "whether that is the target class")
    for card in METRICS:
        if card.kind == "pair":
            yield Column(card.column, "float", card.summary)
