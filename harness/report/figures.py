"""Pictures of numbers as SVG: text stays text, and colours follow the page's light or dark scheme.

The colours of data are those of Okabe and Ito, which people with any kind of colour vision tell apart;
markers and dashes tell the same story again, for print in black and white.
"""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl

from harness.analysis.uncertainty import Estimate

mpl.use("svg")
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
INK, GRID = "#010203", "#040506"
"""Stand-ins for the page's colours, replaced in the SVG."""
LEGEND_LINE = 0.24
"""Inches that a line of the legend takes."""
LONG_NAME = 38
"""Letters from which on a legend has one column only."""
LONG_LABEL = 60
"""Letters after which an axis's label goes on in the next line."""
MOST_BANDS = 6
"""With more curves than this, intervals would cover each other and are left out."""
MOST_TICKS = 10
"""With more rounds than this, not every one is written below its point."""
PANELS = 3
"""Panels side by side."""
PANEL_WIDTHS = (6.4, 8.6, 9.6)
"""Inches that one, two and three panels side by side take."""
LOG_SPAN = 8
"""Budgets further apart than this factor are drawn on a logarithmic axis."""


class Curve(NamedTuple):
    """A line of a figure: x positions and estimates, by name."""

    name: str
    x: Sequence[float]
    y: Sequence[Estimate]


class Panel(NamedTuple):
    """One of several plots with the same axes.

    Attributes:
        title: Above it.
        curves: Its lines; those of one name look alike in all panels.
        marks: Lines to compare with (a floor, a ceiling), drawn thin and without intervals.
    """

    title: str
    curves: Sequence[Curve]
    marks: Sequence[Curve]


class Place(NamedTuple):
    """A defense at a budget in the plane of leakage and utility."""

    defense: str
    budget: float
    leakage: Estimate
    utility: Estimate
    on_front: bool


def trade_off(places: Sequence[Place], *, leakage: str, utility: str, name: str) -> str:
    """Draw utility against leakage with 95 % intervals; the front's points are filled."""
    names = list(dict.fromkeys(place.defense for place in places))
    figure, axes = _figure(height=4.0, legend=names)
    for index, defense in enumerate(names):
        own = sorted((p for p in places if p.defense == defense), key=lambda p: p.budget)
        colour, marker = PALETTE[index % len(PALETTE)], _marker(index)
        axes.plot([p.leakage.mean for p in own], [p.utility.mean for p in own], color=colour, lw=1, alpha=0.6)
        for place in own:
            axes.errorbar(
                place.leakage.mean,
                place.utility.mean,
                xerr=_reach(place.leakage),
                yerr=_reach(place.utility),
                color=colour,
                marker=marker,
                markersize=7,
                markerfacecolor=colour if place.on_front else "none",
                elinewidth=0.8,
                alpha=0.95,
            )
        axes.plot([], [], color=colour, marker=marker, label=defense)
    axes.set_xlabel(f"leakage: {leakage} (less is better)")
    axes.set_ylabel(f"utility: {utility} (more is better)")
    _legend(axes, names)
    return _svg(figure, name)


def over_budgets(curves: Sequence[Curve], *, budget: str, leakage: str, name: str) -> str:
    """Draw leakage against the noise budget, a line for each attack, with 95 % intervals."""
    figure, axes = _figure(height=3.0, legend=[curve.name for curve in curves])
    _lines(axes, curves)
    positive = [x for curve in curves for x in curve.x if x > 0]
    if positive and max(positive) / min(positive) > LOG_SPAN:
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xlabel(textwrap.fill(f"noise budget: {budget}", LONG_LABEL))
    axes.set_ylabel(textwrap.fill(leakage, 30))
    _legend(axes, [curve.name for curve in curves])
    return _svg(figure, name)


def over_rounds(curves: Sequence[Curve], *, utility: str, name: str) -> str:
    """Draw utility against rounds, a line for each defense; with 95 % intervals where the lines are few."""
    figure, axes = _figure(height=3.0, legend=[curve.name for curve in curves])
    _lines(axes, curves, bands=True)
    axes.set_xlabel("rounds trained")
    axes.set_ylabel(utility)
    _legend(axes, [curve.name for curve in curves])
    return _svg(figure, name)


def panels(plots: Sequence[Panel], *, x: str, y: str, from_zero: bool, name: str) -> str:
    """Draw plots side by side on the same y axis, with one legend.

    95 % intervals are shaded where no plot has more than `MOST_BANDS` lines.
    """
    names = list(dict.fromkeys(curve.name for plot in plots for curve in plot.curves))
    marks = list(dict.fromkeys(curve.name for plot in plots for curve in plot.marks))
    figure, grid = _grid(len(plots), x=x, y=y, legend=[*names, *marks])
    bands = all(len(plot.curves) <= MOST_BANDS for plot in plots)
    for axes, plot in zip(grid, plots, strict=True):
        for curve in plot.curves:
            _course(axes, curve, names.index(curve.name), bands=bands)
        for curve in plot.marks:
            axes.plot(curve.x, [each.mean for each in curve.y], **_mark(marks.index(curve.name)))
        axes.set_title(textwrap.fill(plot.title, LONG_NAME), color=INK, fontsize=10)
        _round_ticks(axes, sorted({x for curve in plot.curves for x in curve.x}))
    for index, curve_name in enumerate(names):
        grid[0].plot([], [], label=curve_name, **_line(index))
    for index, mark in enumerate(marks):
        grid[0].plot([], [], label=mark, **_mark(index))
    if from_zero:
        grid[0].set_ylim(bottom=0)
    _legend(grid[0], [*names, *marks])
    return _svg(figure, name)


def _course(axes: Axes, curve: Curve, index: int, *, bands: bool) -> None:
    axes.plot(curve.x, [each.mean for each in curve.y], **_line(index))
    if bands:
        low = [e.low if e.known else e.mean for e in curve.y]
        high = [e.high if e.known else e.mean for e in curve.y]
        axes.fill_between(curve.x, low, high, color=PALETTE[index % len(PALETTE)], alpha=0.12, lw=0)


def _line(index: int) -> dict[str, Any]:
    style = {"color": PALETTE[index % len(PALETTE)], "ls": DASHES[(index // len(PALETTE)) % len(DASHES)]}
    return {**style, "marker": _marker(index), "markersize": 5, "lw": 1.6}


def _mark(index: int) -> dict[str, Any]:
    return {"color": INK, "ls": DASHES[1:][index % 3], "lw": 1.1, "alpha": 0.75}


def _round_ticks(axes: Axes, rounds: Sequence[float]) -> None:
    """Write every round below its point, where they are few and do not touch; else some whole numbers."""
    span = rounds[-1] - rounds[0]
    gaps = [later - earlier for earlier, later in itertools.pairwise(rounds)]
    if len(rounds) <= MOST_TICKS and all(gap * MOST_TICKS >= span for gap in gaps):
        axes.set_xticks(rounds)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _marker(index: int) -> str:
    """Return a marker that no curve of the same colour has had."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def _lines(axes: Axes, curves: Sequence[Curve], *, bands: bool = False) -> None:
    for index, curve in enumerate(curves):
        colour = PALETTE[index % len(PALETTE)]
        style: dict[str, Any] = {"color": colour, "ls": DASHES[(index // len(PALETTE)) % len(DASHES)]}
        means = [estimate.mean for estimate in curve.y]
        if bands:
            axes.plot(curve.x, means, label=curve.name, lw=1.6, **style)
            if len(curves) > MOST_BANDS:
                continue
            low = [e.low if e.known else e.mean for e in curve.y]
            high = [e.high if e.known else e.mean for e in curve.y]
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.1, lw=0)
            continue
        reach = [_reach(estimate) or [[0.0], [0.0]] for estimate in curve.y]
        axes.errorbar(
            curve.x,
            means,
            yerr=[[one[side][0] for one in reach] for side in (0, 1)],
            marker=_marker(index),
            label=curve.name,
            capsize=3,
            lw=1.6,
            **style,
        )


def _figure(*, height: float, legend: Sequence[str]) -> tuple[Figure, Axes]:
    """Return axes about `height` inches high, with room below for the legend."""
    figure = Figure(figsize=(6.4, height + _lines_of(legend) * LEGEND_LINE), layout="constrained")
    axes = figure.subplots()
    _plain(figure, [axes])
    return figure, axes


def _grid(count: int, *, x: str, y: str, legend: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return `count` axes with the same y axis in rows, with room below for the legend."""
    across = 2 if count in (2, 4) else min(PANELS, count)
    down = -(-count // across)
    size = (PANEL_WIDTHS[across - 1], 2.6 * down + _lines_of(legend) * LEGEND_LINE)
    figure = Figure(figsize=size, layout="constrained")
    every = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for axes in every[count:]:
        axes.remove()
    for number, axes in enumerate(every[:count]):
        axes.set_ylabel(y if number % across == 0 else "")
        axes.set_xlabel(x if number + across >= count else "")
    _plain(figure, every[:count])
    return figure, every[:count]


def _plain(figure: Figure, every: Sequence[Axes]) -> None:
    """Take away what a plot does not need, and let the page's colours show."""
    figure.patch.set_alpha(0)
    for axes in every:
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(INK)
        axes.tick_params(colors=INK, labelsize=10)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.grid(visible=True, color=GRID, lw=0.6)
        axes.set_axisbelow(True)


def _lines_of(legend: Sequence[str]) -> int:
    return -(-len(legend) // _columns(legend))


def _columns(legend: Sequence[str]) -> int:
    return 1 if len(legend) < 4 or max(map(len, legend)) > LONG_NAME else 2


def _legend(axes: Axes, names: Sequence[str]) -> None:
    axes.figure.legend(
        loc="outside lower center", ncols=_columns(names), frameon=False, labelcolor=INK, fontsize=9
    )


def _reach(estimate: Estimate) -> list[list[float]] | None:
    if not estimate.known:
        return None
    return [[max(0.0, estimate.mean - estimate.low)], [max(0.0, estimate.high - estimate.mean)]]


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element; equal figures of equal names give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--line)")
    for number, colour in enumerate(PALETTE):
        text = text.replace(colour, f"var(--data-{number})")
    opening = rf'<svg style="--inches: {figure.get_figwidth():g}" \1'
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', opening, text, count=1)
    for attribute in ('id="', 'href="#', "url(#"):  # several figures share a page
        text = text.replace(attribute, f"{attribute}{name}-")
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # would hold for the whole page
    return re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
