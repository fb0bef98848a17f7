"""Cards of the metrics that published tables use beside or instead of ours; read without torch or numpy.

Conventions differ between papers: each column here is named for one of them. GGL's tables (Li et al. 2022)
measure images in [-1, 1], take 1 for the peak of their PSNR, and LPIPS on VGG-16.
"""

from __future__ import annotations

from fl.cards import MetricCard
from fl.specs import NoConfig
from harness.metrics.declare import PSNR_CAP_DB, REFERENCE_OFFSET_DB, metric_card

GGL = (
    "Li et al. 2022, Auditing Privacy Defenses in Federated Learning via Generative Gradient Leakage, "
    "arXiv 2203.15696, section 4"
)
LPIPS = (
    "Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, "
    "arXiv 1801.03924"
)

PUBLISHED_CARDS: tuple[MetricCard[NoConfig], ...] = (
    metric_card(
        "mse_i",
        "Mean squared error of pixels in [-1, 1] (MSE-I): four times `mse`.",
        "image:mse_i",
        leaks_more="lower",
        bounds=(0.0, 4.0),
        reference=GGL,
    ),
    metric_card(
        "psnr_ref_db",
        f"PSNR with peak 1 on pixels in [-1, 1], 10 log10(1 / mse_i): {REFERENCE_OFFSET_DB:.2f} dB below "
        "`psnr_db`.",
        "image:psnr_ref_db",
        leaks_more="higher",
        bounds=(-REFERENCE_OFFSET_DB, PSNR_CAP_DB - REFERENCE_OFFSET_DB),
        unit="dB",
        reference=GGL,
    ),
    metric_card(
        "mse_r",
        "Mean squared difference of the observed model's penultimate features (MSE-R).",
        "features:mse_r",
        leaks_more="lower",
        bounds=(0.0, None),
        reference=GGL,
    ),
    metric_card(
        "lpips_alex",
        "Learned perceptual distance on AlexNet's features: `lpips` under the name that tables give it.",
        "perceptual:lpips",
        leaks_more="lower",
        bounds=(0.0, None),
        reference=LPIPS,
    ),
    metric_card(
        "lpips_vgg",
        "Learned perceptual distance on VGG-16's features (version 0.1); measured on request.",
        "perceptual:lpips_vgg",
        leaks_more="lower",
        bounds=(0.0, None),
        reference=LPIPS,
        on_request=True,
    ),
)
