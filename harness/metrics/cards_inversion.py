"""Cards of the metrics of model inversion, measured by an evaluator; read without torch or numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fl.cards import MetricCard
from fl.specs import NoConfig
from harness.metrics.declare import metric_card

NEIGHBOURS = 5
"""The k of precision, recall, density and coverage; sets of k images or fewer have one neighbour less."""

CHOICES = 5
"""Classes among which `attack_top5` looks for the target."""

_KYNKAANNIEMI = (
    "Kynkäänniemi et al. 2019, Improved Precision and Recall Metric for Assessing Generative Models, "
    "arXiv 1904.06991, section 2"
)
_NAEEM = (
    "Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models, arXiv 2002.09797, "
    "section 3"
)
_KED = (
    "Chen et al. 2021, Knowledge-Enriched Distributional Model Inversion Attacks, arXiv 2010.04092, section 4"
)


def _card(
    name: str,
    summary: str,
    implementation: str,
    *,
    leaks_more: Literal["higher", "lower"],
    upper: float | None = None,
    reference: str | None = None,
) -> MetricCard[NoConfig]:
    card = metric_card(
        name,
        summary,
        implementation,
        leaks_more=leaks_more,
        bounds=(0.0, upper),
        kind="set",
        reference=reference,
    )
    return replace(card, evaluated=True)


INVERSION_CARDS: tuple[MetricCard[NoConfig], ...] = (
    _card(
        "attack_top1",
        "Share of reconstructions that an evaluator takes for their target class.",
        "inversion_accuracy:attack_top1",
        leaks_more="higher",
        upper=1.0,
        reference="Zhang et al. 2020, The Secret Revealer: Generative Model-Inversion Attacks Against Deep "
        "Neural Networks, arXiv 1911.07135, section 4 (attack accuracy)",
    ),
    _card(
        "attack_top5",
        f"Share of reconstructions whose target class is among an evaluator's first {CHOICES}.",
        "inversion_accuracy:attack_top5",
        leaks_more="higher",
        upper=1.0,
        reference=_KED,
    ),
    _card(
        "knn_distance",
        "Mean squared distance of an evaluator's features to the nearest real private image of the class.",
        "inversion_distance:knn_distance",
        leaks_more="lower",
        reference=_KED,
    ),
    _card(
        "centre_distance",
        "Mean squared distance of an evaluator's features to the mean of real private images of the class.",
        "inversion_distance:centre_distance",
        leaks_more="lower",
        reference=_KED,
    ),
    _card(
        "evaluator_fid",
        "Fréchet distance of an evaluator's features from those of real private images.",
        "inversion_frechet:evaluator_fid",
        leaks_more="lower",
        reference="Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash "
        "Equilibrium, arXiv 1706.08500, section 4 (there with Inception's features)",
    ),
    _card(
        "precision",
        "Share of reconstructions within reach of a real private image, by an evaluator's features.",
        "inversion_coverage:precision",
        leaks_more="higher",
        upper=1.0,
        reference=_KYNKAANNIEMI,
    ),
    _card(
        "recall",
        "Share of real private images within reach of a reconstruction, by an evaluator's features.",
        "inversion_coverage:recall",
        leaks_more="higher",
        upper=1.0,
        reference=_KYNKAANNIEMI,
    ),
    _card(
        "density",
        "How many real private images reach a reconstruction, divided by k, by an evaluator's features.",
        "inversion_coverage:density",
        leaks_more="higher",
        reference=_NAEEM,
    ),
    _card(
        "coverage",
        "Share of real private images that reach a reconstruction, by an evaluator's features.",
        "inversion_coverage:coverage",
        leaks_more="higher",
        upper=1.0,
        reference=_NAEEM,
    ),
    _card(
        "pairwise_distance",
        "Mean distance of two reconstructions of one class: root mean square over pixels.",
        "inversion_distance:pairwise_distance",
        leaks_more="higher",
        upper=1.0,
    ),
)
