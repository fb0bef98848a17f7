"""Cards of the metrics that ask for more than what public data show; read without torch or numpy."""

from __future__ import annotations

from fl.cards import MetricCard
from fl.specs import NoConfig
from harness.metrics.declare import metric_card

NEIGHBOURS = (1, 3, 5)
"""The k of k-IIP."""

IDENTITY_CARDS: tuple[MetricCard[NoConfig], ...] = (
    metric_card(
        "rdlv",
        "Relative gain in SSIM over the mean public image: (SSIM(x, rec) - SSIM(x, prior)) / SSIM(x, prior).",
        "relative:rdlv",
        leaks_more="higher",
        bounds=(None, None),
        reference="Hatamizadeh et al. 2023, Do Gradient Inversion Attacks Make Federated Learning Unsafe?, "
        "IEEE Transactions on Medical Imaging 42(7), arXiv 2202.06924",
    ),
    *(
        metric_card(
            f"iip_{k}",
            f"Share of the {k} nearest gallery images, by the observed model's features, that belong to the "
            "attacked client."
            if k > 1
            else "Share of reconstructions whose nearest gallery image, by the observed model's features, "
            "belongs to the attacked client.",
            f"identifiability:iip_{k}",
            leaks_more="higher",
            bounds=(0.0, 1.0),
            reference="Yin et al. 2021, See through Gradients: Image Batch Recovery via GradInversion, "
            "arXiv 2104.07586, section 4 (image identifiability precision)",
        )
        for k in NEIGHBOURS
    ),
)
