"""Private images of noise, targets among them, and what the judge makes of their reconstructions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor

from fl.seeds import Streams
from harness.metrics import METRICS
from harness.metrics.catalog import Column, reconstruction_columns, trial_columns
from harness.metrics.judge import Judge, Row, TrialScore
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.regions import Regions
from harness.metrics.targets import ScoredTarget
from harness.metrics.yardsticks import ScoreContext
from harness.testing.small_images import SmallPublicData

SHAPE = (1, 16, 16)
N_PRIVATE, N_PUBLIC = 40, 30
NO_LPIPS = Unavailable("no weights here")
OF_EVALUATORS = {
    *(card.column for card in METRICS if card.evaluated),
    "evaluator_accuracy",
    "n_reconstructions",
}
"""Columns that are null without a reason where updates were observed."""
TYPES = {"float": float, "int": int, "str": str, "bool": bool}


def draw(n: int, *, seed: int, shape: Sequence[int] = SHAPE) -> Tensor:
    """Return n images of uniform noise, `n x C x H x W`."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


PRIVATE = draw(N_PRIVATE, seed=0)
IDS = tuple(f"p{i}" for i in range(N_PRIVATE))
MARKED = Regions("data_set", {name: draw(1, seed=k)[0, 0] < 0.4 for k, name in enumerate(IDS)})
"""Sensitive regions of all private images."""


def public_data(images: Tensor) -> SmallPublicData:
    """Return images as the attacker's, all of one class."""
    return SmallPublicData(images, torch.zeros(len(images), dtype=torch.long))


def first_pixels(images: Tensor) -> Tensor:
    """Return 20 features of each image, `n x 20`."""
    return images.flatten(1)[:, :20]


def context(**changes: Any) -> ScoreContext:
    """Return what scoring needs besides targets: all private images are the gallery."""
    public = public_data(draw(N_PUBLIC, seed=1))
    return replace(ScoreContext(Streams(7), public, Gallery(IDS, PRIVATE), first_pixels), **changes)


def target(
    name: str, indices: Sequence[int], reconstruction: Tensor | None = None, **changes: Any
) -> ScoredTarget:
    """Return a target of some private images, exactly reconstructed unless said otherwise."""
    truth = PRIVATE[indices]
    exact = ScoredTarget(
        target_id=name,
        truth=truth,
        image_ids=tuple(IDS[i] for i in indices),
        labels=tuple(i % 3 for i in indices),
        reconstruction=truth.clone() if reconstruction is None else reconstruction,
    )
    return replace(exact, **changes)


def noisy_targets(*, n: int = 3, size: int = 2) -> list[ScoredTarget]:
    """Return n targets of so many images each, with known labels, every one noisier than the one before."""
    targets = []
    for k in range(n):
        indices = list(range(k * size, (k + 1) * size))
        guess = (PRIVATE[indices] + (k + 1) * 0.05 * (draw(size, seed=90 + k) - 0.5)).clamp(0, 1)
        targets.append(target(f"t{k}", indices, guess, recovered_labels=torch.tensor(indices) % 3))
    return targets


def score(targets: Sequence[ScoredTarget], judge: Judge | None = None, **changes: Any) -> TrialScore:
    """Score targets with a judge, by default one without LPIPS, in a context with changes."""
    return (judge or Judge(NO_LPIPS)).score(targets, context=context(**changes))


def unexplained(columns: Row) -> list[str]:
    """Return null columns that no reason covers, but for what only an evaluator measures."""
    reasons = json.loads(str(columns["null_reasons"]))
    return [
        name
        for name, value in columns.items()
        if value is None
        and not name.endswith("_upsampled_to")
        and name.removeprefix("ceiling_") not in OF_EVALUATORS
        and not any(fnmatch(name, pattern) for pattern in reasons)
    ]


def assert_fits_the_tables(result: TrialScore) -> None:
    """Fail unless all columns are there, of their types, and numbers are finite."""
    _assert_fits(result.columns, trial_columns())
    for row in result.reconstructions:
        _assert_fits(row, reconstruction_columns())


def assert_well_formed(result: TrialScore) -> None:
    """Fail unless a score fits the tables and all that is null is explained."""
    assert_fits_the_tables(result)
    nulls = unexplained(result.columns)
    assert nulls == [], f"expected a reason for every null, got none for {nulls}"


def _assert_fits(row: Row, columns: Iterable[Column]) -> None:
    types = {column.name: TYPES[column.type] for column in columns}
    assert list(row) == list(types), f"expected the columns {list(types)}, got {list(row)}"
    for name, value in row.items():
        assert value is None or type(value) is types[name], f"expected {types[name]} {name}, got {value!r}"
        assert not isinstance(value, float) or math.isfinite(value), f"expected a finite {name}, got {value}"
