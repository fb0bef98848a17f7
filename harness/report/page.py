"""From what a report says to a page that needs nothing else: HTML, or Markdown for other documents."""

from __future__ import annotations

from typing import Literal

import jinja2

from harness.analysis.by_round import against_floor, later
from harness.report import words
from harness.report.content import Report

Format = Literal["html", "md"]


def render(report: Report, form: Format) -> str:
    """Return the page; equal reports give equal pages."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=form == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "interval": words.interval,
        "number": words.number,
        "budget": words.budget,
        "share": words.share,
        "counted": words.counted,
        "conditions": words.conditions,
        "attack": words.attack,
        "against_floor": against_floor,
        "later": later,
        "cell": _cell,
    }
    return environment.get_template(f"report.{form}.j2").render(report=report)


def _cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
