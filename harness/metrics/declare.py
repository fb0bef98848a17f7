"""How the built-in metrics are declared; read without torch or numpy."""

from __future__ import annotations

from typing import Literal

from fl.cards import MetricCard, Reference
from fl.specs import NoConfig

PSNR_CAP_DB = 100.0
"""PSNR of an exact reconstruction: an rms error of 1e-5, far below one step of an 8-bit image."""


REFERENCE_OFFSET_DB = 6.020599913279624
"""10 log10(4): by how much a PSNR with peak 1 on images in [-1, 1] is below one on images in [0, 1]."""


def metric_card(
    name: str,
    summary: str,
    implementation: str,
    *,
    leaks_more: Literal["higher", "lower"],
    bounds: tuple[float | None, float | None],
    unit: str = "",
    kind: Literal["pair", "set"] = "pair",
    reference: str | None = None,
    on_request: bool = False,
) -> MetricCard[NoConfig]:
    """Return the card of a metric whose column has its name.

    Args:
        name: Its name.
        summary: One sentence.
        implementation: `module:function` within `harness.metrics`.
        leaks_more: Which way means that more leaked.
        bounds: Smallest and largest value, None for none.
        unit: Its unit.
        kind: What it scores.
        reference: Its source.
        on_request: Whether only a matrix that names it measures it.
    """
    return MetricCard(
        name=name,
        version=1,
        summary=summary,
        config=NoConfig,
        implementation=f"harness.metrics.{implementation}",
        reference=None if reference is None else Reference(reference),
        kind=kind,
        column=name,
        unit=unit,
        leaks_more=leaks_more,
        lower=bounds[0],
        upper=bounds[1],
        on_request=on_request,
    )
