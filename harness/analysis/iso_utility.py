"""Defenses at the same cost: each at the noise budget that loses a given accuracy, and what leaks there.

A defense is judged by the configurations of it that were tried. Those that another one beats in both accuracy
and leakage are set aside; along the others, accuracy falls as leakage does. Where the accuracy asked for lies
between two of them that differ in their noise budget only, budget and leakage are interpolated.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from defenses import DEFENSES
from fl.data import DATASETS
from fl.errors import BenchError
from fl.specs import canonical_json
from harness.analysis.leakage import leaks, utilities, worst
from harness.analysis.measures import Metric
from harness.analysis.uncertainty import Estimate

if TYPE_CHECKING:
    import pandas as pd

Finding = Literal[
    "found",
    "no budget costs that much",
    "every budget costs more",
    "not resolvable with this data",
    "too few federations",
    "no better than none",
    "no reference",
]
NONE = ""
"""Label of no defense at all, which is a configuration of every defense."""
NOTHING = Estimate(0.0, 0.0, 0.0, 0, 0, "student", 1.0)
"""What no defense costs, by definition."""


class Configuration(NamedTuple):
    """A defense as it was tried.

    Attributes:
        label: What tells it from others but for its noise budget.
        noise_budget: In the defense's unit.
        drop: Accuracy lost, paired by seed; None where `none` was not tried.
        leakage: What the strongest attack takes beyond the floor.
    """

    label: str
    noise_budget: float
    drop: Estimate | None
    leakage: Estimate


class IsoUtility(NamedTuple):
    """A defense at a given loss of accuracy.

    Attributes:
        setting: Data set and model.
        defense: Which.
        accuracy_drop: The loss asked for.
        finding: Whether there is an answer, and if not, why.
        label: The configuration, as `Configuration.label`; None without an answer.
        noise_budget: Its budget; for "no budget costs that much" the one that leaks least.
        low: Least budget that may cost that much, by the interval of the loss; None beyond what was tried.
        high: Largest one, likewise.
        drop: Accuracy lost at the budget.
        leakage: What leaks at the budget.
        between: The budgets between which it was interpolated, or None.
        test_images: Images that a test part would need to resolve the loss; None where not known, or not
            needed.
    """

    setting: str
    defense: str
    accuracy_drop: float
    finding: Finding
    label: str | None = None
    noise_budget: float | None = None
    low: float | None = None
    high: float | None = None
    drop: Estimate | None = None
    leakage: Estimate | None = None
    between: tuple[float, float] | None = None
    test_images: int | None = None


@dataclass(frozen=True)
class Curve:
    """The configurations of one defense, with what they are compared with.

    Attributes:
        setting: Data set and model.
        defense: The defense.
        tried: Its configurations.
        none: Leakage without a defense; None where that was not tried.
        off: The noise budget at which the defense does nothing, or None.
        test_images: Images of the test part; None where not known.
    """

    setting: str
    defense: str
    tried: Sequence[Configuration]
    none: Estimate | None = None
    off: float | None = None
    test_images: int | None = None

    def at(self, accuracy_drop: float) -> IsoUtility:
        """Return the defense where it costs `accuracy_drop` of accuracy (a share, > 0)."""
        empty = IsoUtility(self.setting, self.defense, accuracy_drop, "no reference")
        edge = self._edge()
        if not edge:
            return empty
        cheap = [point for point in edge if _drop(point).mean <= accuracy_drop]
        dear = edge[len(cheap) :]
        if not dear and cheap[-1].label == NONE:
            return empty._replace(finding="no better than none")
        if not dear:
            return _judged(self, empty, cheap[-1], "no budget costs that much")
        point = _between(cheap[-1], dear[0], accuracy_drop) if cheap else None
        if point is not None:
            part = [each for each in edge if each.label in (NONE, point.label)]
            return _judged(self, empty, point, "found")._replace(
                low=_reaches(part, accuracy_drop, "high"),
                high=_reaches(part, accuracy_drop, "low"),
                between=(cheap[-1].noise_budget, dear[0].noise_budget),
            )
        if not cheap or cheap[-1].label == NONE:
            return empty._replace(finding="every budget costs more")
        return _judged(self, empty, cheap[-1], "found")

    def _edge(self) -> list[Configuration]:
        """Return the configurations that no other beats, by rising cost, no defense among them."""
        points = [point for point in self.tried if point.drop is not None]
        if self.none is not None and points:
            off = math.nan if self.off is None else self.off
            points.append(Configuration(NONE, off, NOTHING, self.none))
        edge: list[Configuration] = []
        for point in sorted(points, key=lambda each: (_drop(each).mean, each.leakage.mean)):
            if not edge or point.leakage.mean < edge[-1].leakage.mean:
                edge.append(point)
        return edge


def iso_utility(
    labelled: pd.DataFrame, accuracy_drop: float, *, metric: Metric | None = None
) -> list[IsoUtility]:
    """Return every defense of an experiment where it costs `accuracy_drop`, by setting and defense.

    Args:
        labelled: Trials with labels (`labels.with_labels`).
        accuracy_drop: A share, such as 0.01.
        metric: What leakage is measured by.
    """
    return [curve.at(accuracy_drop) for curve in curves(labelled, metric=metric)]


def curves(labelled: pd.DataFrame, *, metric: Metric | None = None) -> list[Curve]:
    """Return every defense of an experiment with its configurations."""
    strongest = worst(leaks(labelled, metric=metric))
    complete = labelled[labelled["status"] == "complete"]
    named = dict(zip(complete["defense_label"], complete["defense"], strict=True))
    drops = {(one.setting, one.defense, one.noise_budget): one.drop for one in utilities(labelled)}
    found: dict[tuple[str, str], list[Configuration]] = {}
    for key, leak in strongest.items():
        setting, label, budget = key
        name = label if named[label] == "chain" else named[label]
        point = Configuration(label, budget, drops.get(key), leak.excess)
        found.setdefault((setting, name), []).append(point)
    return [
        Curve(
            setting=setting,
            defense=name,
            tried=_as_sure_as_any(points),
            none=found[setting, "none"][0].leakage if (setting, "none") in found else None,
            off=off_budget(complete.loc[complete["defense_label"] == points[0].label, "spec"].iloc[0]),
            test_images=size_of_test_part(complete.loc[complete["setting"] == setting, "spec"].iloc[0]),
        )
        for (setting, name), points in found.items()
        if name != "none"
    ]


def _as_sure_as_any(points: Sequence[Configuration]) -> list[Configuration]:
    """Return the configurations that were evaluated under as many seeds as any: pruned ones were not."""
    most = max(point.leakage.clusters for point in points)
    return [point for point in points if point.leakage.clusters == most]


def off_budget(canonical: str) -> float | None:
    """Return the noise budget at which the defense of a stored spec would do nothing, or None."""
    stored = json.loads(canonical)["defense"]
    if stored["name"] not in DEFENSES:
        return None
    card = DEFENSES.get(stored["name"])
    return card.noise_budget(card.config.model_validate_json(canonical_json(stored["config"]))).off


def size_of_test_part(canonical: str) -> int | None:
    """Return how many images the accuracy of a stored spec's trial was measured on; None if not known."""
    stored = json.loads(canonical)["data"]
    if stored is None or stored["name"] not in DATASETS:
        return None
    card = DATASETS.get(stored["name"])
    try:
        config = card.config.model_validate_json(canonical_json(stored["config"]))
        return card.describe(config).images["test"]
    except (BenchError, ValueError):  # the files of the data are not on this machine
        return None


def _drop(point: Configuration) -> Estimate:
    assert point.drop is not None
    return point.drop


def _judged(curve: Curve, empty: IsoUtility, point: Configuration, finding: Finding) -> IsoUtility:
    """Return the answer `point`, unless the interval of its cost is too wide to call it one.

    Of the interval's width, what the number of test images accounts for shrinks with its square root.
    """
    drop, wanted = _drop(point), empty.accuracy_drop
    half = (drop.high - drop.low) / 2
    found = empty._replace(
        finding=finding, label=point.label, noise_budget=point.noise_budget, drop=drop, leakage=point.leakage
    )
    if not drop.known:
        return found._replace(finding="too few federations")
    if half > wanted:
        needed = None if curve.test_images is None else math.ceil(curve.test_images * (half / wanted) ** 2)
        return found._replace(finding="not resolvable with this data", test_images=needed)
    return found


def _between(cheap: Configuration, dear: Configuration, accuracy_drop: float) -> Configuration | None:
    """Return the configuration between two at which a loss is reached, or None if it cannot be known."""
    low, high = _drop(cheap).mean, _drop(dear).mean
    if low == accuracy_drop or cheap.label not in (NONE, dear.label) or math.isnan(cheap.noise_budget):
        return None
    share = (accuracy_drop - low) / (high - low)
    return Configuration(
        dear.label,
        _budget(cheap.noise_budget, dear.noise_budget, share),
        _mixed(_drop(cheap), _drop(dear), share),
        _mixed(cheap.leakage, dear.leakage, share),
    )


def _budget(one: float, other: float, share: float) -> float:
    """Return the budget a share of the way from one to another; geometrically where both are positive."""
    if one > 0 and other > 0:
        return float(one * (other / one) ** share)
    return one + (other - one) * share


def _mixed(one: Estimate, other: Estimate, share: float) -> Estimate:
    """Return an estimate a share of the way from one to another."""
    mean, low, high = (a + (b - a) * share for a, b in zip(one[:3], other[:3], strict=True))
    known = one.known and other.known
    return Estimate(
        mean, low, high, min(one.values, other.values), min(one.clusters, other.clusters),
        other.method if known else "none", math.nan,
    )  # fmt: skip


def _reaches(
    edge: Sequence[Configuration], accuracy_drop: float, end: Literal["low", "high"]
) -> float | None:
    """Return the budget at which an end of the loss's interval reaches a loss; None if it never does."""
    for one, other in itertools.pairwise(edge):
        before, after = getattr(_drop(one), end), getattr(_drop(other), end)
        if before <= accuracy_drop < after and not math.isnan(one.noise_budget):
            share = (accuracy_drop - before) / (after - before)
            return _budget(one.noise_budget, other.noise_budget, share)
    return None
